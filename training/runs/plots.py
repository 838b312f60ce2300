"""The figures of one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Optional, Union

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator
from PIL import Image

from training.runs.features import Snapshot
from training.runs.fonts import save_png

File = Union[str, Path, IO[bytes]]

matplotlib.rcParams['axes.grid'] = True
matplotlib.rcParams['grid.alpha'] = 0.3

# Paul Tol's 'muted' scheme and a dark gray: ten colours that colour-blind readers can tell apart.
COLOURS = (
    '#332288',
    '#88CCEE',
    '#44AA99',
    '#117733',
    '#999933',
    '#DDCC77',
    '#CC6677',
    '#882255',
    '#AA4499',
    '#555555',
)


def _line(number: int) -> dict[str, str]:
    """Colour and style of the line of this number, all different for the first 20."""
    colour = COLOURS[(2 * number + number // 5) % len(COLOURS)]
    return {'color': colour, 'linestyle': ('-', '--', ':', '-.')[number % 4]}


@dataclass
class FeatureMap:
    """One panel of `feature_maps`: features (N, 2), labels (N,), centers and deviations (C, 2)."""

    title: str
    features: np.ndarray
    labels: np.ndarray
    centers: Optional[np.ndarray] = None
    deviations: Optional[np.ndarray] = None


def feature_maps(file: File, maps: list[FeatureMap], title: Optional[str] = None) -> None:
    """Write a PNG of feature maps side by side, at most four in a row, each in equal axes."""
    rows = -(-len(maps) // 4)
    columns = -(-len(maps) // rows)
    figure = Figure(figsize=(4.8 * columns, 5 * rows), layout='constrained')
    places = figure.subplots(rows, columns, squeeze=False).flat
    for axes in places[len(maps) :]:
        axes.set_axis_off()
    for axes, panel in zip(places, maps):
        _draw_map(axes, panel, markersize=2, size='medium')
    if title:
        figure.suptitle(title)
    save_png(figure, file, dpi=80)


def feature_row(file: File, maps: list[FeatureMap]) -> None:
    """Write a PNG of feature maps in one row, small, with few ticks: for the width of a page."""
    figure = Figure(figsize=(2.1 * len(maps), 2.5), layout='constrained')
    for axes, panel in zip(figure.subplots(1, len(maps), squeeze=False).flat, maps):
        _draw_map(axes, panel, markersize=0.7, size='x-small')
        axes.locator_params(nbins=3)
        axes.set_title(panel.title, fontsize='medium')
        axes.tick_params(labelsize='small')
    save_png(figure, file, dpi=150)


def _draw_map(axes: Axes, panel: FeatureMap, markersize: float, size: str) -> None:
    """Points in the colours of their classes, `+` at each center, an ellipse of one standard deviation."""
    for k in range(panel.labels.max() + 1 if panel.centers is None else len(panel.centers)):
        colour = COLOURS[k % len(COLOURS)]
        points = panel.features[panel.labels == k]
        axes.plot(*points.T, '.', color=colour, markersize=markersize)
        if panel.centers is not None:
            axes.plot(*panel.centers[k], '+', color='black', markersize=4 + 2 * markersize)
            _name_class(axes, k, panel.centers[k], size, offset=3 + 2 * markersize)
        elif len(points):
            _name_class(axes, k, np.median(points, axis=0), size)
        if panel.deviations is not None:
            width, height = 2 * panel.deviations[k]
            axes.add_patch(
                Ellipse(panel.centers[k], width, height, fill=False, edgecolor=colour, linewidth=1.2)
            )
    axes.set_title(panel.title)
    axes.set_aspect('equal', adjustable='datalim')


def _name_class(axes: Axes, k: int, place: Any, size: str, offset: float = 0) -> None:
    axes.annotate(
        str(k),
        place,
        xytext=(offset, offset),
        textcoords='offset points',
        ha='center',
        va='center',
        fontweight='bold',
        fontsize=size,
        bbox={'boxstyle': 'round,pad=0.1', 'color': 'white', 'alpha': 0.6},
    )


def snapshot_maps(file: File, snapshot: Snapshot, title: str, validated_on: str) -> None:
    """Write a PNG of the feature maps of both splits in a features.Snapshot; the second is `validated_on`."""
    if snapshot.dimensions > 2:
        title += f' (PCA: 2 of {snapshot.dimensions} dimensions)'
    flat = snapshot.in_plane()
    maps = [
        FeatureMap(name, points, labels, flat.centers, flat.deviations)
        for name, points, labels in (
            ('training set', flat.train_features, flat.train_labels),
            (f'{validated_on} set', flat.test_features, flat.test_labels),
        )
    ]
    feature_maps(file, maps, title)


def animation(file: File, frames: list[Path]) -> None:
    """Write a GIF of PNG frames; the last one stays for two seconds."""
    images = [Image.open(frame).convert('P', palette=Image.Palette.ADAPTIVE, colors=64) for frame in frames]
    durations = [300] * (len(images) - 1) + [2000]
    images[0].save(
        file, format='GIF', save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True
    )


def curves(file: File, history: list[dict[str, float]], title: str) -> None:
    """Write a PNG of accuracies, loss, learning rate and margin by epoch.

    Parameters
    ----------
    history : list of dict
        Rows with epoch, train_acc, val_acc, train_loss, lr and margin.
    title : str
    """
    figure = Figure(figsize=(11, 3.6), layout='constrained')
    accuracy, loss, rate = figure.subplots(1, 3)
    epochs = [row['epoch'] for row in history]

    def draw(axes: Axes, name: str, label: str, **style: Any) -> None:
        axes.plot(epochs, [row[name] for row in history], label=label, **style)

    draw(accuracy, 'train_acc', 'training', color='C0')
    draw(accuracy, 'val_acc', 'validation', color='C1')
    accuracy.set_ylabel('top-1 accuracy')
    accuracy.legend(loc='lower right')
    draw(loss, 'train_loss', 'training loss', color='C0')
    loss.set_ylabel('training loss')
    draw(rate, 'lr', 'learning rate', color='C2', drawstyle='steps-post')
    draw(rate, 'margin', 'margin', color='C3', drawstyle='steps-post', linestyle='--')
    rate.legend()
    for axes in (accuracy, loss, rate):
        axes.set_xlabel('epoch')
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title)
    save_png(figure, file, dpi=100)


def likelihoods(file: File, splits: list[tuple[str, np.ndarray, np.ndarray]], title: str) -> None:
    """Write a PNG with histograms of own-class distances and of log-likelihoods.

    Parameters
    ----------
    splits : list of (str, array (N,), array (N,))
        Name, half squared distances to the own class, log-likelihoods; the last split is drawn on
        top.
    title : str
    """
    figure = Figure(figsize=(10, 3.8), layout='constrained')
    names, *values = zip(*splits)
    labels = 'half squared distance to the own class', 'log-likelihood under the mixture'
    for axes, parts, label in zip(figure.subplots(1, 2), values, labels):
        bins = _bins(parts, 61, outside=0.5)
        for number, (name, part) in enumerate(zip(names, parts)):
            colour = COLOURS[6 * number % len(COLOURS)]
            _histogram(axes, part, bins, name, histtype='stepfilled', alpha=0.5, color=colour)
        axes.set_xlabel(label)
        axes.set_ylabel('density')
        axes.legend()
    figure.suptitle(title)
    save_png(figure, file, dpi=100)


def _bins(parts: Sequence[np.ndarray], edges: int, outside: float) -> np.ndarray:
    """Edges of bins for several arrays, over all values but so many percent at either end."""
    values = np.concatenate(parts)
    low, high = np.percentile(values[np.isfinite(values)], (outside, 100 - outside))
    return np.linspace(low, high if high > low else low + 1, edges)


def _histogram(axes: Axes, values: np.ndarray, bins: Any, name: str, **style: Any) -> None:
    axes.hist(np.clip(values, bins[0], bins[-1]), bins, density=True, label=name, **style)


def roc_curves(file: File, panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], title: str) -> None:
    """Write a PNG of ROC curves, one panel for each set of out-of-distribution images.

    Parameters
    ----------
    panels : dict of str to dict of str to (array (K,), array (K,))
        Set to score to false- and true-positive rates.
    title : str
    """
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.8 * columns, 2.8 * rows + 0.5), layout='constrained')
    places = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, (name, scores) in zip(places.flat, panels.items()):
        for number, (score, rates) in enumerate(scores.items()):
            axes.plot(*rates, label=score.replace('_', ' '), **_line(number))
        axes.set_title(name, fontsize='medium')
    for axes in places.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in places[-1]:
        axes.set_xlabel('others that pass')
    for axes in places[:, 0]:
        axes.set_ylabel('test images that pass')
    figure.legend(
        *places.flat[0].get_legend_handles_labels(), loc='outside lower center', ncols=4, fontsize='small'
    )
    figure.suptitle(title)
    save_png(figure, file, dpi=80)


def score_histograms(file: File, families: dict[str, dict[str, dict[str, np.ndarray]]], title: str) -> None:
    """Write a PNG of scores, a row for each score and a column for each family of images.

    Parameters
    ----------
    families : dict of str to dict of str to dict of str to array (N,)
        Family to set to score to values. The first set of each family is drawn as an area, the others
        as lines.
    title : str
    """
    scores = list(next(iter(next(iter(families.values())).values())))
    figure = Figure(figsize=(3.2 * len(families), 2.4 * len(scores) + 0.5), layout='constrained')
    places = figure.subplots(len(scores), len(families), squeeze=False)
    for row, score in zip(places, scores):
        for axes, (family, sets) in zip(row, families.items()):
            bins = _bins([values[score] for values in sets.values()], 41, outside=1)
            for number, (name, values) in enumerate(sets.items()):
                style = {'histtype': 'step'} if number else {'histtype': 'stepfilled', 'alpha': 0.4}
                _histogram(axes, values[score], bins, name, **_line(number), **style)
            axes.set_xlabel(score.replace('_', ' '), fontsize='small')
            axes.set_yticks([])
            axes.set_title(family, fontsize='medium')
            axes.legend(fontsize='x-small')
    figure.suptitle(title)
    save_png(figure, file, dpi=80)
