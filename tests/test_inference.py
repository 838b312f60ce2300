"""Posterior, likelihoods and thresholds against plain loops."""
import math

import numpy as np
import pytest
from mxnet import gluon, nd

from gmloss import DiagonalMixture, FixedVolumeMixture, MixtureInference, calibrate

B, C, D = 20, 4, 3


def density(x, mean, variance):
    """Of a Gaussian with diagonal covariance, by its definition."""
    return math.prod(math.exp(-(x[d] - mean[d]) ** 2 / 2 / variance[d]) /
                     math.sqrt(2 * math.pi * variance[d]) for d in range(len(x)))


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('kind', [DiagonalMixture, FixedVolumeMixture])
def test_equals_the_densities_of_gaussians(kind, hybridize):
    rng = np.random.default_rng(0)
    mixture = kind(C, D)
    inference = MixtureInference(gluon.nn.HybridLambda('identity'), mixture)
    inference.initialize()
    mixture.cast('float64')
    mixture.rho.set_data(nd.array(rng.normal(size=(C, D)), dtype='float64'))
    if hybridize:
        inference.hybridize()
    x, mean = rng.normal(size=(B, D)), mixture.mean.data().asnumpy()
    variance = mixture.variances().asnumpy()
    posterior, whole, predicted = (a.asnumpy() for a in inference(nd.array(x, dtype='float64')))
    for b in range(B):
        densities = [density(x[b], mean[k], variance[k]) for k in range(C)]
        assert posterior[b] == pytest.approx([p / sum(densities) for p in densities], rel=1e-9)
        assert whole[b] == pytest.approx(math.log(sum(densities) / C), rel=1e-9)
        assert predicted[b] == pytest.approx(math.log(max(densities)), rel=1e-9)


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


@pytest.mark.parametrize('values, rate', [([], 0.1), ([1.0], 1.0), ([1.0], -0.1), ([np.nan], 0.1)])
def test_impossible_calibrations_are_refused(values, rate):
    with pytest.raises(ValueError, match='calibration needs'):
        calibrate(values, rate)
