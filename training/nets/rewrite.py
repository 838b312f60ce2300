"""Rebuild nets where the CPU would be slow, and freeze them for inference.

The swaps keep every parameter's name, shape and value, so weights move freely between the stock
net, the CPU and the GPU.
"""

import copy
import warnings
from typing import Callable

import mxnet as mx
from mxnet.context import Context
from mxnet.gluon import Block, HybridBlock, SymbolBlock, nn

from training.data.datasets import IMAGE_SHAPES
from training.nets.layers import PaddedStem

NORMS = nn.BatchNorm, nn.BatchNormReLU


def freeze(block: Block, contexts: list[Context]) -> None:
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
        if (
            isinstance(block, nn.HybridSequential)
            and isinstance(child, nn.Conv2D)
            and child.act is None
            and isinstance(norm, NORMS)
        ):
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


def for_inference(net: HybridBlock, contexts: list[Context]) -> SymbolBlock:
    """A frozen copy of a net that computes in float32, whatever precision mxnet is set to.

    Parameters
    ----------
    net : HybridBlock
        One input, one output; initialised. Compiled anew when it is used next.
    contexts : list of Context
        Where its parameters are.

    Returns
    -------
    SymbolBlock
        From the same inputs to the same outputs.
    """
    net.hybridize(False)  # what is compiled cannot be copied,
    net.apply(_forget_outer_block)  # nor what was compiled around the net
    left_out = {id(parameter._trainer): None for parameter in net.collect_params().values()}
    twin = copy.deepcopy(net, left_out)
    net.hybridize(static_alloc=True)
    freeze(twin, contexts)
    inputs = mx.sym.var('data')
    symbol = mx.sym.load_json(twin(inputs).tojson())  # which leaves out the casts to low precision
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the input's type, which is not known yet
        block = SymbolBlock(symbol, inputs, twin.collect_params())
    block.hybridize(static_alloc=True)
    return block


def _forget_outer_block(block: Block) -> None:
    """Drop Gluon's note of the block in whose name scope this one was made; nothing reads it again."""
    block._scope._old_scope = None


def _merged(convolution: nn.Conv2D, norm: nn.BatchNorm, contexts: list[Context]) -> nn.Conv2D:
    """The convolution with the BatchNorm's scale in its kernels and its shift in the bias."""
    kernels, gamma, beta, mean, variance = (
        parameter.list_data()[0]
        for parameter in (convolution.weight, norm.gamma, norm.beta, norm.running_mean, norm.running_var)
    )
    bias = 0 if convolution.bias is None else convolution.bias.list_data()[0]
    kwargs = convolution._kwargs
    scale = gamma / (variance + norm._kwargs['eps']).sqrt()
    merged = type(convolution)(
        convolution._channels,
        kwargs['kernel'],
        kwargs['stride'],
        kwargs['pad'],
        kwargs['dilate'],
        kwargs['num_group'],
        in_channels=kernels.shape[1] * kwargs['num_group'],
    )
    merged.initialize(ctx=contexts)
    merged.weight.set_data(kernels * scale.reshape((-1, 1, 1, 1)))
    merged.bias.set_data(beta + (bias - mean) * scale)
    return merged


def set_child(block: Block, name: str, child: Block) -> None:
    """Replace a child; Gluon's own assignment allows no other type."""
    block._children[name] = child
    if name in block.__dict__:
        object.__setattr__(block, name, child)


def replace(block: Block, kind: type, replacement: Callable[[Block], Block]) -> None:
    for name, child in block._children.items():
        if isinstance(child, kind):
            set_child(block, name, replacement(child))
        else:
            replace(child, kind, replacement)


def fuse_batch_norm_relu(block: Block) -> None:
    children = [(None, None), *block._children.items(), (None, None), (None, None)]
    for (_, before), (key, child), (following, successor), (_, after) in zip(
        children, children[1:], children[2:], children[3:]
    ):
        if (
            type(child) is nn.BatchNorm
            and isinstance(block, nn.HybridSequential)
            and isinstance(successor, nn.Activation)
            and successor._act_type == 'relu'
            and not (_is_grouped(before) or _is_grouped(after))
        ):
            block._children[key] = nn.BatchNormReLU(
                momentum=child._kwargs['momentum'],
                epsilon=child._kwargs['eps'],
                in_channels=(child.gamma.shape or [0])[0],
                prefix=child.prefix,
                params=child.params,
            )
            del block._children[following]
        else:
            fuse_batch_norm_relu(child)


def _is_grouped(block: Block) -> bool:
    """Whether it is a convolution whose gradients oneDNN lays out as the fused operator cannot read."""
    return isinstance(block, nn.Conv2D) and 1 < block._kwargs['num_group'] < block._channels


def pad_stem(block: Block) -> bool:
    """Swap the first convolution below `block`; true if there was one."""
    for name, child in block._children.items():
        if type(child) is nn.Conv2D:
            kwargs = child._kwargs
            set_child(
                block,
                name,
                PaddedStem(
                    child._channels,
                    kwargs['kernel'],
                    kwargs['stride'],
                    kwargs['pad'],
                    in_channels=IMAGE_SHAPES['cifar10'][0],
                    use_bias=child.bias is not None,
                    prefix=child.prefix,
                    params=child.params,
                ),
            )
            return True
        if pad_stem(child):
            return True
    return False
