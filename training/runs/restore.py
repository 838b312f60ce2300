"""From a run folder to its net, for inference."""

from typing import Optional

from mxnet.context import Context

from training.config.recipe import load_run
from training.config.schema import Recipe
from training.losses.classifiers import PixelClassifier
from training.machine.devices import Device
from training.model import Model, build_model, initialize, normaliser
from training.nets.rewrite import freeze
from training.runs.folder import RunFolder
from training.runs.weights import load_weights, named_parameters


def restore_model(
    folder: RunFolder, device: Optional[Device], contexts: list[Context]
) -> tuple[Model, Recipe]:
    """The model of a run with its weights (see RunFolder.weights), and its recipe.

    It is for inference: frozen as by training.nets.rewrite.freeze, and its weights have no gradients.
    `device` as in training.nets.zoo.FeatureNet.

    Raises
    ------
    UserError
        If there is no such run, or its weights do not fit.
    """
    recipe = load_run(folder.require_run())
    model = build_model(recipe, device)
    initialize(model, recipe, contexts)
    load_weights(folder.weights, model.weights, contexts)
    freeze(model.net, contexts)
    for parameter in named_parameters({'graph': model.graph}).values():
        parameter.grad_req = 'null'
    model.classifier.hybridize(static_alloc=True, static_shape=True)
    return model, recipe


def pixel_classifier(
    folder: RunFolder, device: Optional[Device], contexts: list[Context], features: bool = False
) -> tuple[PixelClassifier, Recipe]:
    """All that a run says of pixels, on request with its features, and its recipe.

    Other parameters and errors are those of `restore_model`.
    """
    model, recipe = restore_model(folder, device, contexts)
    spread, _ = folder.read_calibration()
    block = PixelClassifier(normaliser(recipe, contexts), model.classifier, spread, features, prefix='')
    block.hybridize(static_alloc=True, static_shape=True)
    return block, recipe
