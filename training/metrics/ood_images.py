"""Images unlike those a net was trained on: adversarial and transformed ones, noise, other data sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from training.data import datasets
from training.data.colours import GRAY
from training.data.folders import image_files
from training.data.pictures import PictureError, read_picture
from training.errors import UserError, naming

OTHERS = {
    'cifar10': ('mnist',),
    'cifar100': ('mnist',),
    'mnist': ('fashion', 'cifar10'),
    'fashion': ('mnist', 'cifar10'),
    'idx': ('mnist', 'cifar10'),
    'images': ('cifar10',),
}
PATCHES = 4  # along each side
STRENGTHS = {3: (2, 4, 8, 16), 1: (25.5, 51, 76.5)}  # by channels: largest change of a pixel, of 255


@dataclass
class ImageSet:
    """Images that nets are to tell apart.

    Attributes
    ----------
    name : str
    family : str
        What sets have in common: 'test images', 'FGSM', 'PGD', 'noise', 'transformed', 'other data'.
    images : uint8 array (N, channels, H, W)
    labels : int array (N,) or None
        Where the images have classes that the net knows.
    strength : float or None
        Of the attack FGSM or PGD, which they undergo first, in units of 1/255 of the range.
    """

    name: str
    family: str
    images: np.ndarray
    labels: Optional[np.ndarray] = None
    strength: Optional[float] = None


def image_sets(
    test: datasets.Split,
    settings: Any,
    seed: int,
    fashion_dir: Optional[str] = None,
    against: Sequence[Path] = (),
    attacks: bool = True,
) -> tuple[list[ImageSet], dict[str, str]]:
    """The test images first, then the sets that are out of their distribution.

    Parameters
    ----------
    test : training.data.datasets.Split
    settings : training.config.inputs.Data
        Of the run.
    seed : int
        Of noise and shuffling, and of which images of a folder are taken.
    fashion_dir : str or None
        As in :func:`other_data`.
    against : sequence of Path
        Folders of further images.
    attacks : bool
        Whether there are adversarial images, which take most of the time.

    Returns
    -------
    (list of ImageSet, dict of str to str)
        And the sets that are missing, with the reason.
    """
    rng = np.random.default_rng(seed)
    others, missing = other_data(settings.dataset, len(test), test.images.shape[1:], fashion_dir)
    for folder in against:
        others[folder.resolve().name] = from_folder(
            folder, len(test), test.images.shape[1:], settings.short_side, seed
        )
    families = {
        'noise': noise(test.images, rng),
        'transformed': transformed(test.images, rng),
        'other data': others,
    }
    return [
        ImageSet('test images', 'test images', test.images, test.labels),
        *(
            ImageSet(f'{attack} {strength:g}/255', attack, test.images, test.labels, strength)
            for attack in ('FGSM', 'PGD') * attacks
            for strength in STRENGTHS[test.images.shape[1]]
        ),
        *(
            ImageSet(name, family, images)
            for family, members in families.items()
            for name, images in members.items()
        ),
    ], missing


def noise(images: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Uniform noise, and Gaussian noise of the mean and deviation that `images` have per channel.

    Parameters
    ----------
    images : uint8 array (N, channels, H, W)
    rng : numpy.random.Generator

    Returns
    -------
    dict of str to uint8 array
        Each of the shape of images.
    """
    mean, deviation = (f(images, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
    gaussian = rng.normal(mean, deviation, images.shape)
    return {
        'uniform noise': rng.integers(0, 255, images.shape, np.uint8, endpoint=True),
        'Gaussian noise': np.clip(np.rint(gaussian), 0, 255).astype(np.uint8),
    }


def transformed(images: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """`images` rotated, and with their pixels or patches shuffled, each image in its own way.

    Parameters, returns
    -------------------
    As in :func:`noise`.
    """
    return {
        'rotated by 90': np.rot90(images, 1, (2, 3)),
        'rotated by 180': np.rot90(images, 2, (2, 3)),
        'shuffled patches': shuffled(images, patch_size(images.shape[2]), rng),
        'shuffled pixels': shuffled(images, 1, rng),
    }


def patch_size(side: int) -> int:
    """The size of the patches of an image: a quarter of its side, or what divides it best."""
    return max(size for size in range(1, max(1, side // PATCHES) + 1) if side % size == 0)


def shuffled(images: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Square images (N, channels, S, S) cut into patches of size x size, put together at random.

    S must be a multiple of size. The channels of a patch stay together.
    """
    count, channels, side, _ = images.shape
    across = side // size
    patches = (
        images.reshape(count, channels, across, size, across, size)
        .transpose(0, 2, 4, 1, 3, 5)
        .reshape(count, across**2, channels, size, size)
    )
    order = rng.random((count, across**2)).argsort(axis=1)
    patches = np.take_along_axis(patches, order[:, :, None, None, None], axis=1)
    return (
        patches.reshape(count, across, across, channels, size, size)
        .transpose(0, 3, 1, 4, 2, 5)
        .reshape(images.shape)
    )


def other_data(
    dataset: str, count: int, shape: tuple[int, int, int], fashion_dir: Optional[str] = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The first test images of the data sets that stand against `dataset`, in its format.

    Parameters
    ----------
    dataset : str
        As in training.data.datasets.CLASSES.
    count : int
    shape : (int, int, int)
        Channels, height and width of the images of `dataset`.
    fashion_dir : str or None
        Folder of Fashion-MNIST's files; the others are looked for as everywhere.

    Returns
    -------
    (dict of str to uint8 array (count, channels, H, W), dict of str to str)
        The images; and the sets that are missing, with the reason.

    Raises
    ------
    UserError
        If Fashion-MNIST is not in the folder named, or does not stand against `dataset`.
    """
    if fashion_dir is not None and 'fashion' not in OTHERS[dataset]:
        raise UserError(
            f'--fashion-dir: Fashion-MNIST is not set against {dataset}, but '
            + ' and '.join(datasets.TITLES[name] for name in OTHERS[dataset])
        )
    images, missing = {}, {}
    for name in OTHERS[dataset]:
        if name == 'fashion' and fashion_dir is None:
            missing[datasets.TITLES[name]] = 'name the folder of its IDX files with --fashion-dir'
            continue
        try:
            _, test = (
                datasets.load_cifar10(num_samples=count)
                if name == 'cifar10'
                else datasets.load_mnist(name, fashion_dir if name == 'fashion' else None, count)
            )
        except UserError as error:
            if name == 'fashion':  # the user has named its folder
                raise
            missing[datasets.TITLES[name]] = str(error)
        else:
            images[datasets.TITLES[name]] = fitted(test.images, shape)
    return images, missing


def from_folder(
    folder: Path, count: int, shape: tuple[int, int, int], short_side: Optional[int], seed: int
) -> np.ndarray:
    """`count` of the images below a folder, chosen at random, uint8 (N, channels, H, W).

    `shape` and `short_side` as in training.data.pictures.read_picture. UserError where none can be read.
    """
    with naming(folder):
        files = list(image_files(folder))
    order = np.random.default_rng(seed).permutation(len(files))[:count]
    images = []
    for number in sorted(order):
        try:
            images.append(read_picture(files[number], shape, short_side=short_side))
        except PictureError as error:
            print(f'{files[number]}: left out, {error}')
    if not images:
        raise UserError(f'--against {folder}: there is no image in this folder that can be read')
    return np.stack(images)


def fitted(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Square images in another shape (channels, S, S): made gray or repeated, and resampled."""
    channels, side, _ = shape
    pixels = images.astype(np.float32)
    if pixels.shape[1] > channels:
        pixels = np.tensordot(pixels, np.array(GRAY, np.float32), (1, 0))[:, None]
    length = images.shape[2]
    places = np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, length - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(length))).astype(np.float32)
    pixels = np.rint(weights @ pixels @ weights.T).astype(np.uint8)  # bilinear
    return np.repeat(pixels, channels // pixels.shape[1], axis=1)
