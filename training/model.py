"""From a recipe to the model that is trained, with what else is asked of it."""

from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Union

import numpy as np
from mxnet import nd
from mxnet.context import Context
from mxnet.gluon import HybridBlock, Parameter

from center_loss import CenterLoss, NearestCenter
from gmloss import GaussianMixture, LGMLoss, MixtureClassifier
from training.config.schema import Loss, MnistRecipe, Recipe
from training.data import augment, datasets
from training.losses.build import build_loss, build_mixture
from training.losses.classifiers import HeadsClassifier
from training.losses.graphs import Graph, LGMGraph, SoftmaxGraph, class_weights, soft_labels
from training.machine.devices import Device
from training.nets import zoo
from training.nets.lenet import LeNetPlusPlus
from training.nets.sizes import require_sizes

SOFTMAX, NEAREST_CENTER, LGM = 'softmax', 'knn', 'lgm'


@dataclass
class Model:
    """A training graph and the views of it that the rest of the project needs.

    Attributes
    ----------
    graph : training.losses.graphs.Graph
    net : HybridBlock
        Normalised images to features (B, D), or to features and logits.
    weights : HybridBlock
        Whose parameters are a run's result.
    classifier : HybridBlock
        Normalised images to label-free logits (B, C), or to several of them.
    methods : tuple of str
        The names of these.
    features : callable
        Normalised images to features (B, D).
    mixture, loss_fn, center_loss
        What the loss consists of, as far as it has them.
    heads : list of HybridBlock or Parameter
        What is initialised beside the net.
    """

    graph: Graph
    net: HybridBlock
    weights: HybridBlock
    classifier: HybridBlock
    methods: tuple
    features: Callable
    mixture: Optional[GaussianMixture] = None
    loss_fn: Optional[LGMLoss] = None
    center_loss: Optional[CenterLoss] = None
    heads: list[Union[HybridBlock, Parameter]] = field(default_factory=list)


def build_model(recipe: Recipe, device: Optional[Device], class_counts: Optional[np.ndarray] = None) -> Model:
    """The model of a recipe, not yet initialised.

    Parameters
    ----------
    recipe : CifarRecipe, ImagesRecipe or MnistRecipe
    device : training.machine.devices.Device or None
        As in training.nets.zoo.FeatureNet.
    class_counts : int array (C,) or None
        Training images of each class, for its prior and weight; not needed where weights are loaded.
    """
    facts = datasets.facts(recipe.data)
    loss: Any = recipe.loss
    classes = len(facts.names)
    center_loss = None
    if isinstance(recipe, MnistRecipe):
        net = LeNetPlusPlus(
            recipe.model.feature_size, None if loss.loss == LGM else classes, recipe.model.bias
        )
        if loss.loss == LGM:
            return lgm_model(net, loss, num_classes=classes)
        if loss.loss != SOFTMAX:
            center_loss = CenterLoss(classes, net.feature_size, loss.lmbd)
        return softmax_model(net, center_loss, weighted=True, num_classes=classes)
    refinement = recipe.refinement
    counts = np.ones(classes) if class_counts is None else class_counts
    settings: dict[str, Any] = {
        'num_classes': classes,
        'label_smoothing': refinement.label_smoothing,
        'mixup': refinement.mixup > 0,
        'temperature': refinement.temperature if refinement.teacher else None,
        'class_weights': class_weights(counts, loss.class_weight_power) if loss.class_weight_power else None,
    }
    net = zoo.FeatureNet(recipe.model, device, None if loss.loss == LGM else classes, facts.shape)
    require_sizes(net, (size for size, _ in recipe.data.resolutions), facts.shape[1])
    if loss.loss == LGM:
        priors = counts if loss.class_prior == 'counts' else None
        return lgm_model(net, loss, priors, **settings)
    if loss.loss != SOFTMAX:
        center_loss = CenterLoss(classes, net.feature_size, loss.lmbd)
    return softmax_model(net, center_loss, **settings)


def lgm_model(net: HybridBlock, loss: Loss, priors: Optional[np.ndarray] = None, **settings: Any) -> Model:
    """The model of a net that gives features, under a recipe's L-GM loss.

    `priors` as in gmloss.GaussianMixture, settings those of training.losses.graphs.Graph.
    """
    mixture = build_mixture(loss, settings['num_classes'], net.feature_size, priors)
    loss_fn = build_loss(loss, sparse_label=not soft_labels(**settings))
    classifier = MixtureClassifier(net, mixture)
    graph = LGMGraph(classifier, loss_fn, **settings)
    return Model(
        graph,
        net,
        weights=classifier,
        classifier=classifier,
        methods=(LGM,),
        features=net,
        mixture=mixture,
        loss_fn=loss_fn,
        heads=[mixture, loss_fn, *graph.constants],
    )


def softmax_model(
    net: HybridBlock, center_loss: Optional[CenterLoss] = None, weighted: bool = False, **settings: Any
) -> Model:
    """The model of a net that gives features and logits, under softmax and perhaps center loss.

    Parameters and settings are those of training.losses.graphs.SoftmaxGraph.
    """
    graph = SoftmaxGraph(net, center_loss, weighted, **settings)
    losses = [] if center_loss is None else [center_loss]
    return Model(
        graph,
        net,
        weights=graph if weighted or losses else net,
        classifier=HeadsClassifier(net, [NearestCenter(loss) for loss in losses]),
        methods=(SOFTMAX, NEAREST_CENTER)[: 1 + len(losses)],
        features=lambda images: net(images)[0],
        center_loss=center_loss,
        heads=[*losses, *([graph.softmax_weight] if weighted else []), *graph.constants],
    )


def initialize(model: Model, recipe: Recipe, contexts: list[Context]) -> None:
    """Initialise a model as its recipe says, hybridise it, and settle the shapes Gluon defers."""
    model.net.initialize(zoo.initializer(recipe.optimisation.net_init), ctx=contexts)
    for head in model.heads:
        head.initialize(ctx=contexts)
    model.graph.hybridize(static_alloc=True, static_shape=True)
    model.classifier.hybridize(static_alloc=True)
    model.classifier(nd.zeros((1, *datasets.facts(recipe.data).shape), ctx=contexts[0]))


def normaliser(recipe: Recipe, contexts: list[Context]) -> HybridBlock:
    """The block from a recipe's uint8 images to its net's inputs."""
    block = augment.Normalize(**augment.NORMALISATIONS[recipe.data.normalisation])
    block.initialize(ctx=contexts)
    block.hybridize(static_alloc=True)
    return block
