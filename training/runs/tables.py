"""Runs side by side, and next to what their sources reported."""

import csv
import dataclasses
import json
import os
import re
import statistics
from collections import defaultdict
from pathlib import Path

from training.config import recipe as recipes
from training.config.schema import MNIST_LIKE
from training.data.datasets import TITLES
from training.errors import UserError
from training.runs.folder import RunFolder, totals
from training.runs.resumption import FREE_ON_RESUME

SEED = re.compile(r'[-_.]?seed\d*$')  # at the end of a name
MILESTONES = 0.85, 0.89  # the accuracies that the CIFAR-10 seed reports on its way
# gluon_GMLoss v6 over its 400 epochs, read from the plot it published; 381 is its best epoch.
PUBLISHED_V6 = {
    25: 0.53,
    50: 0.76,
    75: 0.80,
    100: 0.85,
    125: 0.86,
    150: 0.88,
    175: 0.88,
    200: 0.895,
    250: 0.90,
    300: 0.91,
    350: 0.912,
    381: 0.9163,
}
MNIST_HEADER = (
    'run',
    'epochs',
    'dtype',
    'last',
    'best (epoch)',
    'reported',
    'difference',
    'nearest center',
    'images/s',
    'minutes',
)
CIFAR_HEADER = (
    MNIST_HEADER[:7] + MNIST_HEADER[8:] + tuple(f'minutes to {accuracy}' for accuracy in MILESTONES)
)


@dataclasses.dataclass
class Run:
    """A run: its folder, config (sections of all fields there are), metrics (rows) and summary."""

    folder: RunFolder
    config: dict
    metrics: list
    summary: dict
    finished: bool
    name: str  # of the folder, or what else tells it from other runs

    @property
    def data(self):
        """The name of its data set."""
        return TITLES[self.config['data']['dataset']]

    @property
    def on_mnist(self):
        return self.config['data']['dataset'] in MNIST_LIKE

    @property
    def held_out(self):
        """Whether it was validated on images held out of the training set."""
        return bool(self.config['data']['holdout'])

    @property
    def validated_on(self):
        return self.summary.get('validated_on', 'test set')

    def minutes_to(self, accuracy):
        """Minutes, evaluation included, until `accuracy` was reached; None if it never was."""
        seconds = 0.0
        for row in self.metrics:
            seconds += row['seconds']
            if row['val_acc'] >= accuracy:
                return seconds / 60
        return None


def read(path):
    """The run in a folder; of an unfinished one, what its metrics hold.

    Raises
    ------
    UserError
        If there is none, or its files are damaged.
    """
    folder = RunFolder(path)
    config = dataclasses.asdict(recipes.load_run(folder.require_run()))
    try:
        with open(folder.metrics, newline='') as file:
            rows = [
                {name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)
            ]
        if not rows:
            raise ValueError('metrics.csv has no rows')
        finished = folder.summary.exists() and len(rows) >= config['optimisation']['epochs']
        run = Run(
            folder,
            config,
            rows,
            folder.read_summary() if finished else {**config['run'], **totals(rows)},
            finished,
            folder.path.name,
        )
        cells(run), curves([run]), _spread([run])  # whatever is missing shows here
        if 'detection' in run.summary:
            detection_table([run])
    except FileNotFoundError as error:
        raise UserError(
            f'{path}: the run has not ended its first epoch ({Path(error.filename).name} is missing)'
        ) from None
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ZeroDivisionError,
        RecursionError,
    ) as error:
        raise UserError(
            f'{path}: the files of this run are damaged ({type(error).__name__}: '
            f'{" ".join(str(error).split())})'
        ) from None
    return run


def read_all(paths):
    """The runs in several folders, named with the parent folder where one name is in several."""
    runs, parents = [read(path) for path in paths], defaultdict(set)
    for run in runs:
        parents[SEED.sub('', run.name)].add(run.folder.path.resolve().parent)
    for run in runs:
        if len(parents[SEED.sub('', run.name)]) > 1:
            run.name = f'{run.folder.path.resolve().parent.name}/{run.name}'
    return runs


def cells(run):
    """What the run's row in the table says, as texts."""
    s = run.summary
    reported = s['reported_val_acc']
    remarks = ('' if run.finished else ' (unfinished)') + (' (held-out images)' if run.held_out else '')
    row = [
        f'`{run.name}`{remarks}',
        str(s['epochs']),
        s['dtype'],
        f'{s["val_acc"]:.4f}',
        f'{s["best_val_acc"]:.4f} ({s["best_epoch"]})',
        '-' if reported is None else f'{reported:.4f}',
        '-' if reported is None else f'{s["val_acc"] - reported:+.4f}',
    ]
    if run.on_mnist:
        nearest = run.metrics[-1].get('knn_acc')
        row.append('-' if nearest is None else f'{nearest:.4f}')
    row += [f'{s["images_per_second"]:.0f}', f'{s["seconds"] / 60:.1f}']
    if not run.on_mnist:
        reached = [run.minutes_to(accuracy) for accuracy in MILESTONES]
        row += ['-' if minutes is None else f'{minutes:.1f}' for minutes in reached]
    return row


def table(runs):
    """Markdown: a table of runs, one of seeds where runs differ in nothing else.

    Parameters
    ----------
    runs : list of Run
        Of one data set.
    """
    text = markdown(MNIST_HEADER if runs[0].on_mnist else CIFAR_HEADER, map(cells, runs))
    repeated = [group for group in by_recipe(runs) if len(group) > 1]
    if repeated:
        text += '\n' + markdown(
            ('same recipe', 'seeds', 'last: mean', 'spread', 'best: mean'), map(_spread, repeated)
        )
    return text


def by_recipe(runs):
    """The finished ones among runs, in lists of those that differ in nothing but the seed."""
    groups = {}
    for run in (run for run in runs if run.finished):
        groups.setdefault(_all_but_seed(run.config), []).append(run)
    return list(groups.values())


def detection_table(runs):
    """Markdown: how well the scores of runs tell test images from others, by AUROC.

    Parameters
    ----------
    runs : list of Run
        Those of one recipe whose summaries hold what detect.py found.

    Returns
    -------
    str
        A row for each set of images; a cell holds the figures of one run after the other, - where
        a run lacks one.
    """

    def cell(values):
        return ' '.join('-' if value is None else f'{value:.3f}' for value in values)

    found = [run.summary['detection'] for run in runs]
    every = [images for sets in found for images in sets.values()]
    scores = list(dict.fromkeys(score for images in every for score in images['scores']))
    nets = list(dict.fromkeys(net for images in every for net in images.get('accuracy', ())))
    rows = []
    for name in dict.fromkeys(name for sets in found for name in sets):
        images = [sets.get(name, {}) for sets in found]
        rows.append(
            [
                name,
                *(cell(one.get('accuracy', {}).get(net) for one in images) for net in nets),
                *(
                    cell(one.get('scores', {}).get(score, {}).get('auroc') for one in images)
                    for score in scores
                ),
            ]
        )
    return markdown(
        ['images', *(f'accuracy of {net}' for net in nets), *(score.replace('_', ' ') for score in scores)],
        rows,
    )


def named(runs):
    """[(name, metrics rows), ...] of runs; those of `by_recipe` have the name of their recipe.

    Unless that is the name of others as well.
    """
    groups = [(_common_name(group), group) for group in by_recipe(runs) if len(group) > 1]
    together = [run.folder.path for _, group in groups for run in group]
    taken = [name for name, _ in groups]
    taken += [run.name for run in runs if run.folder.path not in together]
    names = {run.folder.path: name for name, group in groups if taken.count(name) == 1 for run in group}
    return [(names.get(run.folder.path, run.name), run.metrics) for run in runs]


def curves(runs):
    """`named` runs, with the published curve where one of them redoes it."""
    drawn = named(runs)
    if any(
        run.summary['version'] == 'v6'
        and run.config['optimisation']['epochs'] == 400
        and run.config['data']['dataset'] == 'cifar10'
        for run in runs
    ):
        drawn.append(
            (
                'v6 as published',
                [{'epoch': epoch, 'val_acc': accuracy} for epoch, accuracy in PUBLISHED_V6.items()],
            )
        )
    return drawn


def markdown(header, rows):
    """A Markdown table of texts."""
    lines = [header, ['---'] * len(header), *rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def verdict(summary):
    """One line that sets a summary's accuracy against the reported one."""
    line = (
        f'{summary["version"]}: val acc {summary["val_acc"]:.4f} at the last epoch, best '
        f'{summary["best_val_acc"]:.4f} at epoch {summary["best_epoch"]}'
    )
    if summary['reported_val_acc'] is None:
        return line + '; the source reports none'
    difference = summary['val_acc'] - summary['reported_val_acc']
    return line + f'; reported {summary["reported_val_acc"]:.4f}, difference {difference:+.4f}'


def _all_but_seed(config):
    return json.dumps(
        [
            {name: value for name, value in section.items() if name not in ('seed', *FREE_ON_RESUME)}
            for section in config.values()
        ]
    )


def _common_name(runs):
    names = [run.name for run in runs]
    prefix = os.path.commonprefix(names)
    if prefix not in names:  # cut off what numbers the seeds
        prefix = re.sub(r'([-_.]|[-_.]?seed)\d*$', '', prefix)
    return prefix or runs[0].summary['version']


def _spread(runs):
    last = [run.summary['val_acc'] for run in runs]
    best = [run.summary['best_val_acc'] for run in runs]
    return [
        f'`{_common_name(runs)}`, {runs[0].summary["epochs"]} epochs',
        ', '.join(str(run.summary['seed']) for run in runs),
        f'{statistics.mean(last):.4f}',
        f'{min(last):.4f} to {max(last):.4f}',
        f'{statistics.mean(best):.4f}',
    ]


MEASURES = 'AUROC / AUPR / FPR at 95 % TPR; test images are the positive class'


def detection_report(report):
    """Markdown of a report as detect.py makes it: a row for each set of images."""
    nets, names = report['nets'], list(next(iter(report['sets'].values()))['scores'])
    rows = [['test images', *(f'{report["accuracy"][net]:.4f}' for net in nets), *['-'] * len(names)]]
    for title, found in report['sets'].items():
        accuracies = [f'{found["accuracy"][net]:.4f}' if 'accuracy' in found else '-' for net in nets]
        rows.append(
            [
                title,
                *accuracies,
                *(' / '.join(f'{value:.3f}' for value in found['scores'][name].values()) for name in names),
            ]
        )
    return markdown(
        [
            'images',
            *(f'accuracy of `{run}`' for run in nets.values()),
            *(name.replace('_', ' ') for name in names),
        ],
        rows,
    )
