"""Feature networks from GluonCV's zoo, rebuilt where the CPU would be slow.

The swaps below keep every parameter's name, shape and value, so weights move freely between the
stock net, the CPU and the GPU.
"""

from collections.abc import Iterator
from typing import Any, Optional

from mxnet import init
from mxnet.gluon import HybridBlock, nn

from training.config.inputs import ZooModel
from training.data.datasets import IMAGE_SHAPES
from training.errors import UserError
from training.machine.devices import Device, hidden
from training.nets.layers import Float32Dense, ReLU6, SeededDropout, SpatialMean
from training.nets.rewrite import NORMS, fuse_batch_norm_relu, pad_stem, replace, set_child
from training.nets.sizes import output_shape

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
EMBEDDED_NORM = 10.0  # of the features that an embedding takes, on average
LAST_MAP = 7  # height and width of the last feature map at the usual image size, at least


class NoClassifier(Exception):
    """GluonCV's zoo has no image classifier of this name."""


class FeatureNet(HybridBlock):
    """A GluonCV image classifier as a map from images to features.

    Parameters
    ----------
    model : training.config.inputs.ZooModel
        Its `model` names the classifier, such as 'cifar_resnet20_v1' or 'resnet50_v1d'.
    device : training.machine.devices.Device or None
        Decides which swaps pay; None makes only those that are made everywhere.
    num_classes : int or None
        If given, the net has an output layer of this width on its features.
    shape : (int, int, int)
        Of an image: 3, height, width.

    Inputs:
        - **x**: normalised images, shape (B, 3, height, width).

    Outputs:
        - **features**: shape (B, `feature_size`), float32 where they come from an output layer or an
          embedding.
        - **logits**: float32, shape (B, `num_classes`), if there are classes.

    Raises
    ------
    UserError
        If the zoo has no such model, the model no such part, or the images are too small for it.
    """

    def __init__(
        self,
        model: ZooModel,
        device: Optional[Device],
        num_classes: Optional[int] = None,
        shape: tuple[int, int, int] = IMAGE_SHAPES['cifar10'],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        outputs = num_classes or model.output_size
        try:
            sized = {'input_size': shape[1]} if model.model.startswith('resnest') else {}  # of its DropBlock
            zoo = zoo_model(model.model, outputs or 1, **sized)
        except ImportError as error:
            raise UserError(f'GluonCV cannot be imported: {error}') from None
        except NoClassifier:
            raise UserError(f"--model {model.model}: no image classifier of GluonCV's model zoo") from None
        self.features, dense = _split(zoo, model.model)
        if model.zero_gamma:
            _zero_last_gammas(self.features, model.model)
        if model.shortcut == 'pool':
            _pool_shortcuts(self.features, model.model)
        replace(self.features, nn.GlobalAvgPool2D, lambda _: SpatialMean(keepdims=True))
        replace(self.features, nn.AvgPool2D, _global_where_large)
        replace(self.features, nn.Dropout, lambda stock: SeededDropout(stock._rate, stock._axes))
        replace(self.features, _stock_relu6(), lambda _: ReLU6())
        if device is not None and device.kind == 'cpu':
            fuse_batch_norm_relu(self.features)
        if device is not None and device.dtype == 'bfloat16':
            pad_stem(self.features)
        self._frozen = model.freeze_backbone
        for parameter in self.features.collect_params().values():
            parameter.lr_mult = model.backbone_lr_mult
        if self._frozen:
            self.features.apply(_keep_statistics)
            self.features.collect_params().setattr('grad_req', 'null')
        inferred = output_shape(self.features, model.model, shape)
        self._pools = len(inferred) == 4
        self.feature_size = inferred[1]
        self.norm = self.embedding = self.output = None
        if model.embedding_size:
            # Pooled features of nets differ in scale, and so would the learning rates that this bears.
            self.norm = nn.BatchNorm(scale=False, center=False, in_channels=self.feature_size)
            self._scale = EMBEDDED_NORM / self.feature_size**0.5
            self.embedding = Float32Dense(model.embedding_size, in_units=self.feature_size)
            self.feature_size = model.embedding_size
        if outputs:
            own = {'use_bias': True}
            if dense is not None and self.embedding is None:
                own = {'use_bias': dense.bias is not None, 'prefix': dense.prefix, 'params': dense.params}
            self.output = Float32Dense(outputs, in_units=self.feature_size, **own)
        self._classifies = num_classes is not None
        if self.output is not None and not self._classifies:
            self.feature_size = outputs

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.features(x)
        if self._frozen:
            x = F.stop_gradient(x)
        if self._pools:
            x = F.mean(x, axis=(2, 3))
        if self.embedding is not None:
            x = self.embedding(self.norm(x) * self._scale)
        if self._classifies:
            return x, self.output(x)
        return x if self.output is None else self.output(x)


def zoo_model(name: str, classes: int, pretrained: Any = False, **settings: Any) -> HybridBlock:
    """A model of GluonCV's zoo, not initialised; NoClassifier where the zoo has no such classifier.

    GluonCV refuses to be imported beside a PyTorch of today, so PyTorch is hidden from it.
    """
    with hidden('torch'):
        from gluoncv.model_zoo import model_zoo
    module = getattr(model_zoo._models.get(name.lower()), '__module__', 'unknown').split('.')
    if name.endswith('_s') or not OTHER_TASKS.isdisjoint(module):  # HRNet's _s label pixels
        raise NoClassifier(name)
    return model_zoo.get_model(name, classes=classes, pretrained=pretrained, **settings)


def pretrained_model(option: str, name: str, classes: int, **settings: Any) -> HybridBlock:
    """A model of GluonCV's zoo with the weights it publishes, which are downloaded once and verified.

    Raises
    ------
    UserError
        About `option`, if there are none of this name, or for this number of classes.
    """
    try:
        net = zoo_model(name, classes, pretrained=True, **settings)
        if any(parameter._data is None for parameter in net.collect_params().values()):
            raise ValueError('GluonCV publishes none')  # of ShuffleNet, whatever it is asked for
        return net
    except NoClassifier:
        raise UserError(f"{option}: neither a run folder nor a classifier of GluonCV's zoo") from None
    except AssertionError:  # of Gluon, on loading an output layer of another size
        raise UserError(f'{option}: the pretrained weights of {name} are not for {classes} classes') from None
    except (OSError, ValueError, RuntimeError) as error:  # no network; none published
        why = ' '.join(str(error).split())
        raise UserError(f'{option}: the pretrained weights of {name} cannot be fetched: {why}') from None


def initializer(how: str) -> init.Initializer:
    """The mxnet Initializer for the name in a recipe: 2.24 is Xavier's magnitude."""
    return {
        'xavier': init.Xavier(),
        'xavier-2.24': init.Xavier(magnitude=2.24),
        'msra': init.MSRAPrelu(),
        'caffe-msra': init.MSRAPrelu('in', slope=0),  # normal, of variance 2 / inputs
    }[how]


def _split(zoo: HybridBlock, name: str) -> tuple[HybridBlock, Optional[nn.Dense]]:
    """A zoo model's features, a block, and its dense output layer, no longer a part of them.

    Where the output is not dense but a convolution and what follows it, the layer is None.
    """
    for attribute in ('output', 'fc'):
        output = getattr(zoo, attribute, None)
        dense = output if isinstance(output, nn.Dense) else None
        if isinstance(output, (nn.Dense, nn.HybridSequential)):
            if isinstance(getattr(zoo, 'features', None), nn.HybridSequential):
                return zoo.features, dense
            _take_out(zoo, output)
            return zoo, dense
    dense = list(_dense_layers(zoo))
    if not dense:
        raise UserError(f'--model {name}: has no dense output layer, so no features to take')
    _take_out(zoo, dense[-1])
    return zoo, dense[-1]


def _dense_layers(block: HybridBlock) -> Iterator[nn.Dense]:
    for child in block._children.values():
        if isinstance(child, nn.Dense):
            yield child
        else:
            yield from _dense_layers(child)


def _take_out(block: HybridBlock, part: HybridBlock) -> None:
    """Replace a part, wherever it is below a block, by nothing."""
    for name, child in block._children.items():
        if child is part:
            set_child(block, name, nn.HybridLambda('identity'))
        else:
            _take_out(child, part)


def _global_where_large(pool: nn.AvgPool2D) -> HybridBlock:
    """A pool over all of a usual image's last feature map, for images of any size."""
    return SpatialMean(keepdims=True) if min(pool._kwargs['kernel']) >= LAST_MAP else pool


def _stock_relu6() -> type:
    from gluoncv.nn.block import ReLU6  # which zoo_model has made importable

    return ReLU6


def _keep_statistics(block: HybridBlock) -> None:
    if isinstance(block, NORMS):
        block._kwargs['use_global_stats'] = True


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
