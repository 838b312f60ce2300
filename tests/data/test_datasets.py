"""Data sets: read as they are, cut and held out as asked for."""

import gzip

import numpy as np
from conftest import write_cifar100, write_fashion

from training.config.inputs import CifarData
from training.data import datasets

HELD_OUT = [4, 1, 3, 9, 0, 6, 6, 6, 2, 8, 3, 7, 3, 3, 4, 4, 9, 8, 4, 4]  # classes of the first ones


def test_cifar10_is_the_real_one(cifar):
    train, test = cifar
    assert train.images.shape == (50000, 3, 32, 32) and test.images.shape == (10000, 3, 32, 32)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int32
    assert (np.bincount(train.labels) == 5000).all() and (np.bincount(test.labels) == 1000).all()
    np.testing.assert_allclose(train.images.mean(axis=(0, 2, 3)) / 255, (0.4914, 0.4822, 0.4465), atol=1e-4)


def test_holdout_is_disjoint_fixed_and_of_the_size_asked_for(cifar):
    train, held_out = datasets.load_cifar10(holdout=5000)
    assert len(train) == 45000 and len(held_out) == 5000
    again = datasets.load_cifar10(holdout=5000)[1]
    assert np.array_equal(held_out.images, again.images)
    both = {image.tobytes() for image in train.images} & {i.tobytes() for i in held_out.images}
    duplicates = 50000 - len({image.tobytes() for image in cifar[0].images})
    assert len(both) <= duplicates
    assert np.bincount(held_out.labels).min() > 400
    # Always the same: kept runs are compared and resumed with them.
    assert held_out.labels[:20].tolist() == HELD_OUT
    settings = CifarData(holdout=5000)
    np.testing.assert_array_equal(datasets.load_first(settings, 5)[1].images, cifar[1].images[:5])


def test_num_samples_cuts_both_splits():
    assert [len(split) for split in datasets.load_cifar10(num_samples=300)] == [300, 300]


def test_folders_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    write_cifar100(tmp_path, 3, 2)
    write_fashion(tmp_path, 4)
    assert [len(split) for split in datasets.load_cifar100('~')] == [3, 2]
    assert [len(split) for split in datasets.load_mnist('fashion', '~')] == [4, 4]


def test_binary_batches_may_be_gzipped(tmp_path):
    rows, _ = write_cifar100(tmp_path, 3, 2)
    raw = tmp_path / 'train.bin'
    raw.with_name('train.bin.gz').write_bytes(gzip.compress(raw.read_bytes()))
    raw.unlink()
    np.testing.assert_array_equal(datasets.load_cifar100(tmp_path)[0].labels, rows[:, 1])


def test_cifar100_rows_are_coarse_label_fine_label_and_planes(tmp_path):
    for rows, split in zip(write_cifar100(tmp_path, 3, 2), datasets.load_cifar100(tmp_path)):
        np.testing.assert_array_equal(split.labels, rows[:, 1])
        np.testing.assert_array_equal(split.images.reshape(len(rows), -1), rows[:, 2:])
