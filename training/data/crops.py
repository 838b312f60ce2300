"""Boxes of images of any size, made square images of one size. Knows nothing of mxnet."""

import math
from random import Random

import cv2
import numpy as np

CENTRE = 0.875  # share of the short side that validation sees
RATIO = (3 / 4, 4 / 3)  # bounds of a random crop's width / height
ATTEMPTS = 10  # at a random crop that fits


def random_box(height: int, width: int, smallest_area: float, rng: Random) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop of at least a share of the area.

    The first of some attempts that fits, or the middle square (Szegedy et al., arXiv 1409.4842).
    """
    for _ in range(ATTEMPTS):
        area = rng.uniform(smallest_area, 1) * height * width
        ratio = math.exp(rng.uniform(*map(math.log, RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    return middle_square(height, width, 1)


def middle_square(height: int, width: int, share: float = CENTRE) -> tuple[int, int, int, int]:
    """Top, left, height and width of the middle square, a share of the short side."""
    side = max(1, round(share * min(height, width)))
    return (height - side) // 2, (width - side) // 2, side, side


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of an image, uint8 (height, width, 3), as (size, size, 3)."""
    return resized(image, middle_square(*image.shape[:2]), size)


def resized(image: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    """A box of an image, uint8 (height, width, 3), as (size, size, 3).

    By area from twice the size on, where linear sampling would skip pixels; it takes eight times as long.
    """
    top, left, height, width = box
    how = cv2.INTER_AREA if min(height, width) >= 2 * size else cv2.INTER_LINEAR
    return cv2.resize(image[top : top + height, left : left + width], (size, size), interpolation=how)
