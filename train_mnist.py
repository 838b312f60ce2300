"""Train LeNet++ on MNIST and draw what its losses do to a two-dimensional feature space.

    python train_mnist.py --plotting
    python train_mnist.py --version lgm-full --plotting
    python train_mnist.py --version softmax-center --test --eval-method knn
    python train_mnist.py --second-train --plotting

The command lines of Center_Loss_in_MXNet work too, with main.py read as train_mnist.py.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from training import errors
from training.begin import begin
from training.config import aliases
from training.config import recipe as recipes
from training.config.options import Parser, choose_recipe, parse_options, training_parser
from training.errors import UserError
from training.runs.folder import RunFolder

SOFTMAX, KNN, LGM = 'softmax', 'knn', 'lgm'  # as in training.model, which needs mxnet


def make_parser() -> Parser:
    parser = training_parser(
        __doc__, 'recipe: configs/mnist/VERSION.yaml (default softmax-center; softmax with --prefix)'
    )
    parser.add_argument('--train', action='store_true', help='train: the default')
    parser.add_argument(
        '--second-train',
        action='store_true',
        help='--version center: train by '
        'center loss alone from the best weights of a softmax-center run '
        '(--weights, or those in mnist-softmax-center, with --prefix '
        'mnist-PREFIX, beside the run folder)',
    )
    parser.add_argument(
        '--eval-method',
        choices=(SOFTMAX, KNN, LGM),
        help='with --test: by class output, by nearest center, or by label-free L-GM posterior',
    )
    aliases.add_options(parser)
    return parser


def with_class_means(
    model: Any, normalise: Any, train_split: Any, contexts: list[Any], num_classes: int
) -> tuple[Any, np.ndarray]:
    """A softmax model as one with centers, which are the class means of the training features.

    Returns
    -------
    (training.model.Model, array (num_classes,))
        And the number of each class's center, -1 where the training images lack the class.
    """
    from mxnet import nd

    from center_loss import CenterLoss
    from training.data import batches
    from training.metrics.accuracy import extract_features
    from training.model import softmax_model
    from training.runs import features

    classes, means = features.class_means(
        *extract_features(model.features, normalise, batches.DeviceData(train_split, contexts))
    )
    center_loss = CenterLoss(len(classes), means.shape[1])
    center_loss.initialize(ctx=contexts)
    center_loss.centers.weight.set_data(nd.array(means))
    number = np.full(num_classes, -1)
    number[classes] = range(len(classes))
    return softmax_model(model.net, center_loss, num_classes=len(classes)), number


def main(argv: list[str]) -> int:
    # Recipe, device, run folder. mxnet is imported only after devices.prepare.
    actions, overrides = parse_options(make_parser(), recipes.MnistRecipe, argv)
    version, path = aliases.choose(actions, overrides)
    folder = RunFolder(path)
    recipe, recipe_file = choose_recipe('mnist', version, recipes.MnistRecipe, folder, actions, overrides)
    for name, meant in aliases.OF_CENTER_LOSS.items():
        if name in overrides and recipe.loss.loss == LGM:
            raise UserError(
                f'--{name}: of the center loss, not of the L-GM loss, whose own is '
                f'--{meant.replace("_", "-")}'
            )
    if actions['lr_step'] is not None:
        overrides['decay_epochs'] = aliases.every(actions['lr_step'], recipe.optimisation.epochs)
        recipe.optimisation.decay_epochs = overrides['decay_epochs']
    device, workers = begin(recipe, recipe_file, version, folder, overrides)

    import mxnet as mx

    from training.data import batches, datasets
    from training.loop.fit import fit
    from training.loop.job import Job
    from training.loop.rates import Rates
    from training.loop.validation import Validation
    from training.metrics.accuracy import accuracies
    from training.model import build_model, initialize, normaliser
    from training.optim import schedules
    from training.optim.trainer import build_trainer, make_trainer
    from training.runs.weights import load_weights, named_parameters

    contexts = device.contexts()
    mx.random.seed(recipe.run.seed)

    # Data: uint8 arrays on the device, pixels / 255.
    train_split, val_split = datasets.load_splits(recipe.data)
    normalise = normaliser(recipe, contexts)
    val_data = batches.DeviceData(val_split, contexts, workers)
    print(
        f'{recipe.data.dataset}: {len(train_split)} training images, {val_data.count} '
        f'{recipe.data.validation_split} images'
    )

    # Net and loss, and the weights to start from.
    model = build_model(recipe, device)
    initialize(model, recipe, contexts)
    kind, mixture, center_loss = recipe.loss.loss, model.mixture, model.center_loss
    start = actions['weights']
    if actions['test']:
        start = start or folder.weights
    elif kind == 'center' and not start:
        prefix = actions['second_train'] and actions['prefix'] or 'softmax-center'
        start = folder.path.with_name(f'mnist-{prefix}') / 'best.params'
    if start and not actions['resume']:
        load_weights(start, model.weights, contexts)
        print(f'weights: {start}')

    if actions['test']:
        method = actions['eval_method'] or model.methods[0]
        if method == KNN and kind == SOFTMAX:
            print('a softmax run has no centers: class means of the training features serve')
            model, number = with_class_means(
                model, normalise, train_split, contexts, len(datasets.facts(recipe.data).names)
            )
            val_data = batches.DeviceData(replace(val_split, labels=number[val_split.labels]), contexts)
        if method not in model.methods:
            raise UserError(
                f'--eval-method {method}: a run with --loss {kind} can be evaluated by '
                + ' or '.join(model.methods)
            )
        accuracy = accuracies(model.classifier, normalise, val_data)[model.methods.index(method)]
        print(f'{start}: accuracy {accuracy:.4f} by {method} on {val_data.count} images')
        return 0

    # Batches, at every step of which the center loss knows how many images each class has.
    train_data = batches.TrainingData(
        train_split,
        contexts,
        normalise,
        'random',
        recipe.optimisation.batch_size * len(contexts) * workers.size,
        recipe.run.seed,
        workers=workers,
        class_sizes=center_loss is not None,
    )

    # Schedules and optimizers: the net's, and one of their own for the centers. The second phase,
    # center loss alone, begins with the best weights of the first; centers and output layer stay as
    # they are, and the learning rate starts anew.
    steps, epochs = train_data.steps_per_epoch, recipe.optimisation.epochs
    first_epochs = {'center': 0, 'two-phase': recipe.loss.first_phase_epochs}.get(kind, epochs)
    second_phase = first_epochs * steps
    rate_of_first, rate_of_second = (
        schedules.learning_rate(recipe.optimisation, steps, train_data.batch_size, length)
        for length in (first_epochs, epochs - first_epochs)
    )

    def learning_rate(step: int) -> float:
        return rate_of_first(step) if step < second_phase else rate_of_second(step - second_phase)

    def centers_rate(step: int) -> float:
        scale = recipe.loss.alpha / recipe.optimisation.lr
        return scale * rate_of_first(step) if step < second_phase else 0.0

    parts = {'net': model.net, **({'mixture': mixture} if mixture else {})}
    trainers = [build_trainer(named_parameters(parts).values(), recipe.optimisation, workers)]
    if center_loss is not None:
        trainers.append(make_trainer(center_loss.collect_params(), 'sgd', {'wd': 0}, workers))
    rates = Rates(
        [learning_rate, centers_rate],
        trainers,
        model,
        schedules.margin(recipe.loss),
        softmax_weight=lambda step: float(step < second_phase),
    )
    validation = Validation(model, normalise, val_data, model.loss_fn, recipe.run.validate_with_label)

    job = Job(
        recipe=recipe,
        device=device,
        folder=folder,
        model=model,
        trainers=trainers,
        data=train_data,
        data_digest=datasets.digest(train_split, val_split),
        rates=rates,
        validation=validation,
        plotting=actions['plotting'],
        restart_epoch=first_epochs if kind == 'two-phase' else None,
    )
    return fit(job, actions['resume'], actions['tensorboard'])


if __name__ == '__main__':
    errors.exit_with(main)
