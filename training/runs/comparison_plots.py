"""Figures that compare recipes, each with its seeds, and set them against what was reported."""

import re
from typing import Optional

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from training.runs.fonts import save_png
from training.runs.plots import COLOURS, File
from training.runs.run import PUBLISHED_V6, Repeats

MOST_LINES = 6
LINES = [COLOURS[number] for number in (0, 6, 3, 4, 2, 8)]  # those that differ most come first
Row = tuple[str, list[float], Optional[float], float]  # label, accuracies, their standard error, reported one
PUBLISHED = 'v1', 'v3', 'v4', 'v5', 'v6'  # editions of gluon_GMLoss


def accuracies(file: File, groups: list[Repeats]) -> None:
    """Write a PNG of accuracies on one data set: beside the reported ones, and by epoch.

    Recipes that others published, or plain softmax and center loss, have a panel of their own.
    """
    panels = [
        (title, most_telling([group for group in groups if _panel(group) == title]))
        for title in dict.fromkeys(map(_panel, groups))
    ]
    rows = _rows_beside_reported(groups)
    heights = [1 + 0.25 * len(rows), 4.8] if rows else [4.8]
    figure = Figure(figsize=(10, sum(heights)), layout='constrained')
    *above, below = figure.subfigures(len(heights), height_ratios=heights, squeeze=False).flat
    if rows:
        _beside_reported(above[0].subplots(), rows)
    places = below.subplots(1, len(panels), squeeze=False).flat
    for axes, (title, lines) in zip(places, panels):
        _by_epoch(axes, lines, 'val_acc', 'validation accuracy (top-1)')
        if any(group.redoes_v6 for group in lines):
            axes.plot(
                *zip(*PUBLISHED_V6.items()), 'D:', color='black', markersize=4, label='v6, published plot'
            )
        axes.set_title(title)
        axes.set_ylim(*_limits(lines))
        _legend_below(axes)
    figure.suptitle(groups[0].first.data)
    save_png(figure, file, dpi=130)


def covariances(file: File, groups: list[Repeats]) -> None:
    """Write a PNG of mean log-determinant and smallest variance by epoch."""
    lines = most_telling(groups)
    figure = Figure(figsize=(10, 4), layout='constrained')
    log_det, variance = figure.subplots(1, 2)
    _by_epoch(log_det, lines, 'mean_log_det', 'log-determinant, mean of the classes')
    _by_epoch(variance, lines, 'smallest_variance', 'smallest variance')
    variance.set_yscale('log')
    variance.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    variance.yaxis.set_major_formatter('{x:g}')
    variance.yaxis.set_minor_formatter('')
    figure.legend(*log_det.get_legend_handles_labels(), loc='outside lower center', ncols=3, fontsize='small')
    save_png(figure, file, dpi=100)


def most_telling(groups: list[Repeats]) -> list[Repeats]:
    """Those groups if a figure has room for them, else of each recipe file the longest one."""
    if len(groups) <= MOST_LINES:
        return groups
    longest: dict[str, Repeats] = {}
    for group in groups:
        version = group.first.summary['version']
        if version not in longest or _length(group) > _length(longest[version]):
            longest[version] = group
    return list(longest.values())


def _length(group: Repeats) -> tuple[int, int]:
    return group.first.summary['epochs'], len(group.runs)


def _panel(group: Repeats) -> str:
    run = group.first
    if run.on_mnist:
        return 'L-GM loss' if run.recipe.loss.loss == 'lgm' else 'softmax and center loss'
    return 'editions of gluon_GMLoss' if run.summary['version'] in PUBLISHED else 'our recipes'


def _limits(groups: list[Repeats]) -> tuple[float, float]:
    """Accuracies to draw: where the runs end, and as far again below."""
    lowest, highest = min(min(group.last) for group in groups), max(max(group.best) for group in groups)
    return lowest - (highest - lowest) - 0.005, highest + 0.005


def _legend_below(axes: Axes) -> None:
    axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.14), fontsize='small', frameon=False)


def _rows_beside_reported(groups: list[Repeats]) -> list[Row]:
    """A row for each recipe, and each nearest center, that a source reports."""
    rows = []
    for group in groups:
        reported, name = group.first.summary['reported_val_acc'], label_of(group)
        if reported is not None:
            rows.append((name, group.last, group.standard_error(group.last), reported))
        if group.nearest and group.reported_nearest:
            error = group.standard_error(group.nearest)
            rows.append((f'{name}, nearest center', group.nearest, error, group.reported_nearest))
    return rows


def _beside_reported(axes: Axes, rows: list[Row]) -> None:
    """A row for each recipe: its seeds with their standard error, and the reported accuracy."""
    for place, (_, ours, error, reported) in enumerate(rows):
        labels = ('ours, by seed, with standard error', 'reported') if place == 0 else (None, None)
        axes.errorbar(ours, [place] * len(ours), xerr=error, fmt='o', color=COLOURS[6], label=labels[0])
        axes.plot(reported, place, 'D', fillstyle='none', color='black', label=labels[1])
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.set_xlabel('accuracy after the last epoch')
    axes.legend(loc='best', fontsize='small')


def _by_epoch(axes: Axes, groups: list[Repeats], column: str, quantity: str) -> None:
    """A line for the mean over the seeds, in a band from their lowest to their highest.

    Epochs are on a logarithmic scale, for the short runs' sake.
    """
    for number, group in enumerate(groups):
        epochs = [row['epoch'] for row in group.first.metrics]
        values = np.array([[row.get(column, np.nan) for row in run.metrics] for run in group.runs])
        colour, dashes = LINES[number % MOST_LINES], '--' if number // MOST_LINES % 2 else '-'
        label = label_of(group) + (f' ({len(values)} seeds)' if len(values) > 1 else '')
        axes.plot(epochs, values.mean(axis=0), dashes, color=colour, label=label, linewidth=1.4)
        if len(values) > 1:
            axes.fill_between(
                epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0
            )
    axes.set_xlabel('epoch')
    axes.set_ylabel(quantity)
    axes.set_xscale('log')
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter('{x:g}')


def label_of(group: Repeats) -> str:
    """The recipe's name without its data set, and how many epochs it has."""
    name = re.sub(r'^(cifar|mnist)-|[-_]?\d+epochs$', '', group.name)
    return f'{name}, {group.first.summary["epochs"]} epochs{group.first.remark}'
