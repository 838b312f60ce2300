"""Image files as a net takes them."""

import struct
from pathlib import Path
from typing import IO, Optional, Union

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from training.data.crops import centre_crop

FORMATS = 'PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM'  # none that starts another program
DIGIT_BOX = 20  # pixels that the longer side of a digit takes in MNIST


class PictureError(Exception):
    """A file holds no image that can be read; the message says why."""


def read_picture(
    source: Union[Path, IO[bytes]],
    shape: tuple[int, int, int],
    most_pixels: Optional[int] = None,
    drawing: bool = False,
    short_side: Optional[int] = None,
) -> np.ndarray:
    """An image file of any size and mode as uint8 of shape (channels, height, width).

    What is transparent is white, and photographs are turned as their camera was held.

    Parameters
    ----------
    source : Path or binary file
    shape : (int, int, int)
        Channels (1 or 3), height and width of the result.
    most_pixels : int or None
        Refuse larger images before they are decoded; None keeps to Pillow's limit.
    drawing : bool, default False
        Whether to place what is drawn, light on black, as MNIST's digits are; see `place_digit`.
    short_side : int or None
        If given, the image is reduced to this short side and its middle square is taken, as validation
        sees one's own images; otherwise its sides are fitted to the shape one by one.

    Raises
    ------
    PictureError
        If the file cannot be read, is damaged or has too many pixels.
    """
    channels, height, width = shape
    image = open_picture(source, 'RGB' if channels == 3 else 'L', most_pixels, short_side)
    if short_side is not None:
        return centre_crop(np.asarray(image), height).transpose(2, 0, 1)
    if drawing:
        image = place_digit(image, (width, height))
    elif image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


def open_picture(
    source: Union[Path, IO[bytes]],
    mode: str = 'RGB',
    most_pixels: Optional[int] = None,
    short_side: Optional[int] = None,
) -> Image.Image:
    """An image file upright, in `mode` RGB or L; where `short_side` is given, reduced to it if larger.

    The other parameters and errors are those of `read_picture`.
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # GluonCV sets it, and would have half images classified
    try:
        with Image.open(source, formats=FORMATS) as file:
            if most_pixels is not None and file.width * file.height > most_pixels:
                raise PictureError(
                    f'{file.width} x {file.height} pixels, more than the {most_pixels:,} that are allowed'
                )
            if short_side is not None and file.format == 'JPEG':  # decoded at 1/2, 1/4 or 1/8
                file.draft(file.mode, (2 * short_side, 2 * short_side))
            image: Image.Image = ImageOps.exif_transpose(file)
            if image.mode.startswith('I'):  # 16 bits, which convert() would cut off at 255
                image = Image.fromarray((np.asarray(image, np.int64) // 257).astype(np.uint8))
            if 'transparency' in image.info or image.mode[-1] in 'Aa':
                image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image.convert('RGBA'))
            image = image.convert(mode)
            if short_side is not None and min(image.size) > short_side:
                scale = short_side / min(image.size)
                size = [max(1, round(side * scale)) for side in image.size]
                image = image.resize(size, Image.Resampling.BICUBIC)
            return image
    except UnidentifiedImageError:  # its message names a file object
        raise PictureError(
            'no image that can be read (none of the formats PNG, JPEG, WebP, GIF, BMP, TIFF)'
        ) from None
    except (
        OSError,
        ValueError,
        SyntaxError,
        LookupError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:  # the last but one of EXIF data
        raise PictureError(f'no image that can be read ({" ".join(str(error).split())})') from None


def place_digit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A drawing, light on black, as a digit of MNIST.

    What is drawn is scaled to fit a square of 20 pixels, of the 28 that MNIST has, and its centre of
    mass is moved to the centre of the image. Source: LeCun, Cortes and Burges, the page of MNIST.

    Parameters
    ----------
    image : PIL.Image.Image
        Grey.
    size : (int, int)
        Width and height of the result.
    """
    placed = Image.new('L', size)
    extent = image.getbbox()
    if extent is None:  # nothing is drawn
        return placed
    ink = image.crop(extent)
    scale = DIGIT_BOX / max(ink.size)
    ink = ink.resize(
        [max(1, round(scale * side)) for side in ink.size],
        Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC,
    )
    weight = np.asarray(ink, np.float64)
    if not weight.any():  # too faint to be left
        return placed
    centre = [weight.sum(axis) @ np.arange(side) / weight.sum() for axis, side in enumerate(ink.size)]
    placed.paste(ink, tuple(round(whole / 2 - own) for whole, own in zip(size, centre)))
    return placed
