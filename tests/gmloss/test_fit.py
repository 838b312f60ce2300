"""Fitted mixtures against NumPy's own means and covariances, and what they detect."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon, nd

from gmloss import MahalanobisScore, MixtureClassifier, MixtureInference, fit_mixture

C, D, N = 4, 3, 400
SHARED = ('isotropic-shared', 'diagonal-shared', 'full-shared')


def sample():
    rng = np.random.default_rng(0)
    label = rng.choice(C, N, p=[0.1, 0.2, 0.3, 0.4])
    means = 5 * rng.normal(size=(C, D)) + 1000
    return means[label] + rng.normal(size=(N, D)) @ rng.normal(size=(D, D)), label


def batch(values, start):
    return nd.array(values[start : start + 50], dtype='float64')


def of_class(x, label, k, covariance):
    if covariance in SHARED:
        gaps = np.concatenate([x[label == j] - x[label == j].mean(axis=0) for j in range(C)])
        full = gaps.T @ gaps / (N - C)
    else:
        full = np.cov(x[label == k].T)
    if covariance.startswith('full'):
        return full
    if covariance.startswith('diagonal'):
        return np.diag(np.diag(full))
    return np.eye(D) * (1 if covariance == 'identity' else np.trace(full) / D)


@pytest.mark.parametrize('streamed', [False, True])
@pytest.mark.parametrize('covariance', ['identity', 'isotropic', 'diagonal', *SHARED])
def test_fit_is_the_closed_form_and_gives_its_densities(covariance, streamed):
    x, label = sample()
    inputs = (x, label)
    if streamed:
        inputs = [map(batch, [a] * 8, range(0, N, 50)) for a in inputs]
    mixture = fit_mixture(*inputs, C, covariance)
    np.testing.assert_allclose(mixture.priors().asnumpy(), np.bincount(label) / N, rtol=1e-5)
    wanted = np.stack([x[label == k].mean(axis=0) for k in range(C)])
    np.testing.assert_allclose(mixture.means().asnumpy(), wanted, rtol=1e-5)
    log_joint = []
    for k in range(C):
        full, gap = of_class(x, label, k, covariance), x - wanted[k]
        np.testing.assert_allclose(mixture.variances().asnumpy()[k], np.diag(full), rtol=1e-3)
        q = (gap @ np.linalg.inv(full) * gap).sum(axis=1) / 2
        log_joint.append(np.log(np.mean(label == k)) - q - np.linalg.slogdet(2 * np.pi * full)[1] / 2)
    inference = MixtureInference(gluon.nn.HybridLambda('identity'), mixture)
    inference.hybridize()
    posterior, whole, _ = (a.asnumpy() for a in inference(nd.array(x)))
    total = np.logaddexp.reduce(log_joint, axis=0)
    np.testing.assert_allclose(whole, total, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(posterior, np.exp(log_joint - total).T, atol=5e-3)


def test_scores_are_mahalanobis_distances_and_relative_ones():
    x, label = sample()
    mixture, background = fit_mixture(x, label, C), fit_mixture(x, 0 * label, 1)
    identity = gluon.nn.HybridLambda('identity')
    far = np.concatenate([x[:5], x[:5] + 50])
    to_all = (far - x.mean(axis=0)) @ np.linalg.inv(np.cov(x.T))
    to_all = (to_all * (far - x.mean(axis=0))).sum(axis=1) / 2
    nearest = np.min(
        [
            ((far - m) @ np.linalg.inv(of_class(x, label, 0, 'full-shared')) * (far - m)).sum(axis=1) / 2
            for m in (x[label == k].mean(axis=0) for k in range(C))
        ],
        axis=0,
    )
    for score, want in (
        (MahalanobisScore(identity, mixture), -nearest),
        (MahalanobisScore(identity, mixture, background), to_all - nearest),
    ):
        for _ in range(2):
            np.testing.assert_allclose(score(nd.array(far)).asnumpy(), want, rtol=2e-3, atol=2e-3)
            score.hybridize()
    assert -nearest[:5].max() > -nearest[5:].min()


@pytest.mark.parametrize('contexts', [1, 2])
@pytest.mark.parametrize('covariance', ['identity', 'isotropic', 'diagonal', *SHARED])
def test_fitted_mixture_is_the_same_hybridised_and_exported(covariance, contexts, tmp_path):
    x, label = sample()
    contexts = [mx.cpu(k) for k in range(contexts)]
    mixture, parts = (
        fit_mixture(x, label, C, covariance, ctx=contexts),
        [nd.array(x[:8], ctx=ctx) for ctx in contexts],
    )
    background = fit_mixture(x, 0 * label, 1, covariance, ctx=contexts)
    identity = gluon.nn.HybridLambda('identity')
    for block in (
        MixtureClassifier(identity, mixture),
        MixtureInference(identity, mixture, 2.0),
        MahalanobisScore(identity, mixture, background),
    ):

        def outputs(block, part):
            found = block(part)
            return [a.asnumpy() for a in (found if isinstance(found, (list, tuple)) else [found])]

        want = outputs(block, parts[0])
        block.hybridize(static_alloc=True, static_shape=True)
        found = [outputs(block, part) for part in parts]
        block.export(str(tmp_path / 'model'))
        loaded = gluon.SymbolBlock.imports(
            str(tmp_path / 'model-symbol.json'), ['data'], str(tmp_path / 'model-0000.params'), ctx=contexts
        )
        for part in (*found, *(outputs(loaded, part) for part in parts)):
            for got, expected in zip(part, want):
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_dead_features_are_left_out_or_bounded():
    x, label = sample()
    x[:, 1] = 0
    for covariance in ('full-shared', 'diagonal', 'diagonal-shared'):
        distance, log_det = fit_mixture(x, label, C, covariance)(nd.array(x))
        assert np.isfinite(distance.asnumpy()).all() and np.isfinite(log_det.asnumpy()).all()


def test_impossible_fits_are_refused():
    x, label = sample()
    for inputs, message in (
        ((x, label, C, 'full'), 'covariance must be one of'),
        ((x, label, C - 1), 'labels must be 0 to 2'),
        ((x, label, C + 1), 'class 4 has too few'),
        ((x * np.nan, label, C), 'finite'),
        ((x[:, 0], label, C), 'are needed'),
        (([], [], C), 'no features'),
        ((np.ones((8, D)), np.arange(8) % C, C), 'all the same'),
    ):
        with pytest.raises(ValueError, match=message):
            fit_mixture(*inputs)
