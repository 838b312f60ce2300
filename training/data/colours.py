"""Colours of an image: random changes of them, and their normalisation. Knows nothing of mxnet."""

from typing import Any

import cv2
import numpy as np

GRAY = (0.299, 0.587, 0.114)
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

    def draw(self, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A random map of colours, (3, 4): factors of red, green and blue, and what is added.

        Parameters
        ----------
        mean : array (3,)
            Colour of the image, red first.
        """
        gray, factor, added = np.array(GRAY), np.eye(3), np.zeros(3)
        changes = rng.permutation(3)
        for kind, share in zip(changes, rng.uniform(1 - self._jitter, 1 + self._jitter, 3)):
            other = np.zeros(3)
            if kind == 1:  # contrast; brightness is none of both
                other += (1 - share) * gray @ (factor @ mean + added)
            mixed = share * np.eye(3) + (np.outer(np.ones(3), (1 - share) * gray) if kind == 2 else 0)
            factor, added = mixed @ factor, mixed @ added + other
        added += LIGHTING @ rng.normal(0, self._lighting, 3)
        return np.column_stack([factor, added])

    def put(self, image: np.ndarray, rng: np.random.Generator, out: np.ndarray) -> None:
        """Write an image, uint8 (height, width, 3), blue first, as float32 (3, height, width), red first."""
        if self._jitter or self._lighting:
            mapped = self.draw(np.array(cv2.mean(image)[2::-1]), rng)
            image = cv2.transform(image, mapped[::-1, [2, 1, 0, 3]])
        for plane, table, target in zip(cv2.split(image)[::-1], self._tables, out):
            cv2.LUT(plane, table, dst=target)
