"""A run's backbone as a weights file of GluonCV's own, for its detectors and segmentation nets."""

import hashlib
from pathlib import Path
from typing import Any

from mxnet import init, nd

from training.config.schema import MnistRecipe
from training.errors import UserError
from training.nets import zoo
from training.runs.folder import RunFolder
from training.runs.weights import read_arrays, save_weights

CLASSES = 1000  # of GluonCV's classifiers, unless they are told
BODIES = 'net.features.', 'features.'  # where the weights of a run have the body


def write_backbone(folder: RunFolder, recipe: Any, shape: tuple[int, int, int], path: Path) -> str:
    """Write the body of a run's net under the names that GluonCV gives it; return its SHA-1.

    The file is that of a whole classifier of 1,000 classes, whose output layer is zero, so that
    `get_model` takes it without further options.

    Parameters
    ----------
    folder : training.runs.folder.RunFolder
    recipe : CifarRecipe or ImagesRecipe
    shape : (int, int, int)
        Of an image.
    path : Path

    Raises
    ------
    UserError
        If the net is none of GluonCV's.
    """
    if isinstance(recipe, MnistRecipe):
        raise UserError(f'--gluoncv: the LeNet++ of {folder.path} is no net of GluonCV')
    stock = zoo.zoo_model(recipe.model.model, CLASSES)
    stock.initialize(init.Zero())
    stock(nd.zeros((1, *shape)))
    arrays = read_arrays(folder.weights)
    body = {
        name[len(prefix) :]: array
        for prefix in BODIES
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    for name, parameter in stock._collect_params_with_prefix().items():
        array = body.get(name[len('features.') :] if name.startswith('features.') else name)
        if array is not None:
            parameter.set_data(array)
        elif not name.startswith(('output', 'fc')):
            raise UserError(
                f"--gluoncv: {folder.weights} lacks {name}; a net with changed shortcuts is none of GluonCV's"
            )
    save_weights(path, stock)
    return hashlib.sha1(path.read_bytes()).hexdigest()
