"""Train a CIFAR-10 ResNet with the large-margin Gaussian Mixture loss.

python train_cifar.py --version fast
python train_cifar.py --version v6 --epochs 40 --dtype auto
python train_cifar.py --version fast --resume
python train_cifar.py --version fast --test
"""

from pathlib import Path

from training import errors
from training.begin import begin
from training.config import recipe as recipes
from training.config.options import Parser, choose_recipe, parse_options, training_parser
from training.runs.folder import RunFolder


def make_parser() -> Parser:
    parser = training_parser(__doc__, 'recipe: configs/cifar/VERSION.yaml (default fast)')
    return parser


def main(argv: list[str]) -> int:
    # Recipe, device, run folder. mxnet is imported only after devices.prepare.
    actions, overrides = parse_options(make_parser(), recipes.CifarRecipe, argv)
    version = 'fast' if actions['version'] is None else actions['version']
    folder = RunFolder(overrides.get('output_dir') or Path('output') / f'cifar-{version}')
    recipe, recipe_file = choose_recipe('cifar', version, recipes.CifarRecipe, folder, actions, overrides)
    device, workers = begin(recipe, recipe_file, version, folder, overrides)

    import mxnet as mx

    from training.data import augment, batches, datasets
    from training.loop.fit import Job, fit
    from training.loop.rates import Rates
    from training.loop.validation import Validation
    from training.metrics.accuracy import accuracies
    from training.model import build_model, initialize, normaliser
    from training.optim import schedules
    from training.optim.average import build_moving_average
    from training.optim.trainer import build_trainer
    from training.runs.teacher import load_teacher
    from training.runs.weights import load_weights, named_parameters, require_same_data

    contexts = device.contexts()
    mx.random.seed(recipe.run.seed)

    # Data: uint8 arrays on the device.
    train_split, val_split = datasets.load_splits(recipe.data)
    augmentation, normalise = augment.build(recipe.data), normaliser(recipe, contexts)
    augmentation.initialize(ctx=contexts)
    augmentation.hybridize(static_alloc=True)
    val_data = batches.DeviceData(val_split, contexts, workers)
    print(
        f'{recipe.data.dataset}: {len(train_split)} training images, {val_data.count} '
        f'{recipe.data.validation_split} images'
    )

    # Net and loss.
    model = build_model(recipe, device)
    initialize(model, recipe, contexts)
    weights = actions['weights'] or (folder.weights if actions['test'] else None)
    if weights:
        load_weights(weights, model.weights, contexts)
        if (config := RunFolder(Path(weights).parent).config).is_file():
            require_same_data(f'--weights {weights}', config, recipe.data, 'normalisation')
    if actions['test']:
        (accuracy,) = accuracies(model.classifier, normalise, val_data)
        print(f'{weights}: accuracy {accuracy:.4f} on {val_data.count} images')
        return 0

    # Batches, and the teacher that looks at them too.
    refinement = recipe.refinement
    teacher_net = None
    if refinement.teacher:
        teacher_net = load_teacher(refinement.teacher, recipe.data, device, contexts, folder)
    train_data = batches.TrainingData(
        train_split,
        contexts,
        augmentation,
        recipe.data.flip,
        recipe.optimisation.batch_size * len(contexts) * workers.size,
        recipe.run.seed,
        refinement.mixup,
        teacher_net,
        workers=workers,
        resolutions=recipe.data.resolutions,
    )
    if teacher_net:
        (accuracy,) = accuracies(teacher_net, normalise, val_data)
        print(f'teacher {refinement.teacher}: accuracy {accuracy:.4f}')

    # Schedules and optimizer.
    learning_rate = schedules.learning_rate(
        recipe.optimisation, train_data.steps_per_epoch, train_data.batch_size
    )
    parameters = named_parameters({'graph': model.graph}).values()
    trainers = [build_trainer(parameters, recipe.optimisation, workers)]
    rates = Rates([learning_rate], trainers, model, schedules.margin(recipe.loss))

    # What is validated and kept: the weights, or their moving average.
    average = build_moving_average(model, recipe, device, contexts)
    validated = average.model if average else model
    validation = Validation(validated, normalise, val_data, model.loss_fn, recipe.run.validate_with_label)

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
        average=average,
        plotting=actions['plotting'],
    )
    return fit(job, actions['resume'], actions['tensorboard'])


if __name__ == '__main__':
    errors.exit_with(main)
