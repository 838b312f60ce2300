"""Features of a net: kept for figures, averaged by class. Knows nothing of mxnet."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Optional

import numpy as np

from training.errors import UserError


@dataclass
class Snapshot:
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
        After which they were taken; None in files of an earlier version.
    """

    train_features: np.ndarray
    train_labels: np.ndarray
    test_features: np.ndarray
    test_labels: np.ndarray
    centers: Optional[np.ndarray] = None
    deviations: Optional[np.ndarray] = None
    epoch: Optional[int] = None

    @property
    def dimensions(self) -> int:
        return self.train_features.shape[1]

    def in_plane(self) -> 'Snapshot':
        """The snapshot on the two principal axes of its training features; two stay as they are.

        Deviations along other axes cannot be carried over and are left out.
        """
        if self.dimensions == 2:
            return self
        centred = self.train_features - self.train_features.mean(axis=0)
        axes = np.zeros((self.dimensions, 2))
        principal = np.linalg.svd(centred, full_matrices=False)[2][:2].T
        axes[:, : principal.shape[1]] = principal
        return replace(
            self,
            train_features=self.train_features @ axes,
            test_features=self.test_features @ axes,
            deviations=None,
            centers=None if self.centers is None else self.centers @ axes,
        )

    def save(self, file: IO[bytes]) -> None:
        """Write it as .npz to a binary file."""
        np.savez_compressed(
            file, **{name: array for name, array in asdict(self).items() if array is not None}
        )

    @classmethod
    def load(cls, path: Path) -> 'Snapshot':
        """Read what `save` wrote; UserError if the file is damaged or something else."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            return cls(**{name: array if array.ndim else array.item() for name, array in arrays.items()})
        except Exception as error:  # zipfile, zlib, numpy and cls each raise their own kinds
            raise UserError(f'{path}: holds no features of a run ({error})') from None


def class_means(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(classes, means): the labels (K,) that occur, and the mean feature (K, D) of each."""
    classes = np.unique(labels)
    member = np.equal(labels, classes[:, None]).astype(features.dtype)
    return classes, member @ features / member.sum(axis=1, keepdims=True)
