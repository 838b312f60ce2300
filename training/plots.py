"""Figures of a run."""
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator
from PIL import Image

matplotlib.rcParams['axes.grid'] = True
matplotlib.rcParams['grid.alpha'] = 0.3

# Paul Tol's 'muted' scheme and a dark gray: ten colours that colour-blind readers can tell apart.
COLOURS = ('#332288', '#88CCEE', '#44AA99', '#117733', '#999933', '#DDCC77', '#CC6677', '#882255',
           '#AA4499', '#555555')


def feature_maps(file, panels, centers, title, deviations=None):
    """Write a PNG of feature maps side by side, in equal axes.

    Parameters
    ----------
    file : binary file or path
    panels : list of (str, array (N, D), array (N,))
        Title, features and labels of each map. More than two dimensions are projected on the
        first panel's two principal axes, and the title says so.
    centers : array (C, D) or None
        Drawn as crosses, with their class's number.
    title : str
    deviations : array (C, D) or None
        One standard deviation of each class, drawn as an ellipse around its center.
    """
    _, first, _ = panels[0]
    project = np.eye(2)
    if first.shape[1] > 2:
        project = np.linalg.svd(first - first.mean(axis=0), full_matrices=False)[2][:2].T
        title += f' (PCA: 2 of {first.shape[1]} dimensions)'
    figure = Figure(figsize=(4.8 * len(panels), 5), layout='constrained')
    for axes, (name, features, labels) in zip(np.atleast_1d(figure.subplots(1, len(panels))),
                                              panels):
        points = features @ project
        for k in range(len(COLOURS)):
            chosen = points[labels == k]
            axes.plot(*chosen.T, '.', color=COLOURS[k], markersize=2, label=str(k))
            place = centers[k] @ project if centers is not None else \
                np.median(chosen, axis=0) if len(chosen) else None
            if place is None:
                continue
            if centers is not None:
                axes.plot(*place, '+', color='black', markersize=8)
            axes.annotate(str(k), place, fontweight='bold', ha='center', va='center',
                          xytext=(7, 7) if centers is not None else (0, 0),
                          textcoords='offset points')
            if deviations is not None and first.shape[1] == 2:
                axes.add_patch(Ellipse(place, *(2 * deviations[k]), fill=False,
                                       edgecolor=COLOURS[k], linewidth=1.5))
        axes.set_title(name)
        axes.set_aspect('equal', adjustable='datalim')
    figure.suptitle(title)
    figure.savefig(file, format='png', dpi=80)


def animation(file, frames, milliseconds=300):
    """Write a GIF of PNG frames; the last one stays for two seconds."""
    images = [Image.open(frame).convert('P', palette=Image.ADAPTIVE, colors=64)
              for frame in frames]
    durations = [milliseconds] * (len(images) - 1) + [2000]
    images[0].save(file, format='GIF', save_all=True, append_images=images[1:],
                   duration=durations, loop=0, optimize=True)


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
    figure.savefig(file, format='png', dpi=100)
