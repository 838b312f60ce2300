"""Verification measures against plain loops."""

import numpy as np
import pytest

from training.metrics import verification


def plain_rates(scores, same, threshold):
    """(false-accept, true-accept) rates of accepting what is at least a threshold."""
    accepted = scores >= threshold
    return accepted[~same].mean(), accepted[same].mean()


def test_measures_agree_with_plain_loops():
    rng = np.random.default_rng(0)
    same = rng.random(400) < 0.3
    scores = np.round(rng.normal(size=400) + same, 1)  # with ties
    found = verification.measures(scores, same)
    wins = [(a > b) + (a == b) / 2 for a in scores[same] for b in scores[~same]]
    assert found['auc'] == pytest.approx(np.mean(wins))
    rates = [plain_rates(scores, same, threshold) for threshold in [np.inf, *np.unique(scores)[::-1]]]
    for far in verification.FALSE_ACCEPT_RATES:
        assert found[f'tar_at_far_{far:g}'] == pytest.approx(
            max(true for false, true in rates if false <= far)
        )
    false, true = np.array(rates).T
    dense = np.linspace(0, 1, 100001)
    crossing = dense[np.argmin(np.abs(np.interp(dense, false, true) - (1 - dense)))]
    assert found['eer'] == pytest.approx(crossing, abs=1e-3)


def test_perfect_and_reversed_scores():
    same = np.array([True, True, False, False])
    assert verification.measures(np.array([3, 2, 1, 0.0]), same)['eer'] == 0
    assert verification.measures(np.array([0, 1, 2, 3.0]), same)['eer'] == 1


def test_pairs_are_all_or_a_sample_that_is_half_of_one_class():
    labels = np.repeat(np.arange(20), 10)
    pairs = verification.all_pairs(labels)
    assert len(pairs.same) == 200 * 199 / 2 and pairs.same.sum() == 20 * 45
    some = verification.all_pairs(labels, seed=1, most=1000)
    assert 950 < len(some.same) <= 1000 and some.same.sum() == 500
    assert (some.first != some.second).all()
    again = verification.all_pairs(labels, seed=1, most=1000)
    assert (again.first == some.first).all() and (again.second == some.second).all()
    for labels in ([0, 0, 0], [0, 1, 2]):
        with pytest.raises(ValueError, match='pairs of one class and of two'):
            verification.all_pairs(np.array(labels))


@pytest.mark.parametrize('distance', verification.DISTANCES)
def test_likeness_and_rank_one_agree_with_plain_loops(distance):
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 1, 1, 1, 2])
    features = rng.normal(size=(6, 4)) + 2 * np.eye(4)[labels]

    def gap(a, b):
        if distance == 'euclidean':
            return np.linalg.norm(a - b) ** 2
        return 2 * (1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    pairs = verification.all_pairs(labels)
    wanted = [-gap(features[i], features[j]) for i, j in zip(pairs.first, pairs.second)]
    np.testing.assert_allclose(verification.likeness(features, pairs, distance), wanted)
    right = []
    for i in range(5):  # the sixth has no other of its class
        nearest = min((j for j in range(6) if j != i), key=lambda j: gap(features[i], features[j]))
        right.append(labels[nearest] == labels[i])
    assert verification.rank_one(features, labels, distance) == np.mean(right)
