"""Shared fixtures and helpers. mxnet is set up here, before any test module imports it."""

import gzip
import importlib
import os
import signal
import struct
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from photos import write_photos, write_set
from small_runs import FAST, ROOT, SMALL_MNIST, start

from training import errors
from training.machine import devices
from training.runs.background_plots import BackgroundPlots

devices.prepare('cpu', 'float32')

RECORD = ROOT / 'output' / 'record'
MARK = 'STARTED_BY_TEST'  # environment variable of what `run_script` starts, and of what that starts


@pytest.fixture(scope='session')
def cifar():
    """(training, test) splits of the real CIFAR-10."""
    from training.data import datasets

    return datasets.load_cifar10()


@pytest.fixture(scope='module')
def photos(tmp_path_factory, cifar):
    """A folder of images with the parts train and val."""
    return write_set(tmp_path_factory.mktemp('photos'), cifar)


@pytest.fixture
def one_folder(tmp_path, cifar):
    """A folder of classes without parts."""
    write_photos(tmp_path / 'all', cifar[0], 10)
    return tmp_path / 'all'


@pytest.fixture(scope='session')
def run_script():
    """Run a script of the project; returns the CompletedProcess with stdout and stderr as text.

    Whatever ends the wait for it also ends the processes that it started.
    """

    def run(*words, **settings):
        command = [sys.executable, *map(str, words)]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ, **settings, **{MARK: (mark := uuid.uuid4().hex)}),
        )
        with process:
            try:
                output = process.communicate(timeout=300)
            except BaseException:
                kill_marked(mark)
                raise
        return subprocess.CompletedProcess(command, process.returncode, *output)

    return run


def kill_marked(mark):
    """Kill the processes that have a mark in their environment; launch.py's are sessions of their own."""
    for path in Path('/proc').glob('[0-9]*/environ'):
        with suppress(OSError):  # ended meanwhile, or another user's
            if f'{MARK}={mark}'.encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


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


@pytest.fixture(scope='session')
def finished(tmp_path_factory):
    """Folder and output of a run of train_cifar.py, of three epochs that nothing disturbed."""
    folder = tmp_path_factory.mktemp('runs') / 'whole'
    process = start(folder, *FAST, '--tensorboard')
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return folder, output


@pytest.fixture
def no_figures(monkeypatch):
    """Leave figures out, which take half of a small run's time: for tests of what else a run does."""
    from training.runs.folder import RunFolder

    kept = RunFolder.write_figure

    def write_figure(folder, name, *content):
        if Path(name).suffix not in ('.png', '.gif'):
            kept(folder, name, *content)

    monkeypatch.setattr(RunFolder, 'write_figure', write_figure)


@pytest.fixture
def stop_at(monkeypatch):
    """Have a run get a signal in the nth step from now; returns a list that grows with its steps."""
    from training.machine.cluster import Workers

    kept = Workers.stop_requested

    def stop(step, number=signal.SIGTERM):
        def stop_requested(workers, wanted):
            steps.append(wanted)
            if len(steps) == step:
                signal.raise_signal(number)
            return kept(workers, wanted or len(steps) == step)

        steps = []
        monkeypatch.setattr(Workers, 'stop_requested', stop_requested)
        return steps

    return stop


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
