"""Small runs: their options, starting one in the background, and comparing what two left."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL = ('--num-samples', 64, '--batch-size', 8, '--dtype', 'float32')  # of train_cifar.py
SMALL_MNIST = ('--num-samples', 60, '--batch-size', 10, '--dtype', 'float32')
# With sizes that change and images that come twice: whatever resumes does so on both sides of a change.
FAST = (
    *('--version', 'fast', '--epochs', 3, '--resolutions', '16:1', '24:1', '32:1'),
    *('--hard-share', 0.3, '--hard-epochs', 2),
)
TIMES = ('images_per_second', 'seconds')


def start(folder, *words, **settings):
    """A small run of train_cifar.py in the background; settings are environment variables."""
    return subprocess.Popen(
        [sys.executable, 'train_cifar.py', *map(str, SMALL), '--output-dir', str(folder), *map(str, words)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ, **settings),
    )


def wait_for_epoch(process, number):
    """Read the run's output up to the line of an epoch."""
    for line in process.stdout:
        if re.match(rf'epoch +{number} ', line):
            return
    pytest.fail(f'the run ended before epoch {number}')


def run_fields(folder):
    """The rows of a run's metrics.csv without the columns of time."""
    with open(folder / 'metrics.csv') as file:
        return [
            {name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)
        ]


def same_weights(first, second):
    """Whether the last weights of two run folders are equal to the bit."""
    import mxnet as mx

    first, second = (mx.nd.load(str(folder / 'last.params')) for folder in (first, second))
    return set(first) == set(second) and all(
        np.array_equal(first[name].asnumpy(), second[name].asnumpy()) for name in first
    )
