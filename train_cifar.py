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
from training.config.options import choose_recipe, parse_options, training_parser
from training.runs.folder import RunFolder


def make_parser():
    parser = training_parser(__doc__, 'recipe: configs/cifar/VERSION.yaml (default fast)')
    parser.add_argument(
        '--plotting', action='store_true', help='redraw curves.png every epoch, not only at the end'
    )
    return parser


def main(argv):
    # Recipe, device, run folder. mxnet is imported only after runtime.prepare.
    actions, overrides = parse_options(make_parser(), recipes.CifarRecipe, argv)
    version = 'fast' if actions['version'] is None else actions['version']
    folder = RunFolder(overrides.get('output_dir') or Path('output') / f'cifar-{version}')
    recipe, recipe_file = choose_recipe('cifar', version, recipes.CifarRecipe, folder, actions, overrides)
    device, workers = begin(recipe, recipe_file, version, folder, overrides)

    import mxnet as mx

    from training import model
    from training.data import augment, batches, datasets
    from training.loop.fit import Job, fit
    from training.losses.build import variance_statistics
    from training.losses.classifiers import LabelledClassifier
    from training.metrics import likelihood
    from training.metrics.accuracy import accuracies
    from training.optim import schedules
    from training.optim.average import build_moving_average
    from training.optim.trainer import build_trainer
    from training.runs import plots
    from training.runs.teacher import load_teacher
    from training.runs.weights import load_weights, named_parameters

    contexts = device.contexts()
    mx.random.seed(recipe.run.seed)

    # Data: uint8 arrays on the device.
    train_split, val_split = datasets.load_splits(recipe.data)
    augmentation, normalise = augment.build(recipe.data), model.normaliser(recipe, contexts)
    augmentation.initialize(ctx=contexts)
    augmentation.hybridize(static_alloc=True)
    val_data = batches.DeviceData(val_split, contexts, workers)
    print(
        f'{recipe.data.dataset}: {len(train_split)} training images, {val_data.count} '
        f'{recipe.data.validation_split} images'
    )

    # Net and loss.
    graph = model.build(recipe, device)
    model.initialize(graph, recipe, contexts)
    classifier, is_lgm = graph.classifier, recipe.loss.loss == 'lgm'
    weights = actions['weights'] or (folder.weights if actions['test'] else None)
    if weights:
        load_weights(weights, graph.weights, contexts)
    if actions['test']:
        (accuracy,) = accuracies(classifier, normalise, val_data)
        print(f'{weights}: accuracy {accuracy:.4f} on {val_data.count} images')
        return 0

    # Batches, and the teacher that looks at them too.
    refinement = recipe.refinement
    teacher_net = refinement.teacher and load_teacher(
        refinement.teacher, recipe.data.dataset, device, contexts, folder
    )
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
    )
    if teacher_net:
        (accuracy,) = accuracies(teacher_net, normalise, val_data)
        print(f'teacher {refinement.teacher}: accuracy {accuracy:.4f}')

    # Schedules and optimizer.
    learning_rate = schedules.learning_rate(
        recipe.optimisation, train_data.steps_per_epoch, train_data.batch_size
    )
    margin = schedules.margin(recipe.loss)
    trainer = build_trainer(named_parameters({'graph': graph}).values(), recipe.optimisation, workers)

    def set_rates(step):
        trainer.set_learning_rate(learning_rate(step))
        if is_lgm and (step == 0 or margin(step) != margin(step - 1)):
            graph.loss_fn.set_margin(margin(step))
        return {'lr': learning_rate(step), 'margin': margin(step) if is_lgm else 0.0}

    # What is validated and kept: the weights, or their moving average.
    moving_average = build_moving_average(graph, recipe, device, contexts)
    if moving_average:
        classifier = moving_average.graph.classifier

    # Train.
    with_label, validated = recipe.run.validate_with_label, classifier
    if with_label:
        validated = LabelledClassifier(classifier, graph.loss_fn)
        validated.hybridize(static_alloc=True)

    def evaluate():
        row = dict(
            zip(('val_acc', 'val_acc_with_label'), accuracies(validated, normalise, val_data, with_label))
        )
        if is_lgm:
            row.update(variance_statistics(classifier.mixture))
        return row

    def draw(history, figures):
        figures.submit(folder.write_figure, 'curves.png', plots.curves, history, folder.path.name)

    def report_likelihood(figures):
        def draw_likelihoods(splits):
            title = folder.path.name
            figures.submit(folder.write_figure, 'likelihood.png', plots.likelihoods, splits, title)

        return likelihood.report(classifier, normalise, train_data, val_data, draw_likelihoods)

    return fit(
        Job(
            recipe=recipe,
            device=device,
            folder=folder,
            graph=graph,
            trainers=[trainer],
            data=train_data,
            set_rates=set_rates,
            evaluate=evaluate,
            validation_images=val_data.count,
            average=moving_average,
            after_epoch=draw if actions['plotting'] else None,
            at_end=report_likelihood if is_lgm else None,
        ),
        actions['resume'],
        actions['tensorboard'],
    )


if __name__ == '__main__':
    errors.exit_with(main)
