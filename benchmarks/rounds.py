"""Subjects in processes of their own, timed in turn, so that a drifting machine hits all alike."""

import os
import statistics
import subprocess
import sys


class Subject:
    """A process that runs one measured thing whenever it is told to.

    Parameters
    ----------
    name : str
        A function of benchmarks.subjects.
    settings : dict
        Environment variables; None removes one.
    """

    def __init__(self, name, **settings):
        environment = dict(os.environ, **{k: v for k, v in settings.items() if v is not None})
        for key in (k for k, v in settings.items() if v is None):
            environment.pop(key, None)
        self.process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-m', 'benchmarks.subjects', name],
            text=True,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f'{self.process.args[-1]} ended early')
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
        Label to subject name and environment.
    rounds : int

    Returns
    -------
    dict of str to (list of float, float)
        Seconds of each round, and the peak memory added in MiB.
    """
    started = {label: Subject(name, **settings) for label, (name, settings) in subjects.items()}
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
