"""Whether two images are of the same class, by the distance of their features. Knows nothing of mxnet."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import auc, roc_curve

FALSE_ACCEPT_RATES = 0.1, 0.01, 0.001
MOST_PAIRS = 2_000_000
AT_ONCE = 2000  # rows of a product of features
DISTANCES = 'cosine', 'euclidean'


@dataclass
class Pairs:
    """Pairs of N images: numbers of both, (P,) each, and whether they are of the same class, (P,)."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


def all_pairs(labels: np.ndarray, seed: int = 0, most: int = MOST_PAIRS) -> Pairs:
    """Every pair of images; of more than `most`, about so many at random, up to half of them of one class.

    ValueError where there are no pairs of one class, or none of two.
    """
    labels = np.asarray(labels)
    count = len(labels)
    if count * (count - 1) // 2 <= most:
        first, second = np.triu_indices(count, 1)
    else:
        rng = np.random.default_rng(seed)
        first, second = _within(labels, rng, most // 2)
        others = rng.integers(0, count, (2, most - len(first)))
        others = others[:, labels[others[0]] != labels[others[1]]]
        first, second = np.concatenate([first, others[0]]), np.concatenate([second, others[1]])
    same = labels[first] == labels[second]
    if not same.any() or same.all():
        raise ValueError('verification needs pairs of one class and of two')
    return Pairs(first, second, same)


def _within(labels: np.ndarray, rng: np.random.Generator, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to about `most` pairs of one class, from each class in proportion to its number of pairs."""
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    total = sum(len(group) * (len(group) - 1) // 2 for group in groups)
    parts = []
    for group in groups:
        first, second = np.triu_indices(len(group), 1)
        if total > most:
            chosen = rng.permutation(len(first))[: round(most * len(first) / total)]
            first, second = first[chosen], second[chosen]
        parts.append((group[first], group[second]))
    return tuple(np.concatenate(part) for part in zip(*parts))  # type: ignore[return-value]


def prepared(features: np.ndarray, distance: str) -> np.ndarray:
    """Features (N, D) whose Euclidean distances order pairs as the distance of this name does."""
    features = np.asarray(features, np.float64).reshape(len(features), -1)
    if distance == 'euclidean':
        return features
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(float).tiny)


def likeness(features: np.ndarray, pairs: Pairs, distance: str) -> np.ndarray:
    """Minus the distance of each pair, (P,): the squared one, and for the cosine twice 1 - cosine."""
    features = prepared(features, distance)
    return -np.concatenate(
        [
            ((features[pairs.first[part]] - features[pairs.second[part]]) ** 2).sum(axis=1)
            for part in _parts(len(pairs.first))
        ]
    )


def _parts(count: int) -> list[slice]:
    return [slice(start, start + 50 * AT_ONCE) for start in range(0, count, 50 * AT_ONCE)]


def measures(scores: np.ndarray, same: np.ndarray) -> dict[str, float]:
    """How well scores tell pairs of one class (higher) from pairs of two.

    Returns
    -------
    dict
        - auc: area under the ROC curve.
        - eer: the error rate at the threshold where as many pairs of two classes are accepted as pairs
          of one are rejected; linear between two points of the curve.
        - tar_at_far_X: share of the pairs of one class that are accepted where at most the share X of
          the others is.
    """
    false, true, _ = roc_curve(same, scores, drop_intermediate=False)
    result = {'auc': float(auc(false, true)), 'eer': equal_error_rate(false, true)}
    for rate in FALSE_ACCEPT_RATES:
        result[f'tar_at_far_{rate:g}'] = float(true[false <= rate].max())
    return result


def equal_error_rate(false: np.ndarray, true: np.ndarray) -> float:
    """Where a ROC curve, as arrays of rates, meets the line false = 1 - true."""
    gap = false + true - 1
    above = int(np.argmax(gap >= 0))
    if gap[above] == 0 or above == 0:
        return float(false[above])
    share = -gap[above - 1] / (gap[above] - gap[above - 1])
    return float(false[above - 1] + share * (false[above] - false[above - 1]))


def rank_one(features: np.ndarray, labels: np.ndarray, distance: str) -> float:
    """Share of the images whose nearest other image is of their class; classes of one image are left out."""
    features, labels = prepared(features, distance), np.asarray(labels)
    squares = (features**2).sum(axis=1)
    right = []
    for start in range(0, len(features), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        gaps = squares - 2 * features[part] @ features.T
        gaps[np.arange(len(gaps)), np.arange(start, start + len(gaps))] = np.inf
        right.append(labels[gaps.argmin(axis=1)] == labels[part])
    has_others = np.bincount(labels)[labels] > 1
    return float(np.concatenate(right)[has_others].mean())
