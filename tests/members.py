"""The processes of distributed runs, started and watched from outside."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from conftest import ROOT

import launch

MNIST = ('train_mnist.py', '--num-samples', '128', '--lr', '0.05', '--dtype', 'float32', '--epochs', '2')


def start(*words, hangup=signal.SIG_DFL, **environment):
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, **environment),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),
    )


def start_without_launcher(*words, **environment):
    """Scheduler, server and two workers."""
    environment.update(
        DMLC_PS_ROOT_URI='127.0.0.1',
        DMLC_PS_ROOT_PORT=str(launch.free_port()),
        DMLC_NUM_WORKER='2',
        DMLC_NUM_SERVER='1',
        OMP_NUM_THREADS='1',
    )
    return [
        start(*words, '--kvstore', 'dist_sync', **environment, DMLC_ROLE=role)
        for role in ('scheduler', 'server', 'worker', 'worker')
    ]


def wait_for(path, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children(process):
    """Process ids of a launcher's children by their role."""
    roles = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/stat') as file:
                parent = int(file.read().rpartition(')')[2].split()[1])
            with open(f'/proc/{pid}/environ') as file:
                role = re.search(r'DMLC_ROLE=(\w+)', file.read())
        except OSError:
            continue
        if parent == process.pid and role:
            roles.setdefault(role[1], []).append(int(pid))
    return roles


def running_commands():
    """Command lines of all processes."""
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        with suppress(OSError):  # ended meanwhile
            yield path.read_text()
