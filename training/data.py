"""Image data sets as arrays: one uint8 array and one label array per split."""
from dataclasses import dataclass

import numpy as np

from . import fetch
from .runtime import UserError

CIFAR10_CLASSES = 10
HOLDOUT_SEED = 20180613  # fixed, so that every run holds out the same images


@dataclass
class Split:
    """images: uint8 (N, channels, height, width); labels: int32 (N,)."""
    images: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    def select(self, index):
        return Split(self.images[index], self.labels[index])


def load_cifar10(data_dir=None, num_samples=None, holdout=0):
    """CIFAR-10's training and validation splits.

    Parameters
    ----------
    data_dir : str or None
        Folder of the binary batches; None is MXNet's own data folder. Missing or damaged files
        are fetched.
    num_samples : int or None
        Keep only the first so many images of each split.
    holdout : int
        If not 0, take so many images out of the training set and validate on them; otherwise
        validate on the test set.

    Returns
    -------
    (Split, Split)
    """
    folder = fetch.ensure_files(fetch.CIFAR10, data_dir)
    names = list(fetch.CIFAR10.digests)
    train = _read_cifar([folder / name for name in names[:5]])
    if holdout:
        if holdout >= len(train):
            raise UserError(f'--holdout {holdout}: the training set has {len(train)} images')
        order = np.random.default_rng(HOLDOUT_SEED).permutation(len(train))
        train, validation = train.select(np.sort(order[holdout:])), train.select(order[:holdout])
    else:
        validation = _read_cifar([folder / names[5]])
    return train.select(slice(num_samples)), validation.select(slice(num_samples))


def _read_cifar(paths):
    rows = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, 1 + 3072) for path in paths])
    return Split(np.ascontiguousarray(rows[:, 1:]).reshape(-1, 3, 32, 32),
                 rows[:, 0].astype(np.int32))
