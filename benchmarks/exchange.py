"""What it costs workers to add up their gradients; prints seconds and bytes a step.

Run as `python launch.py --workers N --servers S -- -m benchmarks.exchange PARAMETERS`.
"""

import sys
import time
from pathlib import Path

from training.machine import devices, parameter_server
from training.machine.cluster import Workers

KVSTORE = 'dist_sync'
TENSORS = 60  # about as many as a ResNet-20 has
SECONDS = 3.0


def loopback_bytes():
    """Bytes that went through the loopback device since the machine started."""
    (line,) = (line for line in Path('/proc/net/dev').read_text().splitlines() if ' lo:' in line)
    return int(line.split()[1])


def main(argv):
    if parameter_server.check_environment(KVSTORE):
        parameter_server.serve(None)
    devices.prepare('cpu')
    from mxnet import gluon, nd

    workers = Workers(KVSTORE)
    size = max(1, int(argv[0]) // TENSORS)
    parameters = [gluon.Parameter(f'weight{i}', shape=(size,)) for i in range(TENSORS)]
    for parameter in parameters:
        parameter.initialize()
    buckets = workers.buckets(parameters)

    def seconds_of(steps):
        nd.waitall()
        workers.sum([0])
        started = time.perf_counter()
        for _ in range(steps):
            workers.add_up(buckets)
        nd.waitall()
        return time.perf_counter() - started

    seconds_of(2)
    steps = max(3.0, SECONDS / seconds_of(3) * 3)
    steps = int(workers.sum([steps * workers.is_rank_zero])[0])  # rank 0's number, for all
    before = loopback_bytes()
    seconds = seconds_of(steps)
    workers.sum([0])
    if workers.is_rank_zero:
        print(seconds / steps, (loopback_bytes() - before) / steps, flush=True)
    workers.leave(0)


if __name__ == '__main__':
    main(sys.argv[1:])
