"""Which precision trains faster on this CPU: measured once, in processes of their own, and cached."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock

BATCH, SIZE, CHANNELS = 64, 32, (16, 32, 64)
WARM_UP, STEPS = 3, 10


def faster_on(cpu: str) -> str:
    """'float32' or 'bfloat16', whichever trains a small convolutional net faster here.

    Instructions for bfloat16 do not decide it: ResNet-20 trains 1.7 times as fast in it on an AMD EPYC
    (Zen 4), 0.83 times on an Intel Xeon that has AMX beside avx512_bf16.

    Parameters
    ----------
    cpu : str
        Its name. The result is cached under it and the number of threads, in the user's cache folder.
    """
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'gmloss' / 'precision.json'
    key = f'{cpu}, {os.environ["OMP_NUM_THREADS"]} threads'
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{cache}.lock'):  # workers that start together measure once
            kept = _read(cache)
            if key not in kept:
                kept[key] = _measured()
                cache.write_text(json.dumps(kept, indent=1))
            return kept[key]
    except OSError:  # a home that cannot be written to
        return _measured()


def _read(cache: Path) -> dict[str, str]:
    try:
        kept = json.loads(cache.read_text())
        return {key: value for key, value in kept.items() if value in ('float32', 'bfloat16')}
    except (OSError, ValueError, AttributeError):
        return {}


def _measured() -> str:
    seconds = {dtype: _seconds(dtype) for dtype in ('float32', 'bfloat16')}
    faster = min(seconds, key=lambda dtype: seconds[dtype])
    (slower,) = seconds.keys() - {faster}
    print(f'{faster} trains {seconds[slower] / seconds[faster]:.1f} times as fast as {slower} on this CPU')
    return faster


def _seconds(dtype: str) -> float:
    """Of one training step, in a process of its own, as mxnet's amp cannot be undone."""
    command = [sys.executable, '-W', 'ignore', '-m', 'training.machine.precision', dtype]
    result = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    return float(result.stdout)


def _train(dtype: str) -> float:
    from training.machine.devices import import_mxnet

    mx = import_mxnet()
    from mxnet.contrib import amp
    from mxnet.gluon import Trainer, nn

    if dtype != 'float32':
        amp.init(dtype)
    net = nn.HybridSequential()
    for channels in CHANNELS:
        for stride in (2 if channels > CHANNELS[0] else 1, 1):
            net.add(nn.Conv2D(channels, 3, stride, 1, use_bias=False), nn.BatchNorm(), nn.Activation('relu'))
    net.add(nn.GlobalAvgPool2D())
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    images = mx.nd.random.normal(shape=(BATCH, 3, SIZE, SIZE))
    net(images)
    trainer = Trainer(net.collect_params(), 'sgd', {'learning_rate': 1e-3})
    times = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        with mx.autograd.record():
            loss = net(images).astype('float32') ** 2
        loss.backward()
        trainer.step(BATCH)
        mx.nd.waitall()
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP:])


if __name__ == '__main__':
    print(_train(sys.argv[1]))
