"""Which image sizes a net takes."""

from collections.abc import Iterable

import mxnet as mx
from mxnet import autograd
from mxnet.gluon import HybridBlock

from training.errors import UserError


def usual_size(name: str) -> int:
    """Height and width of the images that a model of the zoo was made for, but for those of CIFAR."""
    return 299 if name.startswith(('inception', 'xception', 'nasnet')) else 224


def output_shape(features: HybridBlock, name: str, shape: tuple[int, int, int]) -> tuple[int, ...]:
    """That of the features of one image, which some models leave to the first batch to show."""
    try:
        with autograd.train_mode():  # where the masks of ResNeSt's DropBlock have a fixed size
            symbol = features(mx.sym.var('data'))
        if isinstance(symbol, (list, tuple)):
            raise UserError(f'--model {name}: has auxiliary outputs, which this project does not train')
        _, outputs, _ = symbol.infer_shape(data=(1, *shape))
    except mx.MXNetError as error:
        raise UserError(
            f'--model {name}: cannot take images of {shape[1]} x {shape[2]} '
            f'({str(error).strip().splitlines()[-1]})'
        ) from None
    return outputs[0]


def require_sizes(net: HybridBlock, sizes: Iterable[int], usual: int) -> None:
    """Refuse image sizes at which a net has no output, or other parameters than at its usual size."""
    features = net.features(mx.sym.var('data'))

    def parameters(size: int) -> dict[str, tuple]:
        shapes, _, _ = features.infer_shape(data=(1, 3, size, size))
        return {name: shape for name, shape in zip(features.list_arguments(), shapes) if name != 'data'}

    wanted = parameters(usual)
    for size in sizes:
        try:
            fits = parameters(size) == wanted
        except mx.MXNetError:
            fits = False
        if not fits:
            raise UserError(
                f'--resolutions: this model cannot take images of {size} x {size}; use larger ones'
            )
