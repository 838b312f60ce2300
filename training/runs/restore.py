"""From a run folder to its net, for inference."""

from training import model
from training.config import recipe as recipes
from training.losses.classifiers import PixelClassifier
from training.nets.rewrite import freeze
from training.runs.weights import load_weights, named_parameters


def load(folder, device, contexts):
    """The graph of a run, with its weights (see RunFolder.weights).

    It is for inference: frozen as by training.nets.rewrite.freeze, and its weights have no gradients.

    Parameters
    ----------
    folder : training.runs.folder.RunFolder
    device : training.machine.devices.Device or None
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
    graph = model.build(recipe, device)
    model.initialize(graph, recipe, contexts)
    load_weights(folder.weights, graph.weights, contexts)
    freeze(graph.net, contexts)
    for parameter in named_parameters({'graph': graph}).values():
        parameter.grad_req = 'null'
    graph.classifier.hybridize(static_alloc=True, static_shape=True)
    return graph, recipe


def pixel_classifier(folder, device, contexts):
    """(training.losses.classifiers.PixelClassifier, recipe) of a run; parameters and errors as of `load`."""
    graph, recipe = load(folder, device, contexts)
    spread, _ = folder.read_calibration()
    block = PixelClassifier(model.normaliser(recipe, contexts), graph.classifier, spread, prefix='')
    block.hybridize(static_alloc=True, static_shape=True)
    return block, recipe
