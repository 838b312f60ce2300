"""serve.py in a process of its own."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager

from conftest import ROOT


@contextmanager
def serving(*words):
    """(process, address) of serve.py with these words, on a free port."""
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', 'serve.py', *map(str, words), '--port', '0'],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, OMP_NUM_THREADS='1'),
    )
    try:
        line = process.stdout.readline()
        address = re.search(r'http://127\.0\.0\.1:\d+$', line)
        assert address, line + process.stderr.read()
        yield process, address[0]
    finally:
        process.kill()
        process.wait()
