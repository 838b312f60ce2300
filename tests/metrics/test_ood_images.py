"""Images that are out of distribution."""

import numpy as np
import pytest
from conftest import ROOT

from training.config.inputs import CifarData
from training.errors import UserError
from training.metrics import ood_images


def test_shuffled_images_by_plain_loops():
    images = np.arange(3 * 2 * 8 * 8, dtype=np.uint16).reshape(3, 2, 8, 8)
    shuffled = ood_images.shuffled(images, 4, np.random.default_rng(0))

    def patches(image):
        return {image[:, i : i + 4, j : j + 4].tobytes() for i in (0, 4) for j in (0, 4)}

    assert all(patches(a) == patches(b) for a, b in zip(images, shuffled))
    assert (shuffled != images).any()
    orders = [
        np.argsort(image[0].ravel())
        for image in ood_images.shuffled(np.repeat(images[:1], 3, axis=0), 1, np.random.default_rng(0))
    ]
    assert not any((a == b).all() for a, b in zip(orders, orders[1:])), 'each in its own way'
    pixels = ood_images.shuffled(images, 1, np.random.default_rng(0))
    for before, after in zip(images, pixels):
        assert sorted(map(tuple, before.reshape(2, -1).T)) == sorted(map(tuple, after.reshape(2, -1).T))


def test_rotated_images_by_plain_loops():
    images = np.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    found = ood_images.transformed(images, np.random.default_rng(0))
    for i, j in np.ndindex(8, 8):
        np.testing.assert_array_equal(found['rotated by 90'][:, :, i, j], images[:, :, j, 7 - i])
        np.testing.assert_array_equal(found['rotated by 180'][:, :, i, j], images[:, :, 7 - i, 7 - j])


def test_noise_has_the_images_mean_and_deviation(cifar):
    images = cifar[1].images[:500]
    found = ood_images.noise(images, np.random.default_rng(0))
    uniform, gaussian = found['uniform noise'], found['Gaussian noise']
    assert uniform.shape == gaussian.shape == images.shape
    assert (uniform.min(), uniform.max()) == (0, 255)
    # Clipping at both ends takes something off the deviation.
    np.testing.assert_allclose(gaussian.mean(axis=(0, 2, 3)), images.mean(axis=(0, 2, 3)), atol=3)
    np.testing.assert_allclose(gaussian.std(axis=(0, 2, 3)), images.std(axis=(0, 2, 3)), rtol=0.1)


def test_other_data_sets_are_fitted_and_missing_ones_named(cifar):
    found, missing = ood_images.other_data('mnist', 5, (1, 28, 28))
    assert list(missing) == ['Fashion-MNIST'] and found['CIFAR-10'].shape == (5, 1, 28, 28)
    gray = np.tensordot(cifar[1].images[:5], [0.299, 0.587, 0.114], (1, 0)).mean(axis=(1, 2))
    np.testing.assert_allclose(found['CIFAR-10'].mean(axis=(1, 2, 3)), gray, rtol=0.02)
    found, missing = ood_images.other_data('cifar10', 5, (3, 32, 32))
    assert not missing and found['MNIST'].shape == (5, 3, 32, 32)
    assert (found['MNIST'][:, 0] == found['MNIST'][:, 2]).all() and found['MNIST'].max() > 200
    for dataset, message in (('mnist', 'neither'), ('cifar10', 'not set against cifar10, but MNIST')):
        with pytest.raises(UserError, match=message):
            ood_images.other_data(dataset, 5, (1, 28, 28), str(ROOT / 'configs'))


def test_test_images_come_first_and_attacks_are_on_them(cifar):
    test = cifar[1].select(slice(6))
    (inside, *others), missing = ood_images.image_sets(test, CifarData(), 0)
    assert not missing and inside.name == 'test images' and inside.images is test.images
    attacked = [one for one in others if one.strength is not None]
    assert [one.name for one in attacked][:4] == ['FGSM 2/255', 'FGSM 4/255', 'FGSM 8/255', 'FGSM 16/255']
    assert len(attacked) == 8 and all(one.labels is test.labels for one in attacked)
    assert len(others) == 15 and all(one.images.shape == test.images.shape for one in others)
    again, _ = ood_images.image_sets(test, CifarData(), 0)
    assert all((one.images == other.images).all() for one, other in zip(others, again[1:]))
    plain, _ = ood_images.image_sets(test, CifarData(), 0, attacks=False)
    assert [one.name for one in plain[1:]] == [one.name for one in others if one.strength is None]
