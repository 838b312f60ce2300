"""ROC curves of verification."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from training.runs.fonts import save_png

LOWEST_RATE = 1e-4


def roc_figure(file: Any, scores: dict[str, np.ndarray], same: np.ndarray, title: str) -> None:
    """Write a PNG of true- by false-accept rates, on a logarithmic axis; scores (P,) by title."""
    figure = Figure(figsize=(5.5, 4.2), layout='constrained')
    axes = figure.subplots()
    for number, (name, values) in enumerate(scores.items()):
        false, true, _ = roc_curve(same, values)
        axes.plot(np.maximum(false, LOWEST_RATE), true, '-' if number % 2 == 0 else '--', label=name,
                  color=f'C{number // 2}')  # fmt: skip
    axes.set_xscale('log')
    axes.set_xlim(LOWEST_RATE, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel('pairs of two classes that are accepted')
    axes.set_ylabel('pairs of one class that are accepted')
    axes.legend(loc='upper left', fontsize='small')
    axes.set_title(title)
    save_png(figure, file, dpi=100)
