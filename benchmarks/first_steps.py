"""The first 100 steps of v5, under three readings of the sentence that describes it.

`gradient` and the two columns after it are norms of the mean loss's gradient, `distance` is that of the two
nearest means, `norm` the root mean square length of the features, and `missing` counts the classes that
the net predicts for no image of the batch.
"""

from typing import Any

import numpy as np

from benchmarks.subjects import put_together
from training.config import recipe as recipes
from training.machine import devices
from training.runs import tables

READINGS: dict[str, dict[str, Any]] = {
    "v6's form at a tenth of v4's learning rate (the recipe)": {},
    "v6's form at v4's learning rate": {'lr': 0.1},
    "a variance for each dimension, at v4's learning rate": {'lr': 0.1, 'covariance': 'raw'},
}
SAID = 1, 2, 3, 10, 30, 60, 100
HEADER = (
    *('step', 'loss', 'accuracy', 'gradient: net', 'means', 'variances'),
    *('smallest variance', 'distance', 'norm', 'missing'),
)


def report(_: int) -> None:
    """Print a table for each reading; about two minutes each."""
    device = devices.prepare('cpu', 'float32')
    for label, fields in READINGS.items():
        recipe = recipes.load_recipe(recipes.version_path('cifar', 'v5'), recipes.CifarRecipe, fields)
        print(f'\n{label}\n\n{tables.markdown(HEADER, first_steps(recipe, device))}', end='', flush=True)


def first_steps(recipe: Any, device: Any, steps: tuple[int, ...] = SAID) -> list[list[str]]:
    """A row of HEADER for each of these steps of an L-GM recipe with a trained variance."""
    import mxnet as mx
    from mxnet import autograd, nd

    from training.data import datasets
    from training.optim import schedules
    from training.optim.trainer import take_step

    mx.random.seed(recipe.run.seed)
    images, _ = datasets.load_splits(recipe.data)
    model, data, trainers = put_together(recipe, device, images)
    rate = schedules.learning_rate(recipe.optimisation, data.steps_per_epoch, data.batch_size)
    mixture = model.mixture
    learnt = [p for p in model.net.collect_params().values() if p.grad_req != 'null']

    rows = []
    for step, ((x, y),) in zip(range(1, max(steps) + 1), data.batches(0)):
        trainers[0].set_learning_rate(rate(step - 1))
        with autograd.record():
            loss, statistics = model.graph(x, y)
        loss.backward()
        if step in steps:
            with autograd.train_mode():  # as the loss has seen them
                logits, features = model.classifier(x).asnumpy(), model.features(x).asnumpy()
            mean_loss, accuracy = statistics.asnumpy() / data.batch_size
            means = mixture.mean.data().asnumpy()
            apart = np.linalg.norm(means[:, None] - means, axis=2) + np.diag([np.inf] * len(means))
            norms = [
                np.sqrt(sum(nd.square(p.grad()).sum().asscalar() for p in kind)) / data.batch_size
                for kind in (learnt, [mixture.mean], [mixture.variance])
            ]
            rows.append(
                [
                    str(step),
                    f'{mean_loss:.3f}',
                    f'{accuracy:.2f}',
                    *(f'{norm:.3g}' for norm in norms),
                    f'{mixture.variance.data().min().asscalar():.3f}',
                    f'{apart.min():.3f}',
                    f'{np.sqrt(np.mean(np.sum(features**2, axis=1))):.3g}',
                    str(len(means) - len(np.unique(logits.argmax(axis=1)))),
                ]
            )
        take_step(trainers, data.batch_size, None)
    return rows
