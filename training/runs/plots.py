"""The figures of runs."""

from dataclasses import dataclass
from typing import Optional

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import LogLocator, MaxNLocator
from PIL import Image

from training.runs.fonts import save_png

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


@dataclass
class FeatureMap:
    """One panel of `feature_maps`: features (N, 2), labels (N,), centers and deviations (C, 2)."""

    title: str
    features: np.ndarray
    labels: np.ndarray
    centers: Optional[np.ndarray] = None
    deviations: Optional[np.ndarray] = None


def feature_maps(file, maps, title=None):
    """Write a PNG of feature maps side by side, at most four in a row, each in equal axes.

    Parameters
    ----------
    file : binary file or path
    maps : list of FeatureMap
    title : str or None
    """
    rows = -(-len(maps) // 4)
    columns = -(-len(maps) // rows)
    figure = Figure(figsize=(4.8 * columns, 5 * rows), layout='constrained')
    places = figure.subplots(rows, columns, squeeze=False).flat
    for axes in places[len(maps) :]:
        axes.set_axis_off()
    for axes, drawn in zip(places, maps):
        for k, colour in enumerate(COLOURS):
            points = drawn.features[drawn.labels == k]
            axes.plot(*points.T, '.', color=colour, markersize=2)
            if drawn.centers is not None:
                axes.plot(*drawn.centers[k], '+', color='black', markersize=8)
                _name_class(axes, k, drawn.centers[k], offset=7)
            elif len(points):
                _name_class(axes, k, np.median(points, axis=0), offset=0)
            if drawn.deviations is not None:
                axes.add_patch(
                    Ellipse(
                        drawn.centers[k],
                        *(2 * drawn.deviations[k]),
                        fill=False,
                        edgecolor=colour,
                        linewidth=1.5,
                    )
                )
        axes.set_title(drawn.title)
        axes.set_aspect('equal', adjustable='datalim')
    if title:
        figure.suptitle(title)
    save_png(figure, file, dpi=80)


def _name_class(axes, k, place, offset):
    axes.annotate(
        str(k),
        place,
        xytext=(offset, offset),
        textcoords='offset points',
        ha='center',
        va='center',
        fontweight='bold',
        bbox={'boxstyle': 'round,pad=0.1', 'color': 'white', 'alpha': 0.6},
    )


def snapshot_maps(file, snapshot, title, validated_on):
    """Write a PNG of the feature maps of both splits in a snapshot.

    Parameters
    ----------
    file : binary file or path
    snapshot : training.runs.features.Snapshot
    title : str
    validated_on : str
        What the second split is.
    """
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


def animation(file, frames):
    """Write a GIF of PNG frames; the last one stays for two seconds."""
    images = [Image.open(frame).convert('P', palette=Image.ADAPTIVE, colors=64) for frame in frames]
    durations = [300] * (len(images) - 1) + [2000]
    images[0].save(
        file, format='GIF', save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True
    )


def curves(file, history, title):
    """Write a PNG of accuracies, loss, learning rate and margin by epoch.

    Parameters
    ----------
    file : binary file
    history : list of dict
        Rows with epoch, train_acc, val_acc, train_loss, lr and margin.
    title : str
    """
    figure = Figure(figsize=(11, 3.6), layout='constrained')
    accuracy, loss, rate = figure.subplots(1, 3)
    epochs = [row['epoch'] for row in history]

    def draw(axes, name, label, **style):
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


def accuracies(file, families):
    """Write a PNG of the validation accuracies of several runs by epoch.

    Parameters
    ----------
    file : binary file
    families : list of (str, list of (str, list of dict))
        One panel each: title, and name and rows (with epoch and val_acc) of every run.

    Accuracies are shown from as far below the lowest that a run ends with as the highest is above it.
    """
    figure = Figure(figsize=(11, 5 * len(families)), layout='constrained')
    for axes, (title, runs) in zip(figure.subplots(len(families), squeeze=False)[:, 0], families):
        _by_epoch(axes, runs, 'val_acc', 'validation accuracy (top-1)')
        lowest = min(rows[-1]['val_acc'] for _, rows in runs)
        highest = max(row['val_acc'] for _, rows in runs for row in rows)
        axes.set_ylim(lowest - (highest - lowest) - 0.005, highest + 0.005)
        axes.set_title(title)
        axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), fontsize='small')
    save_png(figure, file, dpi=100)


def covariances(file, runs):
    """Write a PNG of mean log-determinant and smallest variance by epoch.

    Parameters
    ----------
    file : binary file
    runs : list of (str, list of dict)
        Name and rows with epoch, mean_log_det and smallest_variance.
    """
    figure = Figure(figsize=(13, 4.5), layout='constrained')
    log_det, variance = figure.subplots(1, 2)
    _by_epoch(log_det, runs, 'mean_log_det', 'log-determinant, mean of the classes')
    _by_epoch(variance, runs, 'smallest_variance', 'smallest variance')
    variance.set_yscale('log')
    variance.legend(loc='center left', bbox_to_anchor=(1, 0.5), fontsize='small')
    save_png(figure, file, dpi=100)


def _by_epoch(axes, runs, column, label):
    """One line for each run; those of the same name look alike and share a label.

    Epochs are on a logarithmic scale, for the short runs' sake.
    """
    numbers = {}
    for name, rows in runs:
        shown = '_' + name if name in numbers else name  # the legend leaves out `_...`
        number = numbers.setdefault(name, len(numbers))
        axes.plot(
            [row['epoch'] for row in rows],
            [row.get(column, np.nan) for row in rows],
            color=COLOURS[number % len(COLOURS)],
            label=shown,
            linestyle=('-', '--', ':')[number // len(COLOURS) % 3],
        )
    axes.set_xlabel('epoch')
    axes.set_ylabel(label)
    axes.set_xscale('log')
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter('{x:g}')


def likelihoods(file, splits, title):
    """Write a PNG with histograms of own-class distances and of log-likelihoods.

    Parameters
    ----------
    file : binary file
    splits : list of (str, array (N,), array (N,))
        Name, half squared distances to the own class, log-likelihoods; the last split is drawn on
        top.
    title : str
    """
    figure = Figure(figsize=(10, 3.8), layout='constrained')
    names, *values = zip(*splits)
    for axes, parts, label in zip(
        figure.subplots(1, 2),
        values,
        ('half squared distance to the own class', 'log-likelihood under the mixture'),
    ):
        low, high = np.percentile(np.concatenate(parts), (0.5, 99.5))  # a few lie far outside
        bins = np.linspace(low, high if high > low else low + 1, 61)
        for name, part, colour in zip(names, parts, COLOURS[::6]):
            axes.hist(
                np.clip(part, bins[0], bins[-1]),
                bins,
                density=True,
                histtype='stepfilled',
                alpha=0.5,
                color=colour,
                label=name,
            )
        axes.set_xlabel(label)
        axes.set_ylabel('density')
        axes.legend()
    figure.suptitle(title)
    save_png(figure, file, dpi=100)


def _line(number):
    """Colour and style of the line of this number, all different for the first 20."""
    colour = COLOURS[(2 * number + number // 5) % len(COLOURS)]
    return {'color': colour, 'linestyle': ('-', '--', ':', '-.')[number % 4]}


def roc_curves(file, panels, title):
    """Write a PNG of ROC curves, one panel for each set of out-of-distribution images.

    Parameters
    ----------
    file : binary file
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


def score_histograms(file, families, title):
    """Write a PNG of scores, a row for each score and a column for each family of images.

    Parameters
    ----------
    file : binary file
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
            everything = np.concatenate([values[score] for values in sets.values()])
            low, high = np.percentile(everything[np.isfinite(everything)], (1, 99))
            bins = np.linspace(low, high if high > low else low + 1, 41)
            for number, (name, values) in enumerate(sets.items()):
                style = {'histtype': 'step'} if number else {'histtype': 'stepfilled', 'alpha': 0.4}
                clipped = np.clip(values[score], bins[0], bins[-1])
                axes.hist(clipped, bins, density=True, label=name, **_line(number), **style)
            axes.set_xlabel(score.replace('_', ' '), fontsize='small')
            axes.set_yticks([])
            axes.set_title(family, fontsize='medium')
            axes.legend(fontsize='x-small')
    figure.suptitle(title)
    save_png(figure, file, dpi=80)
