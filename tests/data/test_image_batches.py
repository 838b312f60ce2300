"""Batches of one's own images: order, crops, colours and sizes."""

from random import Random

import mxnet as mx
import numpy as np
import pytest
from photos import settings
from PIL import Image

from training.data import augment, batches, colours, crops
from training.data.datasets import load_splits


def training_data(photos, seed=0, workers=None, **fields):
    chosen = settings(photos, **fields)
    train, _ = load_splits(chosen)
    block = augment.build(chosen)
    more = {'workers': workers} if workers else {}
    more['resolutions'] = chosen.resolutions
    return batches.TrainingData(train, [mx.cpu()], block, 'random', 9, seed, **more)


def test_order_and_augmentation_depend_on_seed_and_epoch_alone(photos):
    def epoch(number, seed=0, first=0):
        return [batch[0].asnumpy() for (batch,) in training_data(photos, seed).batches(number, first)]

    first, again, resumed = epoch(3), epoch(3), epoch(3, first=2)
    assert len(first) == 4 and all((a == b).all() for a, b in zip(first, again))
    assert len(resumed) == 2 and all((a == b).all() for a, b in zip(first[2:], resumed))
    assert all((first[0] != other[0]).any() for other in (epoch(4), epoch(3, seed=1)))


def test_smaller_images_of_the_first_epochs_are_the_same_crops_read_at_that_size(photos):
    data = training_data(photos, resolutions=[(16, 1), (32, 1)], jitter=0.0, lighting=0.0)
    ((small, _),), ((large, _),) = next(data.batches(0)), next(data.batches(1))
    assert small.shape[2:] == (16, 16) and large.shape[2:] == (32, 32) and data.work(16) == 0.5**1.7
    ((whole, _),) = next(training_data(photos, jitter=0.0, lighting=0.0).batches(0))
    halved = whole.asnumpy().reshape(9, 3, 16, 2, 16, 2).mean(axis=(3, 5))
    assert np.corrcoef(halved.ravel(), small.asnumpy().ravel())[0, 1] > 0.97


def test_stopping_within_an_epoch_leaves_nothing_behind(photos):
    data = training_data(photos)
    for _ in data.batches(0):
        break
    assert len([batch for batch in data.batches(0)]) == 4


@pytest.mark.parametrize('augmentation', ['resized-crop', 'none'])
def test_batches_are_the_crops_with_their_labels(photos, augmentation):
    data = training_data(photos, jitter=0.0, lighting=0.0, augmentation=augmentation)
    records = data.images.records
    ((images, labels),) = next(data.batches(1))
    rng = np.random.default_rng([0, 1])
    order = rng.permutation(36)
    flips = augment.draw_flips('random', rng, 1, order, 0)
    mean, std = (
        np.array(augment.NORMALISATIONS['imagenet'][name])[:, None, None] for name in ('mean', 'std')
    )
    for place in range(9):
        image = records.image(order[place])
        box, step = crops.middle_square(*image.shape[:2]), 1
        if augmentation != 'none':
            box = crops.random_box(*image.shape[:2], 0.08, Random(f'[0, 1, {place}]'))
            step = -1 if flips[place] else 1
        crop = crops.resized(image, box, 32)[:, ::step, ::-1]
        want = (crop.transpose(2, 0, 1) / 255 - mean) / std
        np.testing.assert_allclose(images[place].asnumpy(), want, atol=1e-5)
        assert labels[place].asscalar() == records.labels[order[place]]


def test_colours_change_by_brightness_contrast_saturation_and_light():
    """Written out for each image, with the factors that its seed gives."""
    image = np.random.default_rng(1).integers(60, 160, (20, 30, 3)).astype(np.uint8)  # nothing is clipped
    block = colours.Colours(0.2, 0.02, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    gray, orders = np.array(colours.GRAY), set()
    for seed in range(20):
        rng, order = Random(seed), []
        want = image[:, :, ::-1].astype(np.float64)
        for kind in rng.sample(range(3), 3):
            factor = rng.uniform(0.8, 1.2)
            order.append(kind)
            gray_image = want @ gray
            other = (0, gray_image.mean(), gray_image[:, :, None])[kind]
            want = factor * want + (1 - factor) * other
        want += colours.LIGHTING @ [rng.gauss(0, 0.02) for _ in range(3)]
        assert 0 < want.min() and want.max() < 255
        out = np.empty((3, 20, 30), np.float32)
        block.put(image, Random(seed), out)
        levels = out.transpose(1, 2, 0) * (0.1, 0.2, 0.3) + (0.4, 0.5, 0.6)
        np.testing.assert_allclose(levels * 255, want, atol=0.9)  # rounded; OpenCV's factors have 10 bits
        orders.add(tuple(order))
    assert len(orders) == 6


def test_colours_are_clipped():
    block = colours.Colours(0.9, 0.1, (0, 0, 0), (1, 1, 1))
    out = np.empty((3, 8, 8), np.float32)
    image = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (8, 8, 3))
    for seed in range(20):
        block.put(image, Random(seed), out)
        assert out.min() >= 0 and out.max() <= 1


def test_crops_keep_to_their_bounds():
    rng = Random(0)
    boxes = np.array([crops.random_box(60, 100, 0.25, rng) for _ in range(500)])
    top, left, height, width = boxes.T
    assert (
        (top >= 0).all() and (left >= 0).all() and (top + height <= 60).all() and (left + width <= 100).all()
    )
    areas, ratios = height * width / 6000, width / height
    assert areas.min() > 0.23 and areas.max() > 0.6 and np.ptp(top) > 20 and np.ptp(left) > 40
    assert ratios.min() < 0.8 and ratios.max() > 1.25 and 0.7 < ratios.min() and ratios.max() < 1.4
    assert crops.random_box(1, 500, 0.9, rng) == (0, 249, 1, 1)


def test_resizing_agrees_with_pil():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(small).resize((160, 120), Image.BICUBIC))
    box = 10, 20, 90, 120
    for size, filter in (30, Image.BOX), (200, Image.BILINEAR):
        ours = crops.resized(image, box, size).astype(int)
        theirs = Image.fromarray(image[10:100, 20:140]).resize((size, size), filter)
        assert np.abs(ours - np.asarray(theirs)).max() <= 2


def test_evaluation_sees_every_image_once_in_its_order(photos):
    chosen = settings(photos)
    _, val = load_splits(chosen)
    data = batches.DeviceData(val, [mx.cpu()])
    np.testing.assert_array_equal(
        data.images.part(0, slice(4, 9)).asnumpy(), [val.images.centre(number) for number in range(4, 9)]
    )
    assert data.images.batch == 500
