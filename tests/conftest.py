"""Shared fixtures. mxnet is set up here, before any test module imports it."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training import runtime

runtime.prepare('cpu', 'float32')

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def cifar():
    """(training, test) splits of the real CIFAR-10."""
    from training import data
    return data.load_cifar10()


@pytest.fixture
def run_script(tmp_path):
    """Run a script of the project; returns the CompletedProcess with stdout and stderr as text."""
    def run(*words, **settings):
        return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True,
                              text=True, timeout=300, env=dict(os.environ, **settings))
    return run
