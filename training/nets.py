"""Feature networks from GluonCV's zoo, rebuilt where the CPU would be slow.

The swaps below keep every parameter's name, shape and value, so weights move freely between the
stock net, the CPU and the GPU.
"""
import sys

import mxnet as mx
from mxnet import autograd, init
from mxnet.gluon import HybridBlock, nn

from .data import IMAGE_SHAPES
from .layers import Float32Dense, PaddedStem, SeededDropout, SpatialMean
from .runtime import UserError

NORMS = nn.BatchNorm, nn.BatchNormReLU


class FeatureNet(HybridBlock):
    """A GluonCV image classifier as a map from images to features.

    Parameters
    ----------
    model : training.fields.CifarModel
        Its `model` names the classifier, such as 'cifar_resnet20_v1' or 'resnet50_v1d'. `features`
        'pool' ends at the pooled features; 'output' keeps an output layer of `feature_size`, as the
        published gluon_GMLoss does, and takes its outputs as features.
    device : training.runtime.Device or None
        Decides which swaps pay; None makes only those that are made everywhere.

    Inputs:
        - **x**: normalised images, shape (B, 3, 32, 32).

    Outputs:
        - **features**: shape (B, `feature_size`), float32 where they come from an output layer.

    Raises
    ------
    UserError
        If the zoo has no such model, the model no such part, or the images are too small for it.
    """

    def __init__(self, model, device, **kwargs):
        super().__init__(**kwargs)
        try:
            zoo = zoo_model(model.model, model.feature_size)
        except ImportError as error:
            raise UserError(f'GluonCV cannot be imported: {error}') from None
        except Exception:  # each kind of model that does not classify fails in its own way
            raise UserError(f"--model {model.model}: no image classifier of GluonCV's model zoo") \
                from None
        self.features, dense = _split(zoo, model.model)
        if model.zero_gamma:
            _zero_last_gammas(self.features, model.model)
        if model.shortcut == 'pool':
            _pool_shortcuts(self.features, model.model)
        _replace(self.features, nn.GlobalAvgPool2D, lambda _: SpatialMean())
        _replace(self.features, nn.Dropout, lambda stock: SeededDropout(stock._rate, stock._axes))
        if device is not None and device.kind == 'cpu':
            _fuse_batch_norm_relu(self.features)
        if device is not None and device.dtype == 'bfloat16':
            _pad_stem(self.features)
        shape = _output_shape(self.features, model.model)
        if len(shape) == 4:  # Darknet pools after its features
            self.features.add(SpatialMean())
        width = shape[1]
        self.output = None if model.features == 'pool' else Float32Dense(
            model.feature_size, in_units=width, use_bias=dense.bias is not None,
            prefix=dense.prefix, params=dense.params)
        self.feature_size = model.feature_size if self.output is not None else width

    def hybrid_forward(self, F, x):
        x = self.features(x)
        return self.output(x) if self.output is not None else x


def zoo_model(name, classes, **settings):
    """A model of GluonCV's zoo, not initialised; ValueError for an unknown name.

    GluonCV refuses to be imported beside a PyTorch of today, so PyTorch is hidden from it.
    """
    kept = sys.modules.get('torch')
    sys.modules['torch'] = None
    try:
        from gluoncv.model_zoo import get_model
    finally:
        del sys.modules['torch']
        if kept is not None:
            sys.modules['torch'] = kept
    return get_model(name, classes=classes, **settings)


def initializer(how):
    """The mxnet Initializer for 'xavier', 'xavier-2.24' (its magnitude) or 'msra'."""
    return {'xavier': init.Xavier(), 'xavier-2.24': init.Xavier(magnitude=2.24),
            'msra': init.MSRAPrelu()}[how]


def freeze(block, contexts):
    """Make a net give in training mode what it gives in inference, and both faster.

    BatchNorms that follow a convolution are merged into it, others keep to their running
    statistics, and nothing is dropped out. (Gradients must be taken in training mode: mxnet 1.9's
    oneDNN operators keep too little for them in inference, and give wrong ones.)

    Parameters
    ----------
    block : Block
        Initialised; changed in place.
    contexts : list of Context
        Where its parameters are.
    """
    children = list(block._children.items())
    for (name, child), (following, norm) in zip(children, children[1:] + [(None, None)]):
        if isinstance(block, nn.HybridSequential) and isinstance(child, nn.Conv2D) and \
                child.act is None and isinstance(norm, NORMS):
            block._children[name] = _merged(child, norm, contexts)
            if isinstance(norm, nn.BatchNormReLU):
                block._children[following] = nn.Activation('relu')
            else:
                del block._children[following]
        elif name in block._children:
            freeze(child, contexts)
    if isinstance(block, NORMS):
        block._kwargs['use_global_stats'] = True
    elif isinstance(block, nn.Dropout):
        block._rate = 0


def _merged(convolution, norm, contexts):
    """The convolution with the BatchNorm's scale in its kernels and its shift in the bias."""
    kernels, gamma, beta, mean, variance = (parameter.list_data()[0] for parameter in (
        convolution.weight, norm.gamma, norm.beta, norm.running_mean, norm.running_var))
    bias = 0 if convolution.bias is None else convolution.bias.list_data()[0]
    kwargs = convolution._kwargs
    scale = gamma / (variance + norm._kwargs['eps']).sqrt()
    merged = type(convolution)(
        convolution._channels, kwargs['kernel'], kwargs['stride'], kwargs['pad'],
        kwargs['dilate'], kwargs['num_group'],
        in_channels=kernels.shape[1] * kwargs['num_group'])
    merged.initialize(ctx=contexts)
    merged.weight.set_data(kernels * scale.reshape((-1, 1, 1, 1)))
    merged.bias.set_data(beta + (bias - mean) * scale)
    return merged


def _split(zoo, name):
    """A zoo model's features, a block, and its dense output layer, no longer a part of them."""
    for attribute in ('output', 'fc'):
        dense = getattr(zoo, attribute, None)
        if isinstance(dense, nn.Dense):
            if isinstance(getattr(zoo, 'features', None), nn.HybridSequential):
                return zoo.features, dense
            _set_child(zoo, attribute, nn.HybridLambda('identity'))
            return zoo, dense
    raise UserError(f'--model {name}: has no dense output layer, so no features to take')


def _output_shape(features, name):
    """That of the features of one image, which some models leave to the first batch to show."""
    shape = IMAGE_SHAPES['cifar10']
    try:
        with autograd.train_mode():  # where the masks of ResNeSt's DropBlock have a fixed size
            _, outputs, _ = features(mx.sym.var('data')).infer_shape(data=(1, *shape))
    except mx.MXNetError as error:
        raise UserError(f'--model {name}: cannot take images of {shape[1]} x {shape[2]} '
                        f'({str(error).strip().splitlines()[-1]})') from None
    return outputs[0]


def _set_child(block, name, child):
    """Replace a child; Gluon's own assignment allows no other type."""
    block._children[name] = child
    if name in block.__dict__:
        object.__setattr__(block, name, child)


def _replace(block, kind, replacement):
    for name, child in block._children.items():
        if isinstance(child, kind):
            _set_child(block, name, replacement(child))
        else:
            _replace(child, kind, replacement)


def _residual_blocks(block):
    """All blocks below `block` that add a shortcut."""
    for child in block._children.values():
        if hasattr(child, 'downsample'):
            yield child
        else:
            yield from _residual_blocks(child)


def _zero_last_gammas(features, name):
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


def _pool_shortcuts(features, name):
    """ResNet-D: average in the shortcut before its 1 x 1 convolution, which then skips nothing."""
    found = False
    for residual in _residual_blocks(features):
        shortcut = residual.downsample
        convolution, *rest = shortcut._children.values() \
            if isinstance(shortcut, nn.HybridSequential) else [shortcut]  # v2's is bare
        if isinstance(convolution, nn.Conv2D) and convolution._kwargs['stride'] == (2, 2):
            convolution._kwargs['stride'] = (1, 1)
            pooled = nn.HybridSequential(prefix='')
            pooled.add(nn.AvgPool2D(2, 2, ceil_mode=True), convolution, *rest)
            _set_child(residual, 'downsample', pooled)
            found = True
    if not found:
        raise UserError(f'--shortcut pool: {name} has no strided 1 x 1 convolution in a shortcut; use '
                        '--shortcut conv')


def _fuse_batch_norm_relu(block):
    children = [(None, None), *block._children.items(), (None, None), (None, None)]
    for (_, before), (key, child), (following, successor), (_, after) in zip(
            children, children[1:], children[2:], children[3:]):
        if type(child) is nn.BatchNorm and isinstance(block, nn.HybridSequential) and \
                isinstance(successor, nn.Activation) and successor._act_type == 'relu' and \
                not (_is_grouped(before) or _is_grouped(after)):
            block._children[key] = nn.BatchNormReLU(
                momentum=child._kwargs['momentum'], epsilon=child._kwargs['eps'],
                in_channels=(child.gamma.shape or [0])[0], prefix=child.prefix,
                params=child.params)
            del block._children[following]
        else:
            _fuse_batch_norm_relu(child)


def _is_grouped(block):
    """Whether it is a convolution whose gradients oneDNN lays out as the fused operator cannot read."""
    return isinstance(block, nn.Conv2D) and 1 < block._kwargs['num_group'] < block._channels


def _pad_stem(block):
    """Swap the first convolution below `block`; true if there was one."""
    for name, child in block._children.items():
        if type(child) is nn.Conv2D:
            kwargs = child._kwargs
            _set_child(block, name, PaddedStem(
                child._channels, kwargs['kernel'], kwargs['stride'], kwargs['pad'],
                in_channels=IMAGE_SHAPES['cifar10'][0], use_bias=child.bias is not None,
                prefix=child.prefix, params=child.params))
            return True
        if _pad_stem(child):
            return True
    return False
