"""The first 100 steps of v5, under three readings of the sentence that describes it.

`gradient` and the two columns after it are norms of the mean loss's gradient, `distance` is that of the two
nearest means, `norm` the root mean square length of the features, and `missing` counts the classes that
the net predicts for no image of the batch.
"""

from typing import Any

import numpy as np

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
    devices.prepare('cpu', 'float32')
    for label, fields in READINGS.items():
        recipe = recipes.load_recipe(recipes.version_path('cifar', 'v5'), recipes.CifarRecipe, fields)
        print(f'\n{label}\n\n{tables.markdown(HEADER, first_steps(recipe))}', end='', flush=True)


def first_steps(recipe: Any, steps: tuple[int, ...] = SAID) -> list[list[str]]:
    """A row of HEADER for each of these steps of an L-GM recipe, trained on one device."""
    import mxnet as mx
    from mxnet import autograd, nd

    from training.data import augment, batches, datasets
    from training.model import build_model, initialize
    from training.optim import schedules
    from training.optim.trainer import build_trainer, take_step
    from training.runs.weights import named_parameters

    contexts = [mx.cpu()]
    mx.random.seed(recipe.run.seed)
    images, _ = datasets.load_splits(recipe.data)
    block = augment.build(recipe.data)
    block.initialize(ctx=contexts)
    batch_size = recipe.optimisation.batch_size
    data = batches.TrainingData(images, contexts, block, recipe.data.flip, batch_size, recipe.run.seed)
    model = build_model(recipe, None)
    initialize(model, recipe, contexts)
    rate = schedules.learning_rate(recipe.optimisation, data.steps_per_epoch, batch_size)
    parameters = named_parameters({'net': model.net, 'mixture': model.mixture})
    trainer = build_trainer(parameters.values(), recipe.optimisation)
    kinds: dict[str, list] = {'net': [], 'mean': [], 'variance': []}
    for name, parameter in parameters.items():
        if parameter.grad_req != 'null':
            kinds['net' if name.startswith('net.') else name.rpartition('.')[2]].append(parameter)

    rows = []
    for step, ((x, y),) in zip(range(1, max(steps) + 1), data.batches(0)):
        trainer.set_learning_rate(rate(step - 1))
        with autograd.record():
            loss, _ = model.graph(x, y)
        loss.backward()
        if step in steps:
            with autograd.train_mode():  # as the loss has seen them
                logits, features = model.classifier(x).asnumpy(), model.features(x).asnumpy()
            means = kinds['mean'][0].data().asnumpy()
            apart = np.linalg.norm(means[:, None] - means, axis=2) + np.diag([np.inf] * len(means))
            norms = [
                np.sqrt(sum(nd.square(p.grad()).sum().asscalar() for p in kind)) / batch_size
                for kind in kinds.values()
            ]
            rows.append(
                [
                    str(step),
                    f'{loss.mean().asscalar():.3f}',
                    f'{np.mean(logits.argmax(axis=1) == y.asnumpy()):.2f}',
                    *(f'{norm:.3g}' for norm in norms),
                    f'{kinds["variance"][0].data().min().asscalar():.3f}',
                    f'{apart.min():.3f}',
                    f'{np.sqrt(np.mean(np.sum(features**2, axis=1))):.3g}',
                    str(len(means) - len(np.unique(logits.argmax(axis=1)))),
                ]
            )
        take_step([trainer], batch_size, None)
    return rows
