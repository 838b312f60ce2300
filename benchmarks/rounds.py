"""Subjects in processes of their own, timed in turn, so that a drifting machine hits all alike."""

import json
import os
import statistics
import subprocess
import sys
from typing import Any

from training.machine import devices

THREADS = str(devices.usable_cores())


class Subject:
    """A process that runs one measured thing whenever it is told to, with a thread for every core.

    Parameters
    ----------
    name : str
        One of benchmarks.subjects.SUBJECTS.
    arguments : dict
        Its keywords.
    """

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-m', 'benchmarks.subjects', name, json.dumps(arguments)],
            text=True,
            env=dict(os.environ, OMP_NUM_THREADS=THREADS),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f'{" ".join(self.process.args[-2:])} ended early')
        return line.split()

    def run(self):
        """Seconds of one run, and the peak memory it added in MiB."""
        self.process.stdin.write('run\n')
        self.process.stdin.flush()
        seconds, memory = self.read()
        return float(seconds), float(memory)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(subjects, rounds):
    """Run the subjects in turn, `rounds` times after one round of warm-up.

    Parameters
    ----------
    subjects : dict of str to (str, dict)
        Label to the name and the arguments of a `Subject`.
    rounds : int

    Returns
    -------
    dict of str to (list of float, float)
        Seconds of each round, and the peak memory added in MiB.
    """
    started = {label: Subject(*subject) for label, subject in subjects.items()}
    results = {label: [] for label in started}
    for _ in range(rounds + 1):
        for label, subject in started.items():
            results[label].append(subject.run())
    for subject in started.values():
        subject.close()
    return {label: ([seconds for seconds, _ in runs[1:]], runs[-1][1]) for label, runs in results.items()}


def ratio(results, slower, faster):
    """Median over the rounds of the time ratio of two subjects, with its range."""
    ratios = [a / b for a, b in zip(results[slower][0], results[faster][0])]
    return f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'


def median(results, label):
    """Median seconds of a subject."""
    return statistics.median(results[label][0])
