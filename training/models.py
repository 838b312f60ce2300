"""From a recipe, or the folder of a run, to a graph of training.graphs."""
from dataclasses import replace

from mxnet import nd

from center_loss import CenterLoss
from gmloss import MixtureClassifier

from . import augment, checkpoint, data, losses, nets, recipe as recipes
from .classifiers import PixelClassifier
from .graphs import LGMGraph, SoftmaxCenterGraph, SoftmaxGraph, soft_labels
from .lenet import LeNetPlusPlus


def build(recipe, device):
    """The graph of a recipe, not yet initialised.

    Parameters
    ----------
    recipe : training.fields.CifarRecipe or MnistRecipe
    device : training.runtime.Device or None
        As in training.nets.FeatureNet.
    """
    classes = data.CLASSES[recipe.data.dataset]
    if isinstance(recipe, recipes.MnistRecipe):
        return _on_mnist(recipe, classes)
    refinement = recipe.refinement
    settings = {'num_classes': classes, 'label_smoothing': refinement.label_smoothing,
                'mixup': refinement.mixup > 0,
                'temperature': refinement.temperature if refinement.teacher else None}
    if recipe.loss.loss == 'softmax':
        return SoftmaxGraph(nets.FeatureNet(
            replace(recipe.model, features='output', feature_size=classes), device), **settings)
    return _lgm(nets.FeatureNet(recipe.model, device), recipe.loss, **settings)


def _on_mnist(recipe, classes):
    size, kind = recipe.model.feature_size, recipe.loss.loss
    if kind == 'lgm':
        return _lgm(LeNetPlusPlus(size, None, recipe.model.bias), recipe.loss, classes)
    center_loss = None if kind == 'softmax' else CenterLoss(classes, size, recipe.loss.lmbd)
    return SoftmaxCenterGraph(LeNetPlusPlus(size, classes, recipe.model.bias), center_loss)


def _lgm(net, loss, num_classes, **settings):
    classifier = MixtureClassifier(net, losses.build_mixture(loss, num_classes, net.feature_size))
    return LGMGraph(classifier, losses.build_loss(loss, sparse_label=not soft_labels(**settings)),
                    num_classes=num_classes, **settings)


def initialize(graph, recipe, contexts):
    """Initialise a graph as its recipe says, hybridise it, and settle the shapes Gluon defers."""
    graph.net.initialize(nets.initializer(recipe.optimisation.net_init), ctx=contexts)
    for part in graph.heads:
        part.initialize(ctx=contexts)
    graph.hybridize(static_alloc=True, static_shape=True)
    graph.classifier.hybridize(static_alloc=True)
    graph.classifier(nd.zeros((1, *data.IMAGE_SHAPES[recipe.data.dataset]), ctx=contexts[0]))


def load(folder, device, contexts):
    """The graph of a run, with its weights (see RunFolder.weights).

    It is for inference: frozen as by training.nets.freeze, and its weights have no gradients.

    Parameters
    ----------
    folder : training.run_folder.RunFolder
    device : training.runtime.Device or None
        None leaves out what pays on one kind of device.
    contexts : list of Context

    Returns
    -------
    (graph, recipe)

    Raises
    ------
    UserError
        If there is no such run, or its weights do not fit.
    """
    recipe = recipes.load_run(folder.require_run())
    graph = build(recipe, device)
    initialize(graph, recipe, contexts)
    checkpoint.load_weights(folder.weights, graph.weights, contexts)
    nets.freeze(graph.net, contexts)
    for parameter in checkpoint.named_parameters({'graph': graph}).values():
        parameter.grad_req = 'null'
    graph.classifier.hybridize(static_alloc=True, static_shape=True)
    return graph, recipe


def pixel_classifier(folder, device, contexts):
    """(training.classifiers.PixelClassifier, recipe) of a run; parameters and errors as of `load`."""
    graph, recipe = load(folder, device, contexts)
    spread, _ = folder.read_calibration()
    block = PixelClassifier(normaliser(recipe, contexts), graph.classifier, spread, prefix='')
    block.hybridize(static_alloc=True, static_shape=True)
    return block, recipe


def normaliser(recipe, contexts):
    """The block from a recipe's uint8 images to its net's inputs: MNIST's are pixels / 255."""
    block = augment.Normalize(mean=(0,), std=(1,)) if isinstance(recipe, recipes.MnistRecipe) else \
        augment.Normalize()
    block.initialize(ctx=contexts)
    block.hybridize(static_alloc=True)
    return block
