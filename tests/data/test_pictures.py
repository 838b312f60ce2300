"""Image files of any kind are read as a net takes them."""

import io

import numpy as np
import pytest
from PIL import Image

from training.data import datasets
from training.data.pictures import PictureError, place_digit, read_picture


def test_sixteen_bits_of_gray_are_scaled_and_not_cut_off(tmp_path):
    deep = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    Image.fromarray(deep).save(tmp_path / 'deep.png')
    assert Image.open(tmp_path / 'deep.png').mode.startswith('I')
    for channels in (1, 3):
        found = read_picture(tmp_path / 'deep.png', (channels, 32, 32))
        assert found.shape == (channels, 32, 32)
        np.testing.assert_allclose(found[0], deep / 257, atol=1)


def test_photos_are_turned_as_their_camera_was_held(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    image = Image.fromarray(np.rot90(pixels))
    exif = image.getexif()
    exif[0x0112] = 6  # turned a quarter to the right when shown
    image.save(tmp_path / 'held.png', exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / 'held.png', (3, 32, 32)), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize('mode', ['LA', 'RGBA', 'P'])
@pytest.mark.parametrize('channels', [1, 3])
def test_what_is_transparent_is_white(tmp_path, mode, channels):
    black, alpha = np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8)
    alpha[8:20, 4:9] = 255
    if mode == 'P':
        image = Image.fromarray((alpha // 255).astype(np.uint8), 'P')
        image.putpalette([255, 0, 0, 0, 0, 0])
        image.save(tmp_path / 'drawn.png', transparency=0)
    else:
        Image.merge(mode, [Image.fromarray(a) for a in [black] * (len(mode) - 1) + [alpha]]).save(
            tmp_path / 'drawn.png'
        )
    found = read_picture(tmp_path / 'drawn.png', (channels, 32, 32))
    np.testing.assert_array_equal(found, np.broadcast_to(255 - alpha, (channels, 32, 32)))


def test_pixels_are_counted_before_an_image_is_decoded():
    file = io.BytesIO()
    Image.new('L', (1000, 300)).save(file, 'PNG')
    assert read_picture(file, (1, 28, 28), 300_000).shape == (1, 28, 28)
    header = io.BytesIO(file.getvalue()[:60])  # cannot be decoded
    with pytest.raises(PictureError, match='1000 x 300 pixels, more than the 299,999'):
        read_picture(header, (1, 28, 28), 299_999)
    with pytest.raises(PictureError, match='no image that can be read'):
        read_picture(header, (1, 28, 28), 300_000)


def test_digits_of_mnist_stay_where_they_are():
    _, test = datasets.load_mnist()
    gaps = []
    for digit in test.images[:200, 0]:
        moved = np.zeros((120, 90), np.uint8)
        moved[60:88, 10:38] = digit
        placed = np.asarray(place_digit(Image.fromarray(moved), (28, 28)))
        gaps.append(np.abs(placed.astype(int) - digit).mean())
    assert np.mean(np.array(gaps) < 1) > 0.9


def test_drawing_of_any_size_fills_the_box_of_a_digit():
    drawn = Image.new('L', (400, 300))
    drawn.paste(255, (250, 40, 290, 240))  # a bar
    placed = np.asarray(place_digit(drawn, (28, 28)))
    rows, columns = np.nonzero(placed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 23, 12, 15)
    assert not np.asarray(place_digit(Image.new('L', (50, 50)), (28, 28))).any()
