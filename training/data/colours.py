"""Colours of an image: random changes of them, and their normalisation. Knows nothing of mxnet."""

from random import Random
from typing import Any

import cv2
import numpy as np

GRAY = np.array([0.299, 0.587, 0.114])
BRIGHTNESS, CONTRAST, SATURATION = range(3)
# Principal axes of ImageNet's colours, scaled by their standard deviations (rows: R, G, B), as in
# Krizhevsky et al. (2012) and in mxnet's random_lighting; in units of 0 to 255.
LIGHTING = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
) * np.array([55.46, 4.794, 1.148])
LEVELS = 256


class Colours:
    """Colour jitter and lighting noise as one affine map of an image's colours, and normalisation.

    Values are clipped once, at the end, and not after each change as mxnet's transforms do. OpenCV rounds
    factors to 10 bits, which moves a value by less than 1 of 255 levels.

    Parameters
    ----------
    jitter : float
        Brightness, contrast and saturation are scaled by factors in [1 - jitter, 1 + jitter].
    lighting : float
        Standard deviation of the weights of the three principal colours.
    mean, std : sequence of float
        Of red, green and blue, in units of 0 to 1.
    """

    def __init__(self, jitter: float, lighting: float, mean: Any, std: Any) -> None:
        self._jitter, self._lighting = jitter, lighting
        levels = np.arange(LEVELS) / (LEVELS - 1)
        self._tables = [((levels - m) / s).astype(np.float32) for m, s in zip(mean, std)]

    def draw(self, mean: np.ndarray, rng: Random) -> np.ndarray:
        """A random map of colours, (3, 4): factors of red, green and blue, and what is added.

        Parameters
        ----------
        mean : array (4,)
            Colour of the image, red first, and 1.
        """
        matrix = np.eye(3, 4)
        for kind in rng.sample((BRIGHTNESS, CONTRAST, SATURATION), 3):
            share = rng.uniform(1 - self._jitter, 1 + self._jitter)
            gray = (1 - share) * (GRAY @ matrix)  # as a map, (4,)
            matrix *= share
            if kind == SATURATION:
                matrix += gray
            elif kind == CONTRAST:
                matrix[:, 3] += gray @ mean
        matrix[:, 3] += LIGHTING @ [rng.gauss(0, self._lighting) for _ in range(3)]
        return matrix

    def put(self, image: np.ndarray, rng: Random, out: np.ndarray) -> None:
        """Write an image, uint8 (height, width, 3), blue first, as float32 (3, height, width), red first."""
        if self._jitter or self._lighting:
            blue, green, red, _ = cv2.mean(image)
            matrix = self.draw(np.array([red, green, blue, 1]), rng)
            image = cv2.transform(image, matrix[::-1, [2, 1, 0, 3]])
        for plane, table, target in zip(cv2.split(image)[::-1], self._tables, out):
            cv2.LUT(plane, table, dst=target)
