"""The map shows features where they are, and ends its ellipses where images begin to be flagged."""

import numpy as np
import pytest
from mxnet import nd

from training.errors import UserError
from training.runs.features import Snapshot
from training.runs.folder import RunFolder
from training.serving.feature_map import feature_map

from .conftest import CENTER, CIFAR, MNIST, SOFTMAX


def outline(plane, k, scale=1.0):
    """Points on the ellipse of a class, (50, 2)."""
    first, second, angle = plane.ellipses[k]
    turn = np.linspace(0, 2 * np.pi, 50)
    x, y = scale * first * np.cos(turn), scale * second * np.sin(turn)
    rotated = [x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)]
    return plane.means[k] + np.transpose(rotated)


def test_images_are_flagged_outside_of_the_ellipses(predictors):
    predictor = predictors[MNIST]
    plane = feature_map(predictor)
    precision = 1 / (predictor.spread * predictor.mixture.variances().asnumpy().astype(float))
    means = predictor.mixture.means().asnumpy().astype(float)

    def log_likelihood(points):
        gaps = points[:, None] - means
        density = np.exp(-0.5 * (gaps**2 * precision).sum(axis=2)) * np.sqrt(precision.prod(axis=1))
        return np.log(density.mean(axis=1) / (2 * np.pi))

    for k in range(10):
        inside, outside = (log_likelihood(outline(plane, k, scale)) for scale in (0.99, 1.01))
        assert (inside > predictor.threshold).all() and (outside < predictor.threshold).all()
        np.testing.assert_allclose(log_likelihood(outline(plane, k)), predictor.threshold, atol=0.01)


def test_two_features_stay_as_they_are(predictors):
    plane = feature_map(predictors[CENTER])
    snapshot = Snapshot.load(predictors[CENTER].folder.features)
    np.testing.assert_array_equal(plane.points, snapshot.test_features[:1000])
    np.testing.assert_array_equal(plane.means, predictors[CENTER].centers)
    assert plane.ellipses is None and len(plane.labels) == 1000


def test_more_dimensions_are_shown_on_principal_axes_with_the_gaussians_in_that_plane(predictors):
    predictor = predictors[CIFAR]
    plane = feature_map(predictor)
    np.testing.assert_allclose(plane.axes.T @ plane.axes, np.eye(2), atol=1e-6)
    spreads = np.linalg.svd(predictor.centers - predictor.centers.mean(axis=0))[1]
    np.testing.assert_allclose(np.sqrt((plane.means**2).sum(axis=0)), spreads[:2], rtol=1e-4)
    drawn = np.random.default_rng(0).normal(
        predictor.centers[3],
        np.sqrt(predictor.spread * predictor.mixture.variances().asnumpy()[3]),
        (4000, 64),
    )
    gaps, (first, second, angle) = plane.place(drawn) - plane.means[3], plane.ellipses[3]
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert np.mean(((gaps @ turn.T / [first, second]) ** 2).sum(axis=1) < 1) == pytest.approx(0.95, abs=0.015)


def test_run_without_means_and_features_has_no_map(predictors):
    assert feature_map(predictors[SOFTMAX]) is None


def test_likelihood_of_means_is_that_of_the_net(predictors):
    predictor = predictors[MNIST]
    means = predictor.mixture.means()
    distance, log_det = predictor.mixture(means)[:2]
    terms = -distance / predictor.spread - log_det / 2
    wanted = nd.log(nd.exp(terms).mean(axis=1)).asnumpy() - np.log(2 * np.pi * predictor.spread)
    np.testing.assert_allclose(predictor.likelihood_of_means(), wanted, atol=1e-4)


@pytest.mark.parametrize('features, labels', [(np.zeros((3, 5)), [0, 1, 2]), (np.zeros((3, 2)), [0, 1, 10])])
def test_features_of_another_run_are_refused(predictors, monkeypatch, tmp_path, features, labels):
    folder = RunFolder(tmp_path)
    with open(folder.features, 'wb') as file:
        Snapshot(features, np.array(labels), features, np.array(labels)).save(file)
    monkeypatch.setattr(predictors[MNIST], 'folder', folder)
    with pytest.raises(UserError, match='features.npz: holds features of another run than the weights'):
        feature_map(predictors[MNIST])
