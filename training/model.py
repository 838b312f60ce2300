"""From a recipe, or the folder of a run, to a graph of training.losses.graphs."""

from dataclasses import replace

from mxnet import nd

from center_loss import CenterLoss
from gmloss import MixtureClassifier
from training.config import recipe as recipes
from training.data import augment, datasets
from training.losses.build import build_loss, build_mixture
from training.losses.graphs import LGMGraph, SoftmaxCenterGraph, SoftmaxGraph, soft_labels
from training.nets import zoo
from training.nets.lenet import LeNetPlusPlus


def build(recipe, device):
    """The graph of a recipe, not yet initialised.

    Parameters
    ----------
    recipe : training.config.schema.CifarRecipe or MnistRecipe
    device : training.machine.devices.Device or None
        As in training.nets.zoo.FeatureNet.
    """
    classes = datasets.CLASSES[recipe.data.dataset]
    if isinstance(recipe, recipes.MnistRecipe):
        return _on_mnist(recipe, classes)
    refinement = recipe.refinement
    settings = {
        'num_classes': classes,
        'label_smoothing': refinement.label_smoothing,
        'mixup': refinement.mixup > 0,
        'temperature': refinement.temperature if refinement.teacher else None,
    }
    if recipe.loss.loss == 'softmax':
        return SoftmaxGraph(
            zoo.FeatureNet(replace(recipe.model, features='output', feature_size=classes), device), **settings
        )
    return _lgm(zoo.FeatureNet(recipe.model, device), recipe.loss, **settings)


def _on_mnist(recipe, classes):
    size, kind = recipe.model.feature_size, recipe.loss.loss
    if kind == 'lgm':
        return _lgm(LeNetPlusPlus(size, None, recipe.model.bias), recipe.loss, classes)
    center_loss = None if kind == 'softmax' else CenterLoss(classes, size, recipe.loss.lmbd)
    return SoftmaxCenterGraph(LeNetPlusPlus(size, classes, recipe.model.bias), center_loss)


def _lgm(net, loss, num_classes, **settings):
    classifier = MixtureClassifier(net, build_mixture(loss, num_classes, net.feature_size))
    return LGMGraph(
        classifier,
        build_loss(loss, sparse_label=not soft_labels(**settings)),
        num_classes=num_classes,
        **settings,
    )


def initialize(graph, recipe, contexts):
    """Initialise a graph as its recipe says, hybridise it, and settle the shapes Gluon defers."""
    graph.net.initialize(zoo.initializer(recipe.optimisation.net_init), ctx=contexts)
    for part in graph.heads:
        part.initialize(ctx=contexts)
    graph.hybridize(static_alloc=True, static_shape=True)
    graph.classifier.hybridize(static_alloc=True)
    graph.classifier(nd.zeros((1, *datasets.IMAGE_SHAPES[recipe.data.dataset]), ctx=contexts[0]))


def normaliser(recipe, contexts):
    """The block from a recipe's uint8 images to its net's inputs: MNIST's are pixels / 255."""
    block = (
        augment.Normalize(mean=(0,), std=(1,))
        if isinstance(recipe, recipes.MnistRecipe)
        else augment.Normalize()
    )
    block.initialize(ctx=contexts)
    block.hybridize(static_alloc=True)
    return block
