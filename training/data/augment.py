"""Augmentation as batch arithmetic on the device.

Each block is in two parts. `draw` makes, on the host and once an epoch, the random
numbers of every image from a NumPy generator; the block itself is a deterministic function of
images and draws. So a run depends on its seed alone, whatever the device, and can resume at any
epoch.
"""

from typing import Any, Optional

import numpy as np
from mxnet.gluon import Block, HybridBlock

from training.data.colours import CONTRAST, GRAY, LIGHTING, SATURATION
from training.data.resample import SIZE, columns, line, resample

# By mean and standard deviation of each channel, in units of 0 to 1.
NORMALISATIONS: dict[str, dict[str, Any]] = {
    'cifar10': {'mean': (0.4914, 0.4822, 0.4465), 'std': (0.2023, 0.1994, 0.2010)},
    'imagenet': {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)},  # of GluonCV's zoo
    'symmetric': {'mean': (128 / 255,) * 3, 'std': (128 / 255,) * 3},
    'unit': {'mean': (0,), 'std': (1,)},
}
CROP_ATTEMPTS = 10
# mxnet 1.9's random_saturation mixes each pixel with this in place of its gray: its loop over the
# channels overwrites the sum, so that the last channel's part alone is left.
SATURATION_GRAY = (0, 0, 0.114)


class Normalize(HybridBlock):
    """No augmentation: uint8 images to (pixel / 255 - mean) / std.

    Parameters
    ----------
    mean, std : sequence of float
        One each per channel, in units of 0 to 1, such as those of NORMALISATIONS.

    Inputs:
        - **images**: uint8, shape (B, channels, size, size).
        - **draws**: rows of what `draw` returned, shape (B, K); none here.

    Outputs:
        - **normalised**: float32, same shape as images.
    """

    def __init__(self, mean: Any, std: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        mean, std = np.array([mean, std], np.float32).reshape(2, 1, -1, 1, 1)
        self._channels = mean.size
        with self.name_scope():
            self.scale = self.params.get_constant('scale', 1 / (255 * std))
            self.offset = self.params.get_constant('offset', mean / std)

    def draw(self, rng: np.random.Generator, flips: np.ndarray) -> Optional[np.ndarray]:
        """Random numbers for a row of images: float32, (count, K), or None where none are used.

        Parameters
        ----------
        rng : numpy.random.Generator
        flips : array of 0 and 1, shape (count,)
            Which images to mirror left-right, if the block mirrors at all.
        """
        return None

    def hybrid_forward(
        self, F: Any, images: Any, *draws: Any, scale: Any, offset: Any, **constants: Any
    ) -> Any:
        pixels = self.transform(F, F.cast(images, 'float32'), *draws, **constants)
        return F.broadcast_sub(F.broadcast_mul(pixels, scale), offset)

    def transform(self, F: Any, pixels: Any) -> Any:
        return pixels


class Resampled(Normalize):
    """What augmentations by `resample` share: the pixels' numbers along an axis."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.index = self.params.get_constant('index', np.arange(SIZE, dtype=np.float32))


class PadCropFlip(Resampled):
    """Pad, crop at random, flip left-right, normalise.

    Parameters
    ----------
    padding : int
        Pixels of padding on each side.
    padding_mode : {'reflect', 'zero'}
        Whether the padding reflects the image or is black.
    mean, std, inputs, outputs
        As in :class:`Normalize`, with draws.
    """

    def __init__(self, padding: int = 4, padding_mode: str = 'reflect', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._padding, self._reflect = padding, padding_mode == 'reflect'

    def draw(self, rng: np.random.Generator, flips: np.ndarray) -> np.ndarray:
        shifts = rng.integers(-self._padding, self._padding, (2, len(flips)), endpoint=True)
        bounds = -self._padding, SIZE - 1 + self._padding
        return columns(*line(shifts[0], SIZE, 0, SIZE), *bounds, *line(shifts[1], SIZE, flips, SIZE), *bounds)

    def transform(self, F: Any, pixels: Any, draws: Any, index: Any) -> Any:  # type: ignore[override]
        return resample(F, pixels, draws, index, self._channels, self._reflect)


class ResizedCropJitter(Resampled):
    """The published set: resized crop, flip, colour jitter, lighting noise, normalise.

    What mxnet 1.9's transforms make of bytes: the resized crop is rounded; brightness, contrast and
    saturation follow in an order that is random for each image, then the lighting. After each of these
    four, values are clipped and cut down to whole numbers, which makes images darker by 2 of 255 levels.

    Parameters
    ----------
    area, ratio : (float, float)
        Bounds of the crop's share of the area, and of its width / height.
    jitter : float
        Brightness, contrast and saturation are scaled by a factor in [1 - jitter, 1 + jitter].
    lighting : float
        Standard deviation of the weights of the three principal colours.
    mean, std, inputs, outputs
        As in :class:`Normalize`, with draws.
    """

    def __init__(
        self,
        area: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        jitter: float = 0.1,
        lighting: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._area, self._ratio, self._jitter, self._lighting = area, ratio, jitter, lighting
        with self.name_scope():
            kinds = np.stack([np.eye(3), np.tile(SATURATION_GRAY, (3, 1))]).reshape(2, 9)
            self.kinds = self.params.get_constant('kinds', kinds)
            self.gray = self.params.get_constant('gray', GRAY / SIZE**2)
            self.ones = self.params.get_constant('ones', np.ones(SIZE**2))

    def draw(self, rng: np.random.Generator, flips: np.ndarray) -> np.ndarray:
        """Columns: 8 for the crop, 3 for each change of colour, what the lighting adds to each channel."""
        count = len(flips)
        top, left, height, width = self._draw_boxes(rng, count)
        geometry = []
        for first, length, flip in ((top, height, 0), (left, width, flips)):
            geometry += [*line(first, length, flip, SIZE), first, first + length - 1]
        factors = rng.uniform(1 - self._jitter, 1 + self._jitter, (3, count))
        kinds = rng.permuted(np.tile(np.arange(3), (count, 1)), axis=1).T
        light = rng.normal(0, self._lighting, (count, 3)) @ LIGHTING.T
        return columns(*geometry, *colour_changes(factors, kinds), *light.T)

    def _draw_boxes(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, ...]:
        """Top, left, height and width of each crop: the first of the tries that fits, or all."""
        shape = count, CROP_ATTEMPTS
        area = rng.uniform(*self._area, shape) * SIZE**2
        ratio = np.exp(rng.uniform(*np.log(self._ratio), shape))  # type: ignore[call-overload]
        width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (width <= SIZE) & (height <= SIZE)
        first = np.arange(count), fits.argmax(axis=1)
        width = np.where(fits.any(axis=1), width[first], SIZE)
        height = np.where(fits.any(axis=1), height[first], SIZE)
        return (
            rng.integers(0, SIZE - height, endpoint=True),
            rng.integers(0, SIZE - width, endpoint=True),
            height,
            width,
        )

    def transform(  # type: ignore[override]
        self, F: Any, pixels: Any, draws: Any, index: Any, kinds: Any, gray: Any, ones: Any
    ) -> Any:
        cropped = resample(F, pixels, _part(F, draws, 0, 8), index, self._channels)
        # OpenCV, which resizes mxnet's images, cuts off an eighth of a level before it rounds.
        flat = F.reshape(F.floor(cropped + 0.375), (0, 0, -1))
        for column in (8, 11, 14):
            matrix = F.reshape(F.dot(_part(F, draws, column, column + 2), kinds), (0, 3, 3))
            mean_gray = F.expand_dims(F.dot(F.dot(flat, ones), gray), axis=1)
            added = _part(F, draws, column + 2, column + 3) * mean_gray
            flat = _add_whole(F, F.batch_dot(matrix, flat), added)
        return F.reshape_like(_add_whole(F, flat, _part(F, draws, 17, 20)), pixels)


class Untouched(Block):
    """What is augmented and normalised already, as the images that training.data.records reads."""

    def draw(self, rng: np.random.Generator, flips: np.ndarray) -> None:
        """No random numbers."""

    def forward(self, images: Any) -> Any:
        return images


def build(settings: Any) -> Block:
    """The augmentation of a training.config.inputs.CifarData or ImagesData."""
    if settings.dataset == 'images':
        return Untouched()
    scale = NORMALISATIONS[settings.normalisation]
    if settings.augmentation == 'none':
        return Normalize(**scale)
    if settings.augmentation == 'resized-crop':
        return ResizedCropJitter(**scale)
    return PadCropFlip(settings.padding, settings.padding_mode, **scale)


def draw_flips(how: str, rng: np.random.Generator, epoch: int, index: np.ndarray, seed: int) -> np.ndarray:
    """Which images to mirror in an epoch: 0 or 1 each.

    Parameters
    ----------
    how : {'random', 'alternating', 'none'}
        Alternating mirrors each image in every second epoch, a random half of them in the even
        ones, so that any two epochs in a row show every image both ways (Jordan,
        arXiv 2404.00498, section 3.6).
    rng : numpy.random.Generator
    epoch, seed : int
    index : int array, shape (count,)
        The images, in their order of use.
    """
    if how == 'random':
        return rng.integers(0, 1, len(index), endpoint=True)
    if how == 'none':
        return np.zeros(len(index), int)
    first = np.random.default_rng(seed).integers(0, 1, index.max() + 1, endpoint=True)
    return (first[index] + epoch) % 2


def colour_changes(factors: np.ndarray, kinds: np.ndarray) -> list[np.ndarray]:
    """Three changes of an image's colours, as columns of draws.

    Parameters
    ----------
    factors : array, shape (3, count)
        What each multiplies brightness, contrast or saturation by.
    kinds : array of BRIGHTNESS, CONTRAST and SATURATION, shape (3, count)

    Returns
    -------
    list of 9 arrays, (count,)
        For each change: weights of the colour itself, of SATURATION_GRAY, of the image's mean gray.
    """
    return [
        column
        for factor, kind in zip(factors, kinds)
        for column in (factor, (1 - factor) * (kind == SATURATION), (1 - factor) * (kind == CONTRAST))
    ]


def _add_whole(F: Any, flat: Any, added: Any) -> Any:
    """Colours (B, 3, N) plus (B, 3) or (B, 1), clipped and cut down to whole numbers as bytes are."""
    return F.floor(F.clip(F.broadcast_add(flat, F.expand_dims(added, axis=2)), 0, 255))


def _part(F: Any, draws: Any, begin: int, end: int) -> Any:
    return F.slice_axis(draws, axis=1, begin=begin, end=end)
