"""LeNet++, the net of the two-dimensional features."""

from typing import Any, Optional

from mxnet.gluon import HybridBlock, nn

from training.nets.layers import Float32Dense


class LeNetPlusPlus(HybridBlock):
    """The LeNet++ of the center-loss paper (Wen et al., ECCV 2016, table 1).

    Three blocks of two 5 x 5 convolutions (32, 64, 128 channels), each followed by
    LeakyReLU(0.01) as in Center_Loss_in_MXNet (the paper has PReLU), a 2 x 2 max pool ending each
    block; a dense layer to the features, and one from these to the classes.

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

    def __init__(
        self, feature_size: int = 2, num_classes: Optional[int] = 10, use_bias: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.feature_size = feature_size
        with self.name_scope():
            self.body = nn.HybridSequential()
            for channels in (32, 64, 128):
                for _ in range(2):
                    self.body.add(nn.Conv2D(channels, 5, padding=2), nn.LeakyReLU(0.01))
                self.body.add(nn.MaxPool2D(2))
            self.body.add(Float32Dense(feature_size, use_bias=use_bias, in_units=128 * 3 * 3))
            self.output = (
                None
                if num_classes is None
                else Float32Dense(num_classes, use_bias=use_bias, in_units=feature_size)
            )

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        features = self.body(x)
        return features if self.output is None else (features, self.output(features))
