"""Images and labels mixed in pairs."""

from typing import Any

from mxnet.gluon import HybridBlock


class Mixup(HybridBlock):
    """Mixes each image of a batch with another one; see `mix`.

    Inputs:
        - **images**: shape (B, channels, H, W).
        - **weight**: shape (1,), drawn from Beta(a, a) for each batch.

    Outputs:
        - **mixed**: same shape as images.
    """

    def hybrid_forward(self, F: Any, images: Any, weight: Any) -> Any:
        return mix(F, images, F.reshape(weight, (1, 1, 1, 1)))


def mix(F: Any, x: Any, weight: Any) -> Any:
    """weight * x_i + (1 - weight) * x_(B-1-i), for images or for labels as distributions.

    Batches come in random order, so the one from the other end is a random one. Source: Zhang et
    al., "mixup" (ICLR 2018), as in He et al., arXiv 1812.01187, section 5.4.
    """
    other = F.reverse(x, axis=0)
    return other + F.broadcast_mul(x - other, weight)
