"""Posterior, likelihoods and thresholds against plain loops."""

import math

import numpy as np
import pytest
from mxnet import gluon, nd

from gmloss import DiagonalMixture, FixedVolumeMixture, MixtureInference, calibrate, fit_spread

B, C, D = 20, 4, 3


def density(x, mean, variance):
    """Of a Gaussian with diagonal covariance, by its definition."""
    return math.prod(
        math.exp(-((x[d] - mean[d]) ** 2) / 2 / variance[d]) / math.sqrt(2 * math.pi * variance[d])
        for d in range(len(x))
    )


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('kind', [DiagonalMixture, FixedVolumeMixture])
@pytest.mark.parametrize('spread', [1, 0.04])
def test_equals_the_densities_of_gaussians(kind, hybridize, spread):
    rng = np.random.default_rng(0)
    mixture = kind(C, D)
    inference = MixtureInference(gluon.nn.HybridLambda('identity'), mixture, spread)
    inference.initialize()
    mixture.cast('float64')
    mixture.rho.set_data(nd.array(rng.normal(size=(C, D)), dtype='float64'))
    if hybridize:
        inference.hybridize()
    x, mean = rng.normal(size=(B, D)), mixture.mean.data().asnumpy()
    variance = mixture.variances().asnumpy()
    posterior, whole, predicted = (a.asnumpy() for a in inference(nd.array(x, dtype='float64')))
    for b in range(B):
        trained = [density(x[b], mean[k], variance[k]) for k in range(C)]
        assert posterior[b] == pytest.approx([p / sum(trained) for p in trained], rel=1e-9)
        densities = [density(x[b], mean[k], spread * variance[k]) for k in range(C)]
        assert whole[b] == pytest.approx(math.log(sum(densities) / C), rel=1e-9)
        assert predicted[b] == pytest.approx(math.log(densities[np.argmax(trained)]), rel=1e-9)


def test_spread_is_the_likeliest_one():
    rng = np.random.default_rng(0)
    x, variance = 0.3 * rng.normal(size=(500, D)), [0.5, 1.0, 2.0]
    x *= np.sqrt(variance)
    spread = fit_spread([sum(row**2 / variance) / 2 for row in x], D)
    assert spread == pytest.approx(0.09, rel=0.1)

    def likelihood(factor):
        return sum(math.log(density(row, [0] * D, [factor * spread * v for v in variance])) for row in x)

    assert likelihood(1) > max(likelihood(0.99), likelihood(1.01))


@pytest.mark.parametrize('distances', [[], [0.0, 0.0], [1.0, np.nan], [np.inf]])
@pytest.mark.filterwarnings('ignore:Mean of empty slice', 'ignore:invalid value')
def test_impossible_spreads_are_refused(distances):
    with pytest.raises(ValueError, match='a spread needs'):
        fit_spread(distances, D)
    with pytest.raises(ValueError, match='a spread needs'):
        fit_spread([1.0], 0)
    with pytest.raises(ValueError, match='spread must be above 0'):
        MixtureInference(gluon.nn.HybridLambda('identity'), DiagonalMixture(C, D), 0)
    with pytest.raises(ValueError, match='spread must be above 0'):
        MixtureInference(gluon.nn.HybridLambda('identity'), DiagonalMixture(C, D), math.inf)


def test_far_samples_are_unlikely_but_finite():
    inference = MixtureInference(gluon.nn.HybridLambda('identity'), DiagonalMixture(C, D))
    inference.initialize()
    posterior, whole, predicted = inference(nd.array([[1e3] * D, [1e6] * D, [0] * D]))
    assert np.isfinite(whole.asnumpy()).all() and np.isfinite(predicted.asnumpy()).all()
    assert whole.asnumpy()[1] < whole.asnumpy()[0] < whole.asnumpy()[2]
    np.testing.assert_allclose(posterior.asnumpy().sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize('rate', [0.0, 0.01, 0.05, 0.333, 0.999])
def test_threshold_keeps_to_the_false_alarm_rate_and_no_higher_one_does(rate):
    values = np.random.default_rng(0).normal(size=997)
    threshold = calibrate(values, rate)
    assert np.mean(values < threshold) <= rate
    assert np.mean(values < np.nextafter(threshold, np.inf)) > rate


def test_rate_is_met_where_the_product_falls_short_in_floating_point():
    assert 0.29 * 100 < 29 and calibrate(np.arange(100.0), 0.29) == 29
    assert calibrate(np.arange(10.0), 0.99999999) == 9


def test_both_kinds_of_array_are_taken_and_other_shapes_are_not():
    values = np.arange(100.0)[::-1]
    for function, setting in ((fit_spread, D), (calibrate, 0.05)):
        assert function(nd.array(values), setting) == function(values, setting)
        with pytest.raises(ValueError, match=r'shape \(N,\), not \(100, 1\)'):
            function(values.reshape(100, 1), setting)


@pytest.mark.parametrize('values, rate', [([], 0.1), ([1.0], 1.0), ([1.0], -0.1), ([np.nan], 0.1)])
def test_impossible_calibrations_are_refused(values, rate):
    with pytest.raises(ValueError, match='calibration needs'):
        calibrate(values, rate)
