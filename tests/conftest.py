"""Shared fixtures and helpers. mxnet is set up here, before any test module imports it."""

import csv
import gzip
import importlib
import os
import re
import signal
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from training import errors
from training.machine import devices
from training.runs.background_plots import BackgroundPlots

devices.prepare('cpu', 'float32')

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / 'output' / 'record'
SMALL = ('--num-samples', 128, '--batch-size', 16, '--dtype', 'float32')
SMALL_MNIST = ('--num-samples', 60, '--batch-size', 10, '--dtype', 'float32')
TIMES = ('images_per_second', 'seconds')


@pytest.fixture(scope='session')
def cifar():
    """(training, test) splits of the real CIFAR-10."""
    from training.data import datasets

    return datasets.load_cifar10()


@pytest.fixture(scope='session')
def run_script():
    """Run a script of the project; returns the CompletedProcess with stdout and stderr as text."""

    def run(*words, **settings):
        return subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            env=dict(os.environ, **settings),
        )

    return run


@pytest.fixture(scope='session')
def run_here():
    """Run a script's main in this process, where mxnet is imported already; returns the exit code.

    Takes a fraction of the time of a process of its own, and figures are drawn in a thread in place of
    another process.
    """

    def run(name, *words):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
            patch.setattr(devices, 'prepare', devices.choose)
            patch.setattr(BackgroundPlots, '_new_pool', staticmethod(lambda: ThreadPoolExecutor(1)))
            patch.setattr(sys, 'argv', [name, *map(str, words)])
            errors.exit_with(importlib.import_module(name).main)
        return end.value.code

    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run  # ablate.py sets handlers of its own
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(scope='session')
def train_small(run_here):
    """A small run of train_mnist.py in a folder, of 6 steps an epoch; returns the exit code."""
    return lambda folder, *words: run_here('train_mnist', *SMALL_MNIST, '--output-dir', folder, *words)


@pytest.fixture
def in_place_of_processes(run_here, monkeypatch):
    """Have the trainings that ablate.py starts run in this process; returns the list of their words."""
    started = []

    class Here:
        def __init__(self, words):
            started.append(words)
            self.code = run_here(Path(words[1]).stem, *words[2:])

        def wait(self):
            return self.code

    monkeypatch.setattr('ablate.subprocess', SimpleNamespace(Popen=Here))
    return started


def write_idx(path, array):
    """Write an array of bytes in IDX format, gzipped."""
    header = struct.pack(f'>4B{array.ndim}I', 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def write_fashion(folder, count):
    """The four files of a set in Fashion-MNIST's format, so many random images a split."""
    rng = np.random.default_rng(0)
    for part in ('train', 't10k'):
        write_idx(folder / f'{part}-images-idx3-ubyte.gz', rng.integers(0, 256, (count, 28, 28)))
        write_idx(folder / f'{part}-labels-idx1-ubyte.gz', rng.integers(0, 10, count))


def write_cifar100(folder, train, test):
    """CIFAR-100's binary files with so many random images; returns the rows of both."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 256, (count, 2 + 3072)).astype(np.uint8) for count in (train, test)]
    for part, name in zip(rows, ('train', 'test')):
        part[:, :2] %= np.array([20, 100], np.uint8)  # coarse and fine label
        part.tofile(folder / f'{name}.bin')
    return rows


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
