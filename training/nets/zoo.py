"""Feature networks from GluonCV's zoo, rebuilt where the CPU would be slow.

The swaps below keep every parameter's name, shape and value, so weights move freely between the
stock net, the CPU and the GPU.
"""

from collections.abc import Iterator
from typing import Any, Optional

import mxnet as mx
from mxnet import autograd, init
from mxnet.gluon import HybridBlock, nn

from training.config.schema import CifarModel
from training.data.datasets import IMAGE_SHAPES
from training.errors import UserError
from training.machine.devices import Device, hidden
from training.nets.layers import Float32Dense, SeededDropout, SpatialMean
from training.nets.rewrite import fuse_batch_norm_relu, pad_stem, replace, set_child

# Modules of GluonCV's zoo whose models do something other than classify images.
OTHER_TASKS = {
    'unknown',
    'action_recognition',
    'alpha_pose',
    'center_net',
    'danet',
    'deeplabv3',
    'deeplabv3b_plus',
    'fastscnn',
    'fcn',
    'icnet',
    'monodepthv2',
    'pspnet',
    'quantized',
    'rcnn',
    'siamrpn',
    'simple_pose',
    'ssd',
    'yolo3',
}


class NoClassifier(Exception):
    """GluonCV's zoo has no image classifier of this name."""


class FeatureNet(HybridBlock):
    """A GluonCV image classifier as a map from images to features.

    Parameters
    ----------
    model : training.config.schema.CifarModel
        Its `model` names the classifier, such as 'cifar_resnet20_v1' or 'resnet50_v1d'. `features`
        'pool' ends at the pooled features; 'output' keeps an output layer of `feature_size`, as the
        published gluon_GMLoss does, and takes its outputs as features.
    device : training.machine.devices.Device or None
        Decides which swaps pay; None makes only those that are made everywhere.
    num_classes : int or None
        If given, the net ends at the pooled features and has an output layer of this width on them.

    Inputs:
        - **x**: normalised images, shape (B, 3, 32, 32).

    Outputs:
        - **features**: shape (B, `feature_size`), float32 where they come from an output layer.
        - **logits**: float32, shape (B, `num_classes`), if there are classes.

    Raises
    ------
    UserError
        If the zoo has no such model, the model no such part, or the images are too small for it.
    """

    def __init__(
        self, model: CifarModel, device: Optional[Device], num_classes: Optional[int] = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        try:
            zoo = zoo_model(model.model, num_classes or model.feature_size)
        except ImportError as error:
            raise UserError(f'GluonCV cannot be imported: {error}') from None
        except NoClassifier:
            raise UserError(f"--model {model.model}: no image classifier of GluonCV's model zoo") from None
        self.features, dense = _split(zoo, model.model)
        if model.zero_gamma:
            _zero_last_gammas(self.features, model.model)
        if model.shortcut == 'pool':
            _pool_shortcuts(self.features, model.model)
        replace(self.features, nn.GlobalAvgPool2D, lambda _: SpatialMean())
        replace(self.features, nn.Dropout, lambda stock: SeededDropout(stock._rate, stock._axes))
        if device is not None and device.kind == 'cpu':
            fuse_batch_norm_relu(self.features)
        if device is not None and device.dtype == 'bfloat16':
            pad_stem(self.features)
        shape = _output_shape(self.features, model.model)
        if len(shape) == 4:  # Darknet pools after its features
            self.features.add(SpatialMean())
        width = shape[1]
        self.output = None
        if num_classes or model.features == 'output':
            self.output = Float32Dense(
                num_classes or model.feature_size,
                in_units=width,
                use_bias=dense.bias is not None,
                prefix=dense.prefix,
                params=dense.params,
            )
        self._classifies = num_classes is not None
        self.feature_size = width if self._classifies or self.output is None else model.feature_size

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.features(x)
        if self._classifies:
            return x, self.output(x)
        return x if self.output is None else self.output(x)


def zoo_model(name: str, classes: int, **settings: Any) -> HybridBlock:
    """A model of GluonCV's zoo, not initialised; NoClassifier where the zoo has no such classifier.

    GluonCV refuses to be imported beside a PyTorch of today, so PyTorch is hidden from it.
    """
    with hidden('torch'):
        from gluoncv.model_zoo import model_zoo
    module = getattr(model_zoo._models.get(name.lower()), '__module__', 'unknown').split('.')
    if name.endswith('_s') or not OTHER_TASKS.isdisjoint(module):  # HRNet's _s label pixels
        raise NoClassifier(name)
    return model_zoo.get_model(name, classes=classes, **settings)


def initializer(how: str) -> init.Initializer:
    """The mxnet Initializer for the name in a recipe: 2.24 is Xavier's magnitude."""
    return {
        'xavier': init.Xavier(),
        'xavier-2.24': init.Xavier(magnitude=2.24),
        'msra': init.MSRAPrelu(),
        'caffe-msra': init.MSRAPrelu('in', slope=0),  # normal, of variance 2 / inputs
    }[how]


def _split(zoo: HybridBlock, name: str) -> tuple[HybridBlock, nn.Dense]:
    """A zoo model's features, a block, and its dense output layer, no longer a part of them."""
    for attribute in ('output', 'fc'):
        dense = getattr(zoo, attribute, None)
        if isinstance(dense, nn.Dense):
            if isinstance(getattr(zoo, 'features', None), nn.HybridSequential):
                return zoo.features, dense
            set_child(zoo, attribute, nn.HybridLambda('identity'))
            return zoo, dense
    raise UserError(f'--model {name}: has no dense output layer, so no features to take')


def _output_shape(features: HybridBlock, name: str) -> tuple[int, ...]:
    """That of the features of one image, which some models leave to the first batch to show."""
    shape = IMAGE_SHAPES['cifar10']
    try:
        with autograd.train_mode():  # where the masks of ResNeSt's DropBlock have a fixed size
            _, outputs, _ = features(mx.sym.var('data')).infer_shape(data=(1, *shape))
    except mx.MXNetError as error:
        raise UserError(
            f'--model {name}: cannot take images of {shape[1]} x {shape[2]} '
            f'({str(error).strip().splitlines()[-1]})'
        ) from None
    return outputs[0]


def _residual_blocks(block: HybridBlock) -> Iterator[HybridBlock]:
    """All blocks below `block` that add a shortcut."""
    for child in block._children.values():
        if hasattr(child, 'downsample'):
            yield child
        else:
            yield from _residual_blocks(child)


def _zero_last_gammas(features: HybridBlock, name: str) -> None:
    """Zero gamma in each residual block's last BatchNorm (He et al., arXiv 1812.01187, 3.1)."""
    found = False
    for residual in _residual_blocks(features):
        convolutions_then_norms = list(getattr(residual, 'body', residual)._children.values())
        norms = [child for child in convolutions_then_norms if isinstance(child, nn.BatchNorm)]
        if norms and not isinstance(convolutions_then_norms[0], nn.BatchNorm):  # else v2
            norms[-1].gamma.init = init.Zero()
            found = True
    if not found:
        raise UserError(f'--zero-gamma: {name} has no residual block that ends in a BatchNorm')


def _pool_shortcuts(features: HybridBlock, name: str) -> None:
    """ResNet-D: average in the shortcut before its 1 x 1 convolution, which then skips nothing."""
    found = False
    for residual in _residual_blocks(features):
        shortcut = residual.downsample
        convolution, *rest = (
            shortcut._children.values() if isinstance(shortcut, nn.HybridSequential) else [shortcut]
        )  # v2's is bare
        if isinstance(convolution, nn.Conv2D) and convolution._kwargs['stride'] == (2, 2):
            convolution._kwargs['stride'] = (1, 1)
            pooled = nn.HybridSequential(prefix='')
            pooled.add(nn.AvgPool2D(2, 2, ceil_mode=True), convolution, *rest)
            set_child(residual, 'downsample', pooled)
            found = True
    if not found:
        raise UserError(
            f'--shortcut pool: {name} has no strided 1 x 1 convolution in a shortcut; use --shortcut conv'
        )
