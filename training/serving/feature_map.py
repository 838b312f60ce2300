"""Where a run's features lie, in a plane."""

import math
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from training.errors import UserError
from training.runs.features import Snapshot, principal_axes
from training.serving.predictor import Predictor

POINTS = 1000  # at most, of the background
SHARE = 0.95  # of a class's Gaussian in the plane that its ellipse holds, where features have more dimensions


@dataclass
class FeatureMap:
    """A plane with what is known of a run's feature space.

    Attributes
    ----------
    origin : array (D,)
    axes : array (D, 2)
        Of the plane: two features stay as they are, more are projected on the two principal axes of
        `points`, or of the class means where no features were kept.
    points, labels : array (N, 2), array (N,)
        Validation images, N = 0 where the run kept none.
    means : array (C, 2) or None
        Class means or centers.
    ellipses : array (C, 3) or None
        Half axes and the angle of the first in radians, around the means. In two dimensions the
        images outside of all of them are those called unlike the training data.
    """

    origin: np.ndarray
    axes: np.ndarray
    points: np.ndarray
    labels: np.ndarray
    means: Optional[np.ndarray] = None
    ellipses: Optional[np.ndarray] = None

    def place(self, features: np.ndarray) -> np.ndarray:
        """Positions (..., 2) of features (..., D)."""
        return (features - self.origin) @ self.axes

    def to_json(self) -> dict[str, Any]:
        """What the page draws."""

        def listed(array: Optional[np.ndarray]) -> Optional[list]:
            return None if array is None else np.round(array.astype(np.float64), 4).tolist()

        return {
            'dimensions': len(self.axes),
            'points': listed(self.points),
            'labels': self.labels.tolist(),
            'means': listed(self.means),
            'ellipses': listed(self.ellipses),
        }


def feature_map(predictor: Predictor) -> Optional[FeatureMap]:
    """The map of a run; None where it has neither class means nor kept features.

    Errors are those of `kept_features`.
    """
    centers = predictor.centers
    kept = kept_features(predictor)
    if kept is None and centers is None:
        return None
    spread_out = centers if kept is None else kept[0]
    dimensions = spread_out.shape[1]
    origin, axes = np.zeros(dimensions), np.eye(dimensions, 2)
    if dimensions > 2:
        origin = spread_out.mean(axis=0)
        axes, _ = principal_axes(spread_out)
    plane = FeatureMap(origin, axes, np.empty((0, 2)), np.empty(0, int))
    if kept is not None:
        plane.points, plane.labels = plane.place(kept[0]), kept[1]
    if centers is not None:
        plane.means = plane.place(centers)
    if predictor.mixture is not None:
        plane.ellipses = ellipses(predictor, axes)
    return plane


def kept_features(predictor: Predictor) -> Optional[tuple[np.ndarray, np.ndarray]]:
    """Features (N, D) and labels (N,) of validation images that the run kept, or None.

    Raises
    ------
    UserError
        If the file is damaged or of another run.
    """
    path = predictor.folder.features
    if not path.exists():
        return None
    snapshot = Snapshot.load(path)
    features, labels = snapshot.test_features, snapshot.test_labels
    if (
        features.shape != (len(labels), predictor.feature_size)
        or not np.isin(labels, range(len(predictor.class_names))).all()
    ):
        raise UserError(f'{path}: holds features of another run than the weights; remove one of the two')
    usable = np.flatnonzero(np.isfinite(features).all(axis=1))[:POINTS]
    return features[usable], labels[usable]


def ellipses(predictor: Predictor, axes: np.ndarray) -> Optional[np.ndarray]:
    """Half axes and angle, (C, 3), of each class's ellipse in the plane of `axes` (D, 2).

    In two dimensions, and with a threshold, the log-likelihood falls to it at the ellipse, as far as
    other classes add nothing. Otherwise the ellipse holds 95 % of the class's Gaussian in the plane.
    None where variances are no positive numbers.
    """
    variances = predictor.spread * predictor.mixture.variances().asnumpy().astype(np.float64)
    if not (np.isfinite(variances).all() and (variances > 0).all()):
        return None
    squared_radius = np.full(len(variances), -2 * math.log(1 - SHARE))
    if len(axes) == 2 and predictor.threshold is not None:
        squared_radius = 2 * np.maximum(predictor.likelihood_of_means() - predictor.threshold, 0)
    lengths, directions = np.linalg.eigh(np.einsum('da,kd,db->kab', axes, variances, axes))
    half_axes = np.sqrt(lengths * squared_radius[:, None])
    angles = np.arctan2(directions[:, 1, 0], directions[:, 0, 0])
    return np.column_stack([half_axes, angles])
