"""Augmentation against plain NumPy and against mxnet's own transforms, on real images."""

import random

import mxnet as mx
import numpy as np
import pytest
from mxnet import nd
from mxnet.gluon.data.vision import transforms

from training.data import augment, resample

CIFAR10 = augment.NORMALISATIONS['cifar10']
BYTES = dict(mean=(0, 0, 0), std=(1 / 255,) * 3)  # leaves pixels in 0 .. 255


@pytest.fixture(scope='module')
def images(cifar):
    return cifar[0].images[:2000]


def apply(block, images, draws):
    draws = [] if draws is None else [nd.array(draws)]
    return block(nd.array(images, dtype='uint8'), *draws).asnumpy()


def make_draws(block, seed, count):
    rng = np.random.default_rng(seed)
    return block.draw(rng, rng.integers(0, 1, count, endpoint=True))


def make(kind, **settings):
    block = kind(**settings)
    block.initialize()
    return block


def test_normalise_is_the_published_one(images):
    block = make(augment.Normalize, **CIFAR10)
    got = block(nd.array(images[:8], dtype='uint8')).asnumpy()
    for channel, (mean, std) in enumerate(zip((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))):
        np.testing.assert_allclose(
            got[:, channel], (images[:8, channel] / 255 - mean) / std, rtol=1e-5, atol=1e-5
        )


def test_symmetric_normalisation_is_that_of_the_authors_caffe_example(images):
    block = make(augment.Normalize, **augment.NORMALISATIONS['symmetric'])
    got = block(nd.array(images[:8], dtype='uint8')).asnumpy()
    np.testing.assert_allclose(got, (images[:8].astype(float) - 128) * 0.0078125, atol=1e-6)


@pytest.mark.parametrize('kind', [augment.Normalize, augment.PadCropFlip, augment.ResizedCropJitter])
def test_hybridised_equals_imperative(kind, images):
    block = make(kind, **CIFAR10)
    draws = make_draws(block, 0, 16)
    imperative = apply(block, images[:16], draws)
    block.hybridize(static_alloc=True)
    np.testing.assert_array_equal(apply(block, images[:16], draws), imperative)


@pytest.mark.parametrize('mode, numpy_mode', [('reflect', 'reflect'), ('zero', 'constant')])
def test_pad_crop_flip_gives_exactly_a_crop_of_the_padded_image(images, mode, numpy_mode):
    block = make(augment.PadCropFlip, padding=4, padding_mode=mode, **BYTES)
    draws = make_draws(block, 0, 200)
    got = apply(block, images[:200], draws)
    padded = np.pad(images[:200], ((0, 0), (0, 0), (4, 4), (4, 4)), numpy_mode)
    found = []
    for image, source in zip(got, padded):
        crops = {
            (y, x, flip): source[:, y : y + 32, x : x + 32][:, :, :: -1 if flip else 1]
            for y in range(9)
            for x in range(9)
            for flip in (False, True)
        }
        places = [place for place, crop in crops.items() if np.array_equal(crop, image)]
        assert places, 'no crop of the padded image is this one'
        found.append(places[0])
    assert {place[0] for place in found} == {place[1] for place in found} == set(range(9))
    assert 0.35 < np.mean([place[2] for place in found]) < 0.65


def plain_resized_crop(image, draw):
    """Bilinear samples of one image by loops, at the places that a draw describes."""
    lines = []
    for first, step, low, high in (draw[:4], draw[4:8]):
        line = [min(max(first + step * i, low), high) for i in range(32)]
        lines.append([(int(np.floor(p)), p - np.floor(p)) for p in line])
    out = np.zeros((3, 32, 32))
    for i, (y, v) in enumerate(lines[0]):
        for j, (x, u) in enumerate(lines[1]):
            below, right = min(y + 1, 31), min(x + 1, 31)
            top = (1 - u) * image[:, y, x] + u * image[:, y, right]
            bottom = (1 - u) * image[:, below, x] + u * image[:, below, right]
            out[:, i, j] = (1 - v) * top + v * bottom
    return out


def test_resized_crop_equals_plain_loops(images):
    block = make(augment.ResizedCropJitter, jitter=0, lighting=0, **BYTES)
    draws = make_draws(block, 3, 5)
    got = apply(block, images[:5], draws)
    for image, draw, result in zip(images, draws, got):
        exact = plain_resized_crop(image.astype(float), draw)
        assert np.all(result == np.floor(result))
        np.testing.assert_allclose(result, exact - 0.125, atol=0.51)  # rounded, but for OpenCV's bias


WHOLE = dict(area=(1, 1), ratio=(1, 1))  # the crop is the image


def test_resized_crops_are_mirrored_where_flips_are_1(images):
    block = make(augment.ResizedCropJitter, jitter=0, lighting=0, **WHOLE, **BYTES)
    flips = np.arange(20) % 3 == 0
    got = apply(block, images[:20], block.draw(np.random.default_rng(0), flips.astype(int)))
    for image, result, flip in zip(images, got, flips):
        np.testing.assert_allclose(result, image[:, :, ::-1] if flip else image, atol=1e-3)


def test_crop_of_a_known_box_equals_mxnets_resize(images):
    """mxnet resizes bytes in fixed point, hence a tolerance of one level."""
    block = make(augment.ResizedCropJitter, jitter=0, lighting=0, **BYTES)
    top, left, height, width = 5, 9, 20, 14
    rows = resample.line(top, height, 0, 32) + (top, top + height - 1)
    columns = resample.line(left, width, 0, 32) + (left, left + width - 1)
    draws = make_draws(block, 0, 20)
    draws[:, :8] = np.array(rows + columns)
    got = apply(block, images[:20], draws)
    crop = transforms.CropResize(left, top, width, height, (32, 32), 1)
    for image, result in zip(images, got):
        want = crop(nd.array(image.transpose(1, 2, 0), dtype='uint8')).asnumpy()
        assert np.abs(result - want.transpose(2, 0, 1)).max() <= 1.0


class Recorder:
    """A Generator that keeps what it draws: name of the method -> list of arrays."""

    def __init__(self, seed):
        self.rng, self.drawn = np.random.default_rng(seed), {}

    def __getattr__(self, name):
        def draw(*args, **settings):
            array = getattr(self.rng, name)(*args, **settings)
            self.drawn.setdefault(name, []).append(array)
            return array

        return draw


OPERATORS = ['random_brightness', 'random_contrast', 'random_saturation']  # as augment numbers them


def excess_over_mxnet(images, seed, **settings):
    """Our augmentation minus mxnet's operators with the same draws, and the orders of the jitters."""
    block, rng = make(augment.ResizedCropJitter, **settings, **BYTES), Recorder(seed)
    flips = np.arange(len(images)) % 2
    draws = block.draw(rng, flips)
    factors, orders = rng.drawn['uniform'][-1].T, rng.drawn['permuted'][0]
    top, left, height, width = np.array(block._draw_boxes(np.random.default_rng(seed), len(images)), int)
    excess = apply(block, images, draws)
    for i, image in enumerate(images):
        result = nd.array(image.transpose(1, 2, 0), dtype='uint8')
        result = mx.image.fixed_crop(result, *map(int, (left[i], top[i], width[i], height[i])), (32, 32), 1)
        if flips[i]:
            result = nd.image.flip_left_right(result)
        for factor, kind in zip(factors[i], orders[i]):
            result = getattr(nd.image, OPERATORS[kind])(result, min_factor=factor, max_factor=factor)
        result = nd.image.adjust_lighting(result, alpha=tuple(map(float, rng.drawn['normal'][0][i])))
        excess[i] -= result.asnumpy().transpose(2, 0, 1)
    return excess, orders


def test_colours_are_those_of_mxnets_operators_with_the_same_draws(images):
    """In every order of the jitters, each of which mxnet clips and cuts down to bytes."""
    excess, orders = excess_over_mxnet(images[:100], 0, **WHOLE)
    assert len(np.unique(orders, axis=0)) == 6
    # Where a value is a whole number but for the last bit, it may be cut down to another one.
    assert np.abs(excess).max() <= 1 and np.mean(excess != 0) < 1e-4


def test_images_are_as_bright_as_those_of_mxnets_operators_with_the_same_draws(images):
    """Crops included, which OpenCV resizes in fixed point; without the bytes, 2.1 levels brighter."""
    excess, _ = excess_over_mxnet(images[:300], 1)
    assert abs(excess.mean()) < 0.05
    assert np.mean(excess != 0) < 0.1 and np.mean(np.abs(excess) > 1) < 0.01


def test_colours_by_plain_loops(images):
    """The three jitters written out, on bytes, with the saturation that mxnet 1.9 has."""
    block, rng = make(augment.ResizedCropJitter, lighting=0, **WHOLE, **BYTES), Recorder(4)
    got = apply(block, images[:6], block.draw(rng, np.zeros(6)))
    for i, result in enumerate(got):
        image = images[i].astype(float)
        for factor, kind in zip(rng.drawn['uniform'][-1][:, i], rng.drawn['permuted'][0][i]):
            gray = np.tensordot(augment.GRAY, image, 1)
            other = [0, gray.mean(), 0.114 * image[2]][kind]
            image = np.floor(np.clip(factor * image + (1 - factor) * other, 0, 255))
        assert np.mean(result != image) < 1e-3 and np.abs(result - image).max() <= 1


def test_alternating_flips_show_every_image_both_ways_in_two_epochs():
    index = np.random.default_rng(0).permutation(1000)
    flips = [np.empty(1000, int) for _ in range(3)]
    for epoch in range(3):
        flips[epoch][index] = augment.draw_flips('alternating', None, epoch, index, seed=7)
    assert (flips[0] + flips[1] == 1).all() and (flips[0] == flips[2]).all()
    assert 400 < flips[0].sum() < 600


def test_random_flips_are_fair_and_independent_of_the_epoch_before():
    flips = [
        augment.draw_flips('random', np.random.default_rng(epoch), epoch, np.arange(10000), 7)
        for epoch in range(2)
    ]
    assert abs(flips[0].mean() - 0.5) < 0.02
    assert abs(np.mean(flips[0] == flips[1]) - 0.5) < 0.02


def test_lighting_is_of_the_published_strength():
    light = make_draws(make(augment.ResizedCropJitter, **BYTES), 0, 20000)[:, 17:]
    np.testing.assert_allclose(light.std(axis=0), 0.1 * np.linalg.norm(augment.LIGHTING, axis=1), rtol=0.02)


def test_draws_have_the_distributions_of_mxnets_transforms(images):
    """Boxes against mxnet's own sampler, pixels against its whole pipeline."""
    from mxnet.image import random_size_crop

    random.seed(0)  # mxnet draws its crops from this one
    mx.random.seed(0)
    block = make(augment.ResizedCropJitter, **BYTES)
    count = 4000
    ours = np.stack(block._draw_boxes(np.random.default_rng(0), count), axis=1)
    blank = nd.zeros((32, 32, 3), dtype='uint8')
    boxes = [random_size_crop(blank, (32, 32), (0.08, 1), (3 / 4, 4 / 3), 1)[1] for _ in range(count)]
    theirs = np.array([(y, x, height, width) for x, y, width, height in boxes])
    for column in range(4):
        grid = np.arange(33)
        gap = (
            np.abs(
                np.searchsorted(np.sort(ours[:, column]), grid, 'right')
                - np.searchsorted(np.sort(theirs[:, column]), grid, 'right')
            ).max()
            / count
        )
        assert gap < 1.95 * np.sqrt(2 / count)  # Kolmogorov-Smirnov, 0.1 %

    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(32),
            transforms.RandomFlipLeftRight(),
            transforms.RandomColorJitter(0.1, 0.1, 0.1),
            transforms.RandomLighting(0.1),
        ]
    )
    theirs = (
        np.stack([pipeline(nd.array(image.transpose(1, 2, 0), dtype='uint8')).asnumpy() for image in images])
        .transpose(0, 3, 1, 2)
        .astype(np.float32)
    )
    ours = apply(block, images, make_draws(block, 1, len(images)))
    np.testing.assert_allclose(ours.mean(axis=(0, 2, 3)), theirs.mean(axis=(0, 2, 3)), atol=1.5)
    np.testing.assert_allclose(ours.std(axis=(0, 2, 3)), theirs.std(axis=(0, 2, 3)), rtol=0.02)
    for axis in (2, 3):
        np.testing.assert_allclose(
            np.abs(np.diff(ours, axis=axis)).mean(), np.abs(np.diff(theirs, axis=axis)).mean(), rtol=0.05
        )
    brightness = [a.mean(axis=(1, 2, 3)) - images.mean(axis=(1, 2, 3)) for a in (ours, theirs)]
    np.testing.assert_allclose(brightness[0].std(), brightness[1].std(), rtol=0.1)
