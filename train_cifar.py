"""Train a CIFAR-10 ResNet with the large-margin Gaussian Mixture loss.

    python train_cifar.py --version fast
    python train_cifar.py --version v6 --epochs 30 --dtype auto
    python train_cifar.py --version fast --resume
    python train_cifar.py --version fast --test
"""
from pathlib import Path

from training import cli, runtime
from training import recipe as recipes
from training.run_folder import RunFolder

LIKELIHOOD_SAMPLE = 10000  # images of each split in the histograms


def main(argv):
    # Recipe, device, run folder. mxnet is imported only after runtime.prepare.
    parser = cli.make_parser(__doc__, 'recipe: configs/cifar/VERSION.yaml (default fast)')
    parser.add_argument('--plotting', action='store_true',
                        help='redraw curves.png every epoch, not only at the end')
    actions, overrides = cli.parse(parser, recipes.CifarRecipe, argv)
    version = actions['version'] or 'fast'
    folder = RunFolder(overrides.get('output_dir') or Path('output') / f'cifar-{version}')
    recipe, recipe_file = cli.load_recipe('cifar', version, recipes.CifarRecipe, folder, actions,
                                          overrides)
    device = cli.begin(recipe, recipe_file, version, folder)

    import mxnet as mx
    from training import augment, checkpoint, data, fit, graphs, loop, losses, nets, optim
    contexts = device.contexts()
    mx.random.seed(recipe.run.seed)

    # Data: uint8 arrays on the device.
    load, classes = {'cifar10': (data.load_cifar10, data.CIFAR10_CLASSES),
                     'cifar100': (data.load_cifar100, data.CIFAR100_CLASSES)}[recipe.data.dataset]
    train_split, val_split = load(recipe.data.data_dir, recipe.data.num_samples,
                                  recipe.data.holdout)
    augmentation, normalise = augment.build(recipe.data), augment.Normalize()
    for block in (augmentation, normalise):
        block.initialize(ctx=contexts)
        block.hybridize(static_alloc=True)
    train_data = loop.TrainingData(train_split, contexts, augmentation, recipe.data.flip,
                                   recipe.optimisation.batch_size * len(contexts), recipe.run.seed)
    val_data = loop.DeviceData(val_split, contexts)
    print(f'{recipe.data.dataset}: {train_data.count} training images, {val_data.count} '
          f'{"held-out" if recipe.data.holdout else "test"} images')

    # Net, mixture and loss; each group has its own initialisation.
    net = nets.FeatureNet(recipe.model, device)
    graph = graphs.build_lgm(net, recipe.loss, classes)
    classifier, loss_fn = graph.classifier, graph.loss_fn
    net.initialize(nets.initializer(recipe.optimisation.net_init), ctx=contexts)
    for block in (classifier.mixture, loss_fn):
        block.initialize(ctx=contexts)
    graph.hybridize(static_alloc=True, static_shape=True)
    blocks = {'classifier': classifier, 'loss': loss_fn}
    classifier(normalise(val_data.images[0][:1]))  # settles the shapes that Gluon defers
    if actions['weights']:
        checkpoint.load_weights(actions['weights'], classifier, contexts)

    if actions['test']:
        weights = actions['weights'] or folder.best_weights
        checkpoint.load_weights(weights, classifier, contexts)
        accuracy, = loop.evaluate(classifier, normalise, val_data)
        print(f'{weights}: accuracy {accuracy:.4f} on {val_data.count} images')
        return 0

    # Schedules and optimizer.
    learning_rate = optim.learning_rate(recipe.optimisation, train_data.steps_per_epoch,
                                        train_data.batch_size)
    margin = losses.margin_schedule(recipe.loss)
    trainer = optim.build_trainer(checkpoint.named_parameters(blocks).values(),
                                  recipe.optimisation)

    def set_rates(step):
        trainer.set_learning_rate(learning_rate(step))
        if step == 0 or margin(step) != margin(step - 1):
            loss_fn.set_margin(margin(step))
        return {'lr': learning_rate(step), 'margin': margin(step)}

    # Train.
    labelled = graphs.LabelledClassifier(classifier, loss_fn)
    labelled.hybridize(static_alloc=True)

    def evaluate():
        row = {'val_acc': loop.evaluate(classifier, normalise, val_data)[0]}
        if recipe.run.validate_with_label:
            row['val_acc_with_label'] = loop.evaluate(labelled, normalise, val_data, True)[0]
        return {**row, **losses.variance_statistics(classifier.mixture)}

    def draw(history, figures):
        figures.submit(folder.draw_curves, history, folder.path.name)

    def draw_likelihoods(figures):
        figures.submit(folder.draw_likelihoods, [
            (name, *loop.likelihoods(classifier, normalise, split, LIKELIHOOD_SAMPLE))
            for name, split in (('training set', train_data), ('test set', val_data))])

    return fit.fit(fit.Job(
        recipe=recipe, device=device, folder=folder, graph=graph, weights=classifier,
        blocks=blocks, trainers=[trainer], data=train_data, set_rates=set_rates,
        evaluate=evaluate, after_epoch=draw if actions['plotting'] else None,
        at_end=draw_likelihoods), actions['resume'], actions['tensorboard'])


if __name__ == '__main__':
    runtime.exit_with(main)
