"""Accuracies by class against scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from training.metrics.classes import class_report


def test_report_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.choice(8, 300, p=[0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05])
    logits = rng.normal(size=(300, 8))
    logits[np.arange(300), labels] += 1
    found = class_report(logits, labels, tuple('abcdefgh'))
    predicted = logits.argmax(axis=1)
    assert found.top1 == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert found.top5 == pytest.approx(metrics.top_k_accuracy_score(labels, logits, k=5))
    assert found.balanced == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(labels, predicted))
    np.testing.assert_allclose(found.precisions, metrics.precision_score(labels, predicted, average=None))
    assert (predicted[found.wrong] != labels[found.wrong]).all() and len(found.wrong) == (
        predicted != labels
    ).sum()
    assert (np.diff(found.probability[found.wrong]) <= 0).all()
    posterior = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.probability, posterior.max(axis=1))


def test_class_without_images_counts_in_no_mean():
    found = class_report(np.eye(3)[[0, 1, 1]], np.array([0, 1, 0]), ('one', 'two', 'none'))
    assert found.balanced == 0.75 and found.summary() == {'top5_acc': 1.0, 'balanced_acc': 0.75}
    first, second, none = found.rows()
    assert first == {
        'class': 'one', 'images': 2, 'accuracy': 0.5, 'precision': 1.0, 'most_often_taken_for': 'two (1)',
    }  # fmt: skip
    assert second['most_often_taken_for'] == '' and none['accuracy'] is None is none['precision']
