"""Runs as their folders record them, and which of them differ in the random seed alone."""

import csv
import dataclasses
import json
import os
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Optional, Union

from pydantic import ConfigDict, Field, with_config
from typing_extensions import NotRequired, TypedDict

from training.config import recipe as recipes
from training.config.inputs import MNIST_LIKE
from training.config.schema import Recipe
from training.data.datasets import facts
from training.errors import UserError
from training.runs.folder import RunFolder
from training.runs.resumption import FREE_ON_RESUME
from training.runs.summary import at_last_size, totals

TEST_IMAGES = 10000  # of CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST alike
# What sources report and no recipe holds: gluon_GMLoss v6 over its 400 epochs, read from the plot it
# published (381 is its best epoch), and the nearest center ("KNN search") of Center_Loss_in_MXNet.
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
REPORTED_NEAREST = {'softmax-center': 0.9823, 'center': 0.9851}


@with_config(ConfigDict(extra='allow'))
class Epoch(TypedDict):
    """A row of metrics.csv; which other columns there are differs from run to run."""

    epoch: float
    val_acc: float
    images_per_second: float
    seconds: float


class Detection(TypedDict):
    """Of one set of images: accuracy by net, and {score: {'auroc': ...}}."""

    accuracy: NotRequired[dict[str, float]]
    scores: dict[str, dict[str, float]]


class Test(TypedDict):
    """What train_images.py --test found."""

    images: int
    top1_acc: float
    top5_acc: float
    balanced_acc: float


class Verification(TypedDict):
    """What verify.py found: {vectors and distance: {measure: value}} of the images in a folder."""

    data: str
    results: dict[str, dict[str, Optional[float]]]


class Summary(TypedDict):
    """Of summary.json, what tables and figures use."""

    version: str
    epochs: int
    val_acc: float
    best_val_acc: float
    best_epoch: int
    reported_val_acc: Optional[float]
    images_per_second: float
    seconds: float
    dtype: str
    seed: int
    validated_on: NotRequired[str]
    validation_images: NotRequired[int]
    top5_acc: NotRequired[float]
    balanced_acc: NotRequired[float]
    test: NotRequired[Test]
    detection: NotRequired[dict[str, Detection]]
    verification: NotRequired[Verification]


@dataclasses.dataclass
class Run:
    """A run: its folder, recipe, metrics (a dict for each epoch) and summary."""

    folder: RunFolder
    recipe: Recipe
    metrics: list[dict[str, float]]
    summary: Summary
    finished: bool
    name: str  # of the folder, with its parent's where another run has the same

    @property
    def data(self) -> str:
        """The name of its data set."""
        return facts(self.recipe.data).title

    @property
    def on_mnist(self) -> bool:
        return self.recipe.data.dataset in MNIST_LIKE

    @property
    def validated_on(self) -> str:
        return self.summary.get('validated_on', 'test set')

    @property
    def remark(self) -> str:
        """What a table adds to the name: whether it is unfinished, and validated on held-out images."""
        remarks = '' if self.finished else ' (unfinished)'
        return remarks + (' (held-out images)' if self.recipe.data.holdout else '')

    @property
    def images(self) -> Optional[int]:
        """How many images an accuracy is of; None where the folder does not say."""
        data: Any = self.recipe.data
        if data.dataset == 'images':
            return self.summary.get('validation_images')
        return data.holdout or data.num_samples or (None if data.dataset == 'idx' else TEST_IMAGES)

    def minutes_to(self, accuracy: float) -> Optional[float]:
        """Minutes, evaluation included, until `accuracy` was reached on images of the last size.

        None if it never was.
        """
        final = at_last_size(self.metrics)
        for number, row in enumerate(final, len(self.metrics) - len(final) + 1):
            if row['val_acc'] >= accuracy:
                return sum(row['seconds'] for row in self.metrics[:number]) / 60
        return None


@dataclasses.dataclass
class Repeats:
    """Runs that differ in the random seed alone."""

    name: str
    runs: list[Run]

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def last(self) -> list[float]:
        """Accuracies after the last epoch."""
        return [run.summary['val_acc'] for run in self.runs]

    @property
    def best(self) -> list[float]:
        """Accuracies of the best epochs."""
        return [run.summary['best_val_acc'] for run in self.runs]

    @property
    def nearest(self) -> list[float]:
        """Accuracies by the nearest center after the last epoch; empty without centers."""
        return [run.metrics[-1]['knn_acc'] for run in self.runs if 'knn_acc' in run.metrics[-1]]

    @property
    def reported_nearest(self) -> Optional[float]:
        """The accuracy by the nearest center that the source reports."""
        return REPORTED_NEAREST.get(self.first.summary['version']) if self.nearest else None

    def standard_error(self, accuracies: list[float]) -> Optional[float]:
        """Binomial standard error of accuracies, which more seeds on the same images do not lower."""
        mean = statistics.mean(accuracies)
        return self.first.images and binomial_error(mean, self.first.images)

    @property
    def tests(self) -> list[Test]:
        """What the runs have on the test images, if they were tested."""
        return [run.summary['test'] for run in self.runs if 'test' in run.summary]

    @property
    def redoes_v6(self) -> bool:
        """Whether this is gluon_GMLoss v6 at its published length, which has a published curve."""
        first = self.first
        return (first.summary['version'], first.summary['epochs'], first.data) == ('v6', 400, 'CIFAR-10')


def binomial_error(accuracy: float, images: int) -> float:
    """Standard error of an accuracy on so many images."""
    return (accuracy * (1 - accuracy) / images) ** 0.5


def read_run(path: Union[str, Path]) -> Run:
    """The run in a folder; of an unfinished one, what its metrics hold.

    Raises
    ------
    UserError
        If there is none, or its files are damaged.
    """
    folder = RunFolder(path)
    recipe = recipes.load_run(folder.require_run())
    damaged = f'{path}: the files of this run are damaged'
    try:
        with open(folder.metrics, newline='') as file:
            rows: list[dict[str, float]] = [
                {name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)
            ]
        recipes.validate(rows, Annotated[list[Epoch], Field(min_length=1)], damaged)
        finished = folder.summary.exists() and len(rows) >= recipe.optimisation.epochs
        summary = folder.read_summary() if finished else {**dataclasses.asdict(recipe.run), **totals(rows)}
        summary = recipes.validate(summary, Summary, damaged)
        return Run(folder, recipe, rows, summary, finished, folder.path.name)
    except FileNotFoundError as error:
        raise UserError(
            f'{path}: the run has not ended its first epoch ({os.path.basename(error.filename)} is missing)'
        ) from None
    except (OSError, ValueError, TypeError, ZeroDivisionError, csv.Error) as error:
        raise UserError(f'{damaged} ({type(error).__name__}: {" ".join(str(error).split())})') from None


def read_runs(paths: Iterable[Union[str, Path]]) -> list[Run]:
    """The runs in several folders, named with the parent folder where one name is in several."""
    runs, parents = [read_run(path) for path in paths], defaultdict(set)
    for run in runs:
        parents[_without_seed(run.name)].add(run.folder.path.resolve().parent)
    for run in runs:
        if len(parents[_without_seed(run.name)]) > 1:
            run.name = f'{run.folder.path.resolve().parent.name}/{run.name}'
    return runs


def by_recipe(runs: Iterable[Run]) -> list[Repeats]:
    """Runs as a list of Repeats; an unfinished run stands alone."""
    groups = defaultdict(list)
    for run in runs:
        groups[_all_but_seed(run.recipe) if run.finished else run.folder.path].append(run)
    names = Counter(map(_common_name, groups.values()))
    return [
        Repeats(_common_name(group) if names[_common_name(group)] == 1 else group[0].name, group)
        for group in groups.values()
    ]


def _all_but_seed(recipe: Recipe) -> str:
    return json.dumps(
        {
            name: value
            for name, value in recipes.values(recipe).items()
            if name not in ('seed', *FREE_ON_RESUME)
        }
    )


def _without_seed(name: str) -> str:
    return re.sub(r'[-_.]?seed\d*$', '', name)


def _common_name(runs: list[Run]) -> str:
    """What the names of runs share, without what numbers the seeds."""
    names = [run.name for run in runs]
    prefix = os.path.commonprefix(names)
    if len(names) == 1:
        prefix = _without_seed(prefix)
    elif prefix not in names:
        prefix = re.sub(r'([-_.]|[-_.]?seed)\d*$', '', prefix)
    return prefix or runs[0].summary['version']
