"""Stand-ins for stock layers that would be slow or imprecise here, or not follow the seed."""

from typing import Any

from mxnet.gluon import HybridBlock, nn

STEM_CHANNELS = 16  # what oneDNN's blocked bfloat16 layout needs


class SpatialMean(HybridBlock):
    """Global average pooling as a mean over the two spatial axes, (B, C, H, W) to (B, C).

    The same numbers as GlobalAvgPool2D; but that operator's backward leaves a memory layout in
    which oneDNN runs every BatchNorm of the last stage on its reference kernel.

    Parameters
    ----------
    keepdims : bool, default False
        Whether the result is (B, C, 1, 1), as that of GlobalAvgPool2D.
    """

    def __init__(self, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._keepdims = keepdims

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.mean(x, axis=(2, 3), keepdims=self._keepdims)


class Float32Dense(nn.Dense):
    """A dense layer that stays in float32 when the net runs in low precision.

    Features that are compared by distance, or that lie in two dimensions, would lose to rounding
    what tells the classes apart. mxnet's automatic low precision leaves `dot` alone.
    """

    def hybrid_forward(self, F: Any, x: Any, weight: Any, bias: Any = None) -> Any:
        out = F.dot(F.cast(F.flatten(x), 'float32'), weight, transpose_b=True)
        return out if bias is None else F.broadcast_add(out, F.expand_dims(bias, axis=0))


class SeededDropout(nn.Dropout):
    """Dropout whose masks follow mxnet's seed on every device.

    On a GPU the stock one leaves them to cuDNN, which draws from a seed of its own.
    """

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.Dropout(x, p=self._rate, axes=self._axes, cudnn_off=True) if self._rate else F.identity(x)


class ReLU6(HybridBlock):
    """min(max(x, 0), 6), the numbers of `clip`, whose kernels take four times as long on a CPU.

    `Activation` keeps oneDNN's layout, which `relu` would first undo.
    """

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F._internal._minimum_scalar(F.Activation(x, act_type='relu'), scalar=6)


class PaddedStem(nn.Conv2D):
    """A convolution of images whose few channels are padded with zeros inside the graph.

    oneDNN has no blocked bfloat16 kernel for three channels; the plain layout it falls back to
    would send the BatchNorm behind it to a slow kernel. The zeros add nothing to any sum.
    """

    def hybrid_forward(self, F: Any, x: Any, weight: Any, bias: Any = None) -> Any:
        x, weight = (F.concat(a, *[F.zeros_like(a)] * (STEM_CHANNELS // 3), dim=1) for a in (x, weight))
        x, weight = (F.slice_axis(a, axis=1, begin=0, end=STEM_CHANNELS) for a in (x, weight))
        return super().hybrid_forward(F, x, weight, bias)
