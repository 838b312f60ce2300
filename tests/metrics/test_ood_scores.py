"""Scores and their measures by plain loops."""

import math

import numpy as np
import pytest

from training.metrics import ood_scores


@pytest.mark.parametrize('levels', [3, 1000])
@pytest.mark.parametrize('infinite', [False, True])
def test_measures_by_plain_loops(levels, infinite):
    """With few levels most scores are tied, infinite ones too."""
    rng = np.random.default_rng(0)
    inside = rng.integers(2, 2 + levels, 70).astype(float)
    outside = rng.integers(0, levels, 110).astype(float)
    if infinite:
        inside[inside == inside.max()] = outside[outside == outside.max()] = np.inf
        inside[inside == inside.min()] = outside[outside == outside.min()] = -np.inf
    won = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in inside for b in outside)
    precision_sum, passed_before, fpr = 0.0, 0, None
    for threshold in sorted(set(inside) | set(outside), reverse=True):
        passed, wrongly = sum(inside >= threshold), sum(outside >= threshold)
        precision_sum += (passed - passed_before) / 70 * passed / (passed + wrongly)
        passed_before = passed
        if fpr is None and passed / 70 >= 0.95:
            fpr = wrongly / 110
    assert ood_scores.measures(inside, outside) == pytest.approx(
        {'auroc': won / 70 / 110, 'aupr': precision_sum, 'fpr_at_95_tpr': fpr}, rel=1e-12
    )


def test_measures_at_the_ends():
    apart = ood_scores.measures([3.0, np.inf], [1.0, -np.inf])
    assert apart == {'auroc': 1, 'aupr': 1, 'fpr_at_95_tpr': 0}
    assert ood_scores.measures([1.0], [2.0])['auroc'] == 0
    assert ood_scores.measures([1.0, 1.0], [1.0])['auroc'] == 0.5
    for scores in ([], [np.nan]):
        with pytest.raises(ValueError, match='ROC curve'):
            ood_scores.measures(scores, [1.0])


def test_scores_by_plain_loops():
    rng = np.random.default_rng(0)
    logits, distance = rng.normal(size=(20, 4)), rng.random((20, 4))
    found = ood_scores.scores(logits, distance, np.arange(20.0))
    for i in range(20):
        best = max(range(4), key=lambda k: logits[i, k])
        probability = math.exp(logits[i, best]) / sum(math.exp(value) for value in logits[i])
        assert found['max_softmax'][i] == pytest.approx(math.log(probability / (1 - probability)), rel=1e-9)
        assert found['own_class_distance'][i] == -distance[i, best]
        assert found['log_likelihood_as_trained'][i] == pytest.approx(
            math.log(sum(math.exp(value) for value in logits[i])), rel=1e-9
        )
    assert list(ood_scores.scores(logits)) == ['max_softmax']
    sure = ood_scores.scores(np.array([[0, 100, 0], [0, 101, 0]], np.float32))['max_softmax']
    assert sure[0] < sure[1]  # though both probabilities are 1 in float64
