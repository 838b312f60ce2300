"""Features of a net: recorded for figures, averaged by class. Knows nothing of mxnet."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Optional, TypeVar

import numpy as np

from training.errors import UserError

MOST_EPOCHS = 50
Kind = TypeVar('Kind', bound='Record')


class Record:
    """A dataclass of arrays, numbers and texts that a run keeps in a file."""

    def save(self, file: IO[bytes]) -> None:
        """Write it as .npz to a binary file."""
        np.savez_compressed(
            file,
            **{name: array for name, array in asdict(self).items() if array is not None},  # type: ignore[call-overload]
        )

    @classmethod
    def load(cls: type[Kind], path: Path) -> Kind:
        """Read what `save` wrote; UserError if the file is damaged or something else."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            return cls(**{name: array if array.ndim else array.item() for name, array in arrays.items()})
        except Exception as error:  # zipfile, zlib, numpy and cls each raise their own kinds
            raise UserError(f'{path}: holds no features of a run ({error})') from None


@dataclass
class Snapshot(Record):
    """Features of a sample of both splits at one point of a training.

    Attributes
    ----------
    train_features, test_features : array (N, D)
    train_labels, test_labels : array (N,)
    centers : array (C, D) or None
        Centers or class means, where the loss has them.
    deviations : array (C, D) or None
        One standard deviation of each class along each axis, under L-GM.
    epoch : int or None
        After which they were taken; None in files of an earlier version, which lack what follows too.
    predicted, probability : array (N,) or None
        The class that the net predicts for each image and its posterior; training images come first.
    log_likelihood : array (N,) or None
        Under L-GM, with this epoch's spread.
    spread : float or None
        The variances of the densities over those of `deviations`, by gmloss.fit_spread.
    priors : array (C,) or None
        Of the classes, under L-GM.
    """

    train_features: np.ndarray
    train_labels: np.ndarray
    test_features: np.ndarray
    test_labels: np.ndarray
    centers: Optional[np.ndarray] = None
    deviations: Optional[np.ndarray] = None
    epoch: Optional[int] = None
    predicted: Optional[np.ndarray] = None
    probability: Optional[np.ndarray] = None
    log_likelihood: Optional[np.ndarray] = None
    spread: Optional[float] = None
    priors: Optional[np.ndarray] = None

    @property
    def dimensions(self) -> int:
        return self.train_features.shape[1]

    def in_plane(self) -> 'Snapshot':
        """The snapshot on the two principal axes of its training features; two stay as they are.

        Deviations along other axes cannot be carried over and are left out.
        """
        if self.dimensions == 2:
            return self
        axes, _ = principal_axes(self.train_features)
        return replace(
            self,
            train_features=self.train_features @ axes,
            test_features=self.test_features @ axes,
            deviations=None,
            centers=None if self.centers is None else self.centers @ axes,
        )

    def halved(self) -> 'Snapshot':
        """The snapshot with its features in half precision, if there are more than two dimensions."""
        if self.dimensions == 2:
            return self
        most = np.finfo(np.float16).max
        train, test = (
            features.clip(-most, most).astype(np.float16)
            for features in (self.train_features, self.test_features)
        )
        return replace(self, train_features=train, test_features=test)


def is_recorded(epoch: int, epochs: int) -> bool:
    """Whether features are recorded after this epoch of so many: the first, the last and every n-th.

    n is the lowest power of two that leaves at most MOST_EPOCHS of the latter.
    """
    every = 1
    while epochs // every > MOST_EPOCHS:
        every *= 2
    return epoch in (1, epochs) or epoch % every == 0


def principal_axes(features: np.ndarray) -> tuple[np.ndarray, float]:
    """The two principal axes (D, 2) of features (N, D), and the share of the variance along them.

    Of two dimensions they are the dimensions themselves; of a single one the second is zero.
    """
    dimensions = features.shape[1]
    if dimensions == 2:
        return np.eye(2), 1.0
    features = features.astype(np.float64)
    _, lengths, principal = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    axes = np.zeros((dimensions, 2))
    axes[:, : len(principal[:2])] = principal[:2].T
    squares = lengths**2
    return axes, float(squares[:2].sum() / max(squares.sum(), np.finfo(float).tiny))


def class_means(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(classes, means): the labels (K,) that occur, and the mean feature (K, D) of each."""
    classes = np.unique(labels)
    member = np.equal(labels, classes[:, None]).astype(features.dtype)
    return classes, member @ features / member.sum(axis=1, keepdims=True)
