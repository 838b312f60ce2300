"""The process that draws: mistakes, and ends that are not its own."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import ROOT

from training.runs.background_plots import BackgroundPlots


def test_a_figure_that_cannot_be_drawn_is_one_line(capfd):
    with BackgroundPlots() as figures:
        figures.submit(os.listdir, __file__)
        figures.submit(os.listdir, os.path.dirname(__file__))
    error = capfd.readouterr().err
    assert len(error.splitlines()) == 1 and 'could not be drawn' in error and __file__ in error


def test_killed_drawing_process_costs_its_figure_and_no_more(tmp_path, capfd):
    with BackgroundPlots() as figures:
        figures.submit(os.kill, os.getpid(), 0)  # so that the process is there
        (drawing,) = figures._pool._processes
        os.kill(drawing, signal.SIGKILL)
        while not figures._pool._broken:
            time.sleep(0.01)
        figures.submit(os.mkdir, tmp_path / 'drawn')
    assert (tmp_path / 'drawn').is_dir()
    assert len(capfd.readouterr().err.splitlines()) <= 1


def test_drawing_process_ends_with_a_training_that_is_killed():
    script = (
        'import os; from training.runs.background_plots import BackgroundPlots; '
        'figures = BackgroundPlots(); figures.submit(os.getpid); '
        'child, = figures._pool._processes; figures._pending[0].result(); '
        'print(child, flush=True); os.kill(os.getpid(), 9)'
    )
    training = subprocess.Popen([sys.executable, '-c', script], cwd=ROOT, text=True, stdout=subprocess.PIPE)
    child = int(training.stdout.readline())
    training.communicate(timeout=60)  # to the end of a pipe that both write to
    assert training.returncode == -signal.SIGKILL
    status = Path(f'/proc/{child}/status')
    assert not status.exists() or re.search(r'State:\s+Z', status.read_text())
