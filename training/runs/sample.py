"""The images whose features a run records, as small pictures on one sheet."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image

from training.runs.features import Record

TILE = 48  # pixels at most, on either side
COLUMNS = 64
SHEET_BYTES = 1_000_000  # of images in colour; grey ones lose nothing


@dataclass
class Sample(Record):
    """The images of a run's snapshots, with what is known of them.

    Attributes
    ----------
    sheet : array of uint8
        The bytes of a WebP file: tiles in rows of COLUMNS, those of the training images first.
    tile : array (2,)
        Width and height of a tile in pixels.
    digest : str
        Of images and labels: equal for runs that have the same sample.
    class_names : array (C,) of str
    test_name : str
        What the images are that are not for training.
    """

    sheet: np.ndarray
    tile: np.ndarray
    digest: str
    class_names: np.ndarray
    test_name: str


def shrink(images: np.ndarray) -> np.ndarray:
    """Images (N, channels, height, width), uint8, with sides of at most TILE pixels."""
    channels, height, width = images.shape[1:]
    scale = TILE / max(height, width)
    if scale >= 1:
        return images
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = [Image.fromarray(_pixels(image)).resize(size, Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image).reshape(*size[::-1], channels) for image in small]).transpose(
        0, 3, 1, 2
    )


def write_sample(
    file: IO[bytes], images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], test_name: str
) -> None:
    """Write a Sample of small images (N, channels, height, width) and their labels (N,) to a binary file."""
    digest = hashlib.sha256(images.tobytes() + labels.astype('<i4').tobytes()).hexdigest()
    number, channels, height, width = images.shape
    tiles = np.zeros((-(-number // COLUMNS) * COLUMNS, *images.shape[1:]), np.uint8)
    tiles[:number] = images
    sheet = tiles.reshape(-1, COLUMNS, channels, height, width).transpose(2, 0, 3, 1, 4)
    content = _encode(sheet.reshape(channels, -1, COLUMNS * width))
    names = np.array(class_names, dtype=str)
    Sample(np.frombuffer(content, np.uint8), np.array([width, height]), digest, names, test_name).save(file)


def _encode(sheet: np.ndarray) -> bytes:
    image = Image.fromarray(_pixels(sheet))
    settings = (
        [{'lossless': True, 'quality': 50}]
        if image.mode == 'L'
        else [{'quality': quality} for quality in (90, 80, 70, 50, 30, 10)]
    )
    for setting in settings:
        file = io.BytesIO()
        image.save(file, 'WEBP', **setting)
        if file.tell() <= SHEET_BYTES:
            break
    return file.getvalue()


def _pixels(image: np.ndarray) -> np.ndarray:
    """An image (1 or 3, height, width) as Pillow takes it."""
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)
