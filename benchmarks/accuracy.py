"""Time to an accuracy on CIFAR-10: our recipe against the same net trained in other ways."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.rounds import THREADS
from training.runs.folder import RunFolder
from training.runs.fonts import save_png
from training.runs.run import read_run
from training.runs.summary import at_last_size

FOLDER = Path('output/accuracy')
LEVELS = 0.85, 0.89, 0.92
MINUTES = 60  # after which the other trainings end
OURS = {
    'fast': ['--version', 'fast'],
    'fast at full size': ['--version', 'best', '--mixup', '0', '--epochs', '20', '--warmup-epochs', '1'],
}
OTHERS = {
    'stock GluonCV loop': 'gluoncv',
    'gluon_GMLoss v6': 'v6',
    'PyTorch loop': 'pytorch',
}


def report(_):
    """Train one after the other, each with all cores; what has ended before is not repeated."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    curves = {label: our_curve(label, words) for label, words in OURS.items()}
    for label, name in OTHERS.items():
        if name == 'pytorch' and not importlib.util.find_spec('torch'):
            print(f'{label}: left out, torch is not installed')
            continue
        file = FOLDER / f'{name}.csv'
        if not file.exists():
            start('-m', 'benchmarks.trainings', name, str(file), str(MINUTES))
        curves[label] = read_curve(file)
    print(f'\nminutes to an accuracy on the test images, {THREADS} threads')
    print(f'  {"":24s}' + ''.join(f'{level:8.2f}' for level in LEVELS) + '   last, after')
    for label, (seconds, accuracies) in curves.items():
        times = ''.join(f'{minutes_to(level, seconds, accuracies):>8s}' for level in LEVELS)
        print(f'  {label:24s}{times}   {accuracies[-1]:.4f}, {seconds[-1] / 60:.1f} min')
    draw(curves, FOLDER / 'time-to-accuracy.png')
    print(f'written: {FOLDER}/time-to-accuracy.png')


def our_curve(label, words):
    """Seconds and accuracies by epoch of train_cifar.py under `fast`, run or gone on with."""
    folder = RunFolder(FOLDER / label.replace(' ', '-'))
    resume = ['--resume'] if folder.has_checkpoint else []
    if not folder.summary.exists():
        start('train_cifar.py', *words, '--output-dir', str(folder.path), *resume)
    rows = read_run(folder.path).metrics
    seconds, accuracies = np.cumsum([row['seconds'] for row in rows]), [row['val_acc'] for row in rows]
    count = len(at_last_size(rows))  # accuracies before are of smaller images
    return seconds[-count:], np.array(accuracies[-count:])


def start(*words):
    subprocess.run(
        [sys.executable, '-W', 'ignore', *words], check=True, env=dict(os.environ, OMP_NUM_THREADS=THREADS)
    )


def read_curve(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and accuracies, a row for each epoch."""
    with open(file, newline='') as rows:
        values = [(float(row['seconds']), float(row['val_acc'])) for row in csv.DictReader(rows)]
    seconds, accuracies = np.transpose(values)
    return seconds, accuracies


def minutes_to(level: float, seconds: np.ndarray, accuracies: np.ndarray) -> str:
    """When the accuracy was first reached; - if it never was."""
    reached = np.flatnonzero(accuracies >= level)
    return f'{seconds[reached[0]] / 60:.1f}' if len(reached) else '-'


def draw(curves: dict[str, tuple[np.ndarray, np.ndarray]], file: Path) -> None:
    """A PNG of accuracy over minutes."""
    figure = Figure(figsize=(8, 4.5), layout='constrained')
    axes = figure.subplots()
    for label, (seconds, accuracies) in curves.items():
        axes.plot(seconds / 60, accuracies, label=label)
    for level in LEVELS:
        axes.axhline(level, color='grey', linewidth=0.7, linestyle='--')
    axes.set_xlabel('minutes')
    axes.set_ylabel('test accuracy')
    axes.set_ylim(0.6, 0.95)
    axes.legend(loc='lower right')
    save_png(figure, file, dpi=130)
