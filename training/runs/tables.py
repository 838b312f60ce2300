"""Markdown tables of runs, beside what their sources report."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from training.runs.run import PUBLISHED_V6, Repeats, Run, binomial_error

MILESTONES = 0.85, 0.89  # the accuracies that gluon_GMLoss reports of v4 and of its later state
MEASURES = 'AUROC / AUPR / FPR at 95 % TPR; test images are the positive class'


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of texts."""
    lines = [header, ['---'] * len(header), *rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def run_table(runs: list[Run]) -> str:
    """A row for each run: accuracy, speed and time.

    Parameters
    ----------
    runs : list of Run
        Of one data set.
    """
    on_mnist, of_photographs = runs[0].on_mnist, runs[0].recipe.data.dataset == 'images'
    rows = []
    for run in runs:
        summary = run.summary
        row = [
            f'`{run.name}`{run.remark}',
            str(summary['epochs']),
            summary['dtype'],
            f'{summary["val_acc"]:.4f}',
            f'{summary["best_val_acc"]:.4f} ({summary["best_epoch"]})',
            f'{summary["images_per_second"]:.0f}',
            f'{summary["seconds"] / 60:.1f}',
        ]
        if of_photographs:
            row += [_number(summary.get('top5_acc')), _number(summary.get('balanced_acc'))]
            row.append(_number(run.metrics[-1].get('knn_acc')))
        elif on_mnist:
            row.append(_number(run.metrics[-1].get('knn_acc')))
        else:
            row += [_number(run.minutes_to(accuracy), '.1f') for accuracy in MILESTONES]
        rows.append(row)
    header = ['run', 'epochs', 'dtype', 'last', 'best (epoch)', 'images/s', 'minutes']
    if of_photographs:
        header += ['top-5', 'balanced', 'nearest center']
    elif on_mnist:
        header += ['nearest center']
    else:
        header += [f'minutes to {value}' for value in MILESTONES]
    return markdown(header, rows)


def recipe_table(groups: list[Repeats]) -> str:
    """A row for each recipe: the accuracy over its seeds, beside the reported one.

    Parameters
    ----------
    groups : list of Repeats
        Of one data set. Where centers were trained, a second row has the accuracy by the nearest one.
    """
    rows = []
    for group in groups:
        cells = _accuracy_cells(group, group.last, group.first.summary['reported_val_acc'])
        rows.append([*_recipe_cells(group), *cells, f'{statistics.mean(group.best):.4f}'])
        if group.nearest:
            cells = _accuracy_cells(group, group.nearest, group.reported_nearest)
            rows.append([f'`{group.name}`, nearest center', *rows[-1][1:3], *cells, '-'])
    header = ('recipe', 'epochs', 'seeds', 'last: mean', 'spread', 'standard error')
    return markdown((*header, 'reported', 'difference', 'in standard errors', 'best: mean'), rows)


def photograph_table(groups: list[Repeats]) -> str:
    """A row for each recipe: the accuracy over its seeds on validation images and on test images.

    Parameters
    ----------
    groups : list of Repeats
        Of one folder of images. Test images are those that `train_images.py --test` was run on.
    """
    rows = []
    for group in groups:
        row = [*_recipe_cells(group), *_mean_and_spread(group.last)]
        if tests := group.tests:
            accuracies = [test['top1_acc'] for test in tests]
            row += [
                *_mean_and_spread(accuracies),
                _number(binomial_error(statistics.mean(accuracies), tests[0]['images'])),
                _number(statistics.mean(test['top5_acc'] for test in tests)),
                _number(statistics.mean(test['balanced_acc'] for test in tests)),
            ]
        else:
            row += ['-'] * 5
        rows.append(row)
    header = ('recipe', 'epochs', 'seeds', 'validation: mean', 'spread', 'test: mean', 'spread')
    return markdown((*header, 'standard error', 'test: top-5', 'test: balanced'), rows)


def _recipe_cells(group: Repeats) -> list[str]:
    seeds = ', '.join(str(run.summary['seed']) for run in group.runs)
    return [f'`{group.name}`{group.first.remark}', str(group.first.summary['epochs']), seeds]


def _mean_and_spread(accuracies: list[float]) -> list[str]:
    spread = f'{min(accuracies):.4f} to {max(accuracies):.4f}' if len(accuracies) > 1 else '-'
    return [f'{statistics.mean(accuracies):.4f}', spread]


def _accuracy_cells(group: Repeats, accuracies: list[float], reported: Optional[float]) -> list[str]:
    mean, error = statistics.mean(accuracies), group.standard_error(accuracies)
    difference = None if reported is None else mean - reported
    return [
        *_mean_and_spread(accuracies),
        _number(error),
        _number(reported),
        _number(difference, '+.4f'),
        _number(difference / error if difference is not None and error else None, '+.1f'),
    ]


def _number(value: Optional[float], form: str = '.4f') -> str:
    return '-' if value is None else format(value, form)


def published_table(run: Run) -> str:
    """The accuracy of a run of v6 at the epochs that are read from the published plot."""
    accuracies = {row['epoch']: f'{row["val_acc"]:.4f}' for row in run.metrics}
    return markdown(
        ['epoch', *map(str, PUBLISHED_V6)],
        [
            [f'`{run.name}`', *(accuracies[epoch] for epoch in PUBLISHED_V6)],
            ['published plot', *map(str, PUBLISHED_V6.values())],
        ],
    )


def detection_table(runs: list[Run]) -> str:
    """A row for each set of images: how well scores tell test images from it, by AUROC.

    Parameters
    ----------
    runs : list of Run
        Of one recipe, scored by detect.py. A cell holds their values one after the other, - where a
        run lacks one.
    """
    reports = [run.summary['detection'] for run in runs]
    every = [images for report in reports for images in report.values()]
    nets = list(dict.fromkeys(net for images in every for net in images.get('accuracy', ())))
    scores = list(dict.fromkeys(score for images in every for score in images['scores']))

    def cell(values: Iterable[Optional[float]]) -> str:
        return ' '.join(_number(value, '.3f') for value in values)

    rows = []
    for name in dict.fromkeys(name for report in reports for name in report):
        sets: list[Any] = [report.get(name, {}) for report in reports]
        rows.append(
            [
                name,
                *(cell(one.get('accuracy', {}).get(net) for one in sets) for net in nets),
                *(
                    cell(one.get('scores', {}).get(score, {}).get('auroc') for one in sets)
                    for score in scores
                ),
            ]
        )
    header = ['images', *(f'accuracy of {net}' for net in nets)]
    return markdown(header + [score.replace('_', ' ') for score in scores], rows)


def verification_table(groups: list[Repeats]) -> str:
    """A row for each recipe and distance: how well features tell whether two images are of one class.

    Parameters
    ----------
    groups : list of Repeats
        Verified by verify.py on the same images. The pixels, which are no recipe's, come last.
    """
    rows: dict[tuple[str, str], list[str]] = {}
    names: list[str] = []
    for group in groups:
        reports = [run.summary['verification']['results'] for run in group.runs]
        for vectors, row in reports[0].items():
            names = names or list(row)
            ours = '-' if vectors.startswith('pixels') else f'`{group.name}`'
            cells = [_range([report[vectors][name] for report in reports]) for name in names]
            rows.setdefault((ours, vectors), [ours, vectors, *cells])
    by_pixels_last = sorted(rows, key=lambda key: key[0] == '-')
    header = ['recipe', 'compared', *(name.replace('_', ' ') for name in names)]
    return markdown(header, [rows[key] for key in by_pixels_last])


def _range(values: list[Optional[float]]) -> str:
    """The mean of seeds with the least and the greatest value, to three digits."""
    known = [value for value in values if value is not None]
    if not known:
        return '-'
    mean, least, greatest = (f'{value:.3f}' for value in (statistics.mean(known), min(known), max(known)))
    return mean if least == greatest else f'{mean} ({least} to {greatest})'


def detection_report(report: dict[str, Any]) -> str:
    """A report as detect.py makes it: a row for each set of images, all measures in each cell."""
    nets, scores = report['nets'], list(next(iter(report['sets'].values()))['scores'])
    rows = [['test images', *(f'{report["accuracy"][net]:.4f}' for net in nets), *['-'] * len(scores)]]
    for title, images in report['sets'].items():
        rows.append(
            [
                title,
                *(_number(images.get('accuracy', {}).get(net)) for net in nets),
                *(
                    ' / '.join(f'{value:.3f}' for value in images['scores'][score].values())
                    for score in scores
                ),
            ]
        )
    header = ['images', *(f'accuracy of `{run}`' for run in nets.values())]
    return markdown(header + [score.replace('_', ' ') for score in scores], rows)


def verdict(summary: Mapping[str, Any]) -> str:
    """One line that sets a summary's accuracy against the reported one."""
    line = (
        f'{summary["version"]}: val acc {summary["val_acc"]:.4f} at the last epoch, best '
        f'{summary["best_val_acc"]:.4f} at epoch {summary["best_epoch"]}'
    )
    if summary['reported_val_acc'] is None:
        return line + '; the source reports none'
    difference = summary['val_acc'] - summary['reported_val_acc']
    return line + f'; reported {summary["reported_val_acc"]:.4f}, difference {difference:+.4f}'
