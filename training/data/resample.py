"""Crops, resizes and flips, with other numbers for each image of a batch.

They are separable, hence products with two small matrices per image.
"""

from typing import Any

import numpy as np
from mxnet.gluon import HybridBlock

SIZE = 32  # of CIFAR's images


def resample(F: Any, pixels: Any, draws: Any, index: Any, channels: int, reflect: bool = True) -> Any:
    """Bilinear samples of every image (B, channels, SIZE, SIZE) at a grid of its own.

    Along each axis, output i is read at ``clip(first + step * i, low, high)``, reflected at the image's
    edges, or 0 outside of them. Draws (B, 8) hold first, step, low and high for the rows, then for the
    columns; index is 0 .. SIZE - 1.
    """
    target, source = F.reshape(index, (1, -1)), F.reshape(index, (1, 1, -1))
    sampled = pixels
    for axis in (1, 0):  # columns, then rows; each pass transposes, so two restore the order
        first, step, low, high = (
            F.slice_axis(draws, axis=1, begin=4 * axis + i, end=4 * axis + i + 1) for i in range(4)
        )
        position = F.broadcast_add(first, F.broadcast_mul(step, target))
        position = F.broadcast_minimum(F.broadcast_maximum(position, low), high)
        if reflect:
            position = (SIZE - 1) - F.abs((SIZE - 1) - F.abs(position))
        weights = F.relu(1 - F.abs(F.broadcast_sub(F.expand_dims(position, axis=2), source)))
        rows = F.reshape(sampled, (0, channels * SIZE, SIZE))
        sampled = F.reshape(F.batch_dot(rows, weights, transpose_b=True), (0, channels, SIZE, SIZE))
        sampled = F.transpose(sampled, (0, 1, 3, 2))
    return sampled


def line(start: Any, length: Any, flip: Any, count: int) -> tuple[Any, Any]:
    """first and step of the `count` cell centres that divide [start, start + length) pixels.

    Where flip is 1 the line runs backwards.
    """
    step = length / count
    first = start + step / 2 - 0.5
    return first + flip * step * (count - 1), step * (1 - 2 * np.asarray(flip))


def columns(*values: Any) -> np.ndarray:
    """Values of shape (count,), or scalars, as the columns of one float32 array (count, K)."""
    return np.stack(np.broadcast_arrays(*values), axis=1).astype(np.float32)


class Downscale(HybridBlock):
    """Smaller images by area averaging.

    Parameters
    ----------
    size : int
        Height and width of the results.
    full_size : int, default SIZE
        Height and width of the images; no less.

    Inputs:
        - **images**: shape (B, channels, full_size, full_size).

    Outputs:
        - **averages**: shape (B, channels, size, size).
    """

    def __init__(self, size: int, full_size: int = SIZE, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        ends = np.linspace(0, full_size, size + 1)
        pixels = np.arange(full_size)[:, np.newaxis]
        overlap = np.minimum(ends[1:], pixels + 1) - np.maximum(ends[:-1], pixels)
        with self.name_scope():
            self.shares = self.params.get_constant('shares', np.maximum(overlap, 0) * size / full_size)

    def hybrid_forward(self, F: Any, images: Any, shares: Any) -> Any:
        for _ in range(2):  # columns, then rows; two transposes restore the order
            images = F.transpose(F.dot(images, shares), (0, 1, 3, 2))
        return images
