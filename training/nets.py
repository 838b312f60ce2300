"""Feature networks: LeNet++, and GluonCV's CIFAR nets rebuilt where the CPU would be slow.

The swaps below keep every parameter's name, shape and value, so weights move freely between the
stock net, the CPU and the GPU.
"""
import sys

from mxnet import init
from mxnet.gluon import HybridBlock, nn

from .runtime import UserError

STEM_CHANNELS = 16  # what oneDNN's blocked bfloat16 layout needs


class FeatureNet(HybridBlock):
    """A GluonCV CIFAR classifier as a map from images to features.

    Parameters
    ----------
    name : str
        Model name, such as 'cifar_resnet20_v1'.
    source : {'pool', 'output'}
        'pool' ends at the pooled features; 'output' keeps the output layer, as the published
        gluon_GMLoss does, and takes its outputs as features.
    output_size : int
        Width of the output layer.
    device : training.runtime.Device
        Decides which swaps pay.

    Inputs:
        - **x**: normalised images, shape (B, 3, 32, 32).

    Outputs:
        - **features**: shape (B, `feature_size`).
    """

    def __init__(self, name, source, output_size, device, **kwargs):
        super().__init__(**kwargs)
        if not name.startswith('cifar_'):
            raise UserError(f'--model {name}: expected a CIFAR model such as cifar_resnet20_v1')
        try:
            zoo = zoo_model(name, output_size)
        except ValueError:
            raise UserError(f"--model {name}: not in GluonCV's model zoo") from None
        self.features = zoo.features
        _replace_global_pool(self.features)
        if device.kind == 'cpu':
            _fuse_batch_norm_relu(self.features)
        if device.dtype == 'bfloat16':
            _pad_stem(self.features)
        self.output = _in_float32(zoo.output) if source == 'output' else None
        self.feature_size = output_size if source == 'output' else zoo.output._in_units

    def hybrid_forward(self, F, x):
        x = self.features(x)
        return self.output(x) if self.output is not None else x


def zoo_model(name, classes):
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
    return get_model(name, classes=classes)


class LeNetPlusPlus(HybridBlock):
    """The LeNet++ of the center-loss paper (Wen et al., ECCV 2016, table 1).

    Three blocks of two 5 x 5 convolutions (32, 64, 128 channels), each followed by
    LeakyReLU(0.01), a 2 x 2 max pool ending each block; a dense layer to the features, and one
    from these to the classes.

    Parameters
    ----------
    feature_size : int
        Width of the feature layer; 2 can be drawn.
    num_classes : int or None
        Width of the output layer; None leaves it out, and the net gives features alone.
    use_bias : bool
        Whether feature and output layer have biases; without, the classes lie on a ring.

    Inputs:
        - **x**: images, shape (B, 1, 28, 28), values 0 to 1.

    Outputs:
        - **features**: shape (B, feature_size).
        - **logits**: shape (B, num_classes), if there is an output layer.
    """

    def __init__(self, feature_size=2, num_classes=10, use_bias=True, **kwargs):
        super().__init__(**kwargs)
        self.feature_size = feature_size
        with self.name_scope():
            self.body = nn.HybridSequential()
            for channels in (32, 64, 128):
                for _ in range(2):
                    self.body.add(nn.Conv2D(channels, 5, padding=2), nn.LeakyReLU(0.01))
                self.body.add(nn.MaxPool2D(2))
            self.body.add(Float32Dense(feature_size, use_bias=use_bias, in_units=128 * 3 * 3))
            self.output = None if num_classes is None else Float32Dense(
                num_classes, use_bias=use_bias, in_units=feature_size)

    def hybrid_forward(self, F, x):
        features = self.body(x)
        return features if self.output is None else (features, self.output(features))


class SpatialMean(HybridBlock):
    """Global average pooling as a mean over the two spatial axes, (B, C, H, W) to (B, C).

    The same numbers as GlobalAvgPool2D; but that operator's backward leaves a memory layout in
    which oneDNN runs every BatchNorm of the last stage on its reference kernel.
    """

    def hybrid_forward(self, F, x):
        return F.mean(x, axis=(2, 3))


class Float32Dense(nn.Dense):
    """A dense layer that stays in float32 when the net runs in low precision.

    Features that are compared by distance, or that lie in two dimensions, would lose to rounding
    what tells the classes apart. mxnet's automatic low precision leaves `dot` alone.
    """

    def hybrid_forward(self, F, x, weight, bias=None):
        out = F.dot(F.cast(F.flatten(x), 'float32'), weight, transpose_b=True)
        return out if bias is None else F.broadcast_add(out, F.expand_dims(bias, axis=0))


class PaddedStem(nn.Conv2D):
    """A convolution of images whose few channels are padded with zeros inside the graph.

    oneDNN has no blocked bfloat16 kernel for three channels; the plain layout it falls back to
    would send the BatchNorm behind it to a slow kernel. The zeros add nothing to any sum.
    """

    def hybrid_forward(self, F, x, weight, bias=None):
        x, weight = (F.concat(a, *[F.zeros_like(a)] * (STEM_CHANNELS // 3), dim=1)
                     for a in (x, weight))
        x, weight = (F.slice_axis(a, axis=1, begin=0, end=STEM_CHANNELS) for a in (x, weight))
        return super().hybrid_forward(F, x, weight, bias)


def initializer(how):
    """The mxnet Initializer for 'xavier', 'xavier-2.24' (its magnitude) or 'msra'."""
    return {'xavier': init.Xavier(), 'xavier-2.24': init.Xavier(magnitude=2.24),
            'msra': init.MSRAPrelu()}[how]


def _in_float32(dense):
    return Float32Dense(dense._units, in_units=dense._in_units, use_bias=dense.bias is not None,
                        prefix=dense.prefix, params=dense.params)


def _replace_global_pool(features):
    for key, child in features._children.items():
        if isinstance(child, nn.GlobalAvgPool2D):
            features._children[key] = SpatialMean()


def _fuse_batch_norm_relu(block):
    children = list(block._children.items())
    for (key, child), (following, successor) in zip(children, children[1:] + [(None, None)]):
        if type(child) is nn.BatchNorm and isinstance(block, nn.HybridSequential) and \
                isinstance(successor, nn.Activation) and successor._act_type == 'relu':
            block._children[key] = nn.BatchNormReLU(
                momentum=child._kwargs['momentum'], epsilon=child._kwargs['eps'],
                in_channels=child.gamma.shape[0], prefix=child.prefix, params=child.params)
            del block._children[following]
        else:
            _fuse_batch_norm_relu(child)


def _pad_stem(features):
    for key, child in features._children.items():
        if type(child) is nn.Conv2D:
            kwargs = child._kwargs
            features._children[key] = PaddedStem(
                child._channels, kwargs['kernel'], kwargs['stride'], kwargs['pad'], in_channels=3,
                use_bias=child.bias is not None, prefix=child.prefix, params=child.params)
            return
