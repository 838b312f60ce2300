"""How time and traffic grow with classes, features, batch, devices and workers."""

import os
import subprocess
import sys

from benchmarks.rounds import measure, median, ratio
from benchmarks.subjects import BATCH, STEPS

CLASSES = 10, 100, 1000, 10000, 100000
FEATURES = 16, 64, 256, 1024
BATCHES = 32, 128, 512, 2048
BASE = 128, 1000, 64  # batch, classes, features
MANY = 64, 100_000, 128
PARAMETERS = {'ResNet-20': 272_000, '10 times that': 2_720_000, 'ResNet-50': 25_600_000}
LAYOUTS = (1, 1), (2, 1), (2, 2)  # workers, servers


def repeats(batch: int, classes: int, features: int) -> int:
    """How often to repeat a loss of this shape, so that it takes long enough to time."""
    return max(1, round(2e9 / (batch * classes * features + 3e7)))


def report(rounds):
    """Measure everything and print it."""
    print(
        '\nL-GM loss, identity covariance, forward + backward, ms (B={} C={} D={} unless said)'.format(*BASE)
    )
    sweeps = (
        [(f'C={n}', (BASE[0], n, BASE[2])) for n in CLASSES]
        + [(f'D={n}', (BASE[0], BASE[1], n)) for n in FEATURES]
        + [(f'B={n}', (n, BASE[1], BASE[2])) for n in BATCHES]
        + [('C=100000 D=128 B=64', MANY)]
    )
    results = measure(
        {
            shape: ('loss', {'block': 'identity', 'shape': shape, 'repeats': repeats(*shape)})
            for _, shape in sweeps
        },
        rounds,
    )
    for label, shape in sweeps:
        print(f'  {label:20s}{1e3 * median(results, shape):9.2f}{results[shape][1]:7.0f} MiB of extra memory')

    results = measure(
        {device: ('train', {'device': device, 'whole': False}) for device in ('cpu:0', 'cpu:0,1')}, rounds
    )
    print(f'\nResNet-20, float32, batch {BATCH} in all, ms a step')
    for label in results:
        print(f'  {label:12s}{1e3 * median(results, label) / STEPS:9.2f}')
    print(f'  the second takes {ratio(results, "cpu:0,1", "cpu:0")} times as long')

    print('\nadding up gradients over the KVStore on loopback')
    print(f'  {"parameters":16s}workers  servers   ms a step   MB a step   model')
    for label, parameters in PARAMETERS.items():
        for workers, servers in LAYOUTS:
            output = subprocess.run(
                [sys.executable, '-W', 'ignore', 'launch.py', '--workers', str(workers)]
                + ['--servers', str(servers), '--', '-m', 'benchmarks.exchange', str(parameters)],
                text=True,
                capture_output=True,
                check=True,
                env=os.environ,
            )
            seconds, traffic = map(float, output.stdout.split())
            print(
                f'  {label:16s}{workers:7d}{servers:9d}{1e3 * seconds:12.1f}{traffic / 1e6:12.2f}'
                f'{8 * parameters * workers / 1e6:8.2f}'
            )
