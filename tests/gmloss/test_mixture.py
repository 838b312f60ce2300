"""The mixtures of gmloss against plain loops: distances, variances, precision, inference."""

import math

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from mxnet.contrib.amp.amp import bfloat16
from plain import MIXTURES, B, C, D, forward_backward, make, plain_mixture

from gmloss import (
    DiagonalMixture,
    FixedVolumeMixture,
    GaussianMixture,
    InverseSumMixture,
    LGMLoss,
    MixtureClassifier,
    MixtureInference,
    RawDiagonalMixture,
)
from gmloss.covariance import softplus


@pytest.mark.parametrize('kind', MIXTURES)
def test_distances_and_log_determinants_equal_plain_loops(kind):
    mixture, _, x, mean, second, _ = make(kind)
    outputs = mixture(nd.array(x, dtype='float64'))
    expected = plain_mixture(kind, x, mean, second)
    for got, want in zip(outputs, expected):
        np.testing.assert_allclose(got.asnumpy(), want, rtol=1e-12, atol=1e-12)
    variances = mixture.variances().asnumpy()  # without the 1e-8 that published forms add to them
    np.testing.assert_allclose(((x[:, None] - mean) ** 2 / variances).sum(axis=2) / 2, expected[0], rtol=1e-7)


def test_v6_form_is_the_euclidean_distance_times_the_summed_inverse_variances():
    mixture, _, x, mean, second, _ = make(InverseSumMixture)
    distance, log_det, euclidean = (a.asnumpy() for a in mixture(nd.array(x, dtype='float64')))
    diagonal = ((x[:, None] - mean) ** 2 / second).sum(axis=2) / 2
    np.testing.assert_allclose(distance, euclidean * (1 / second).sum(axis=1), rtol=1e-6)
    assert np.abs(distance / diagonal - 1).min() > 0.1
    assert (log_det == 0).all()


@pytest.mark.parametrize('rho', [-1e3, 0.0, 1e3])
def test_fixed_volume_is_the_same_whatever_all_parameters_share(rho):
    rng = np.random.default_rng(3)
    mixture = FixedVolumeMixture(C, D)
    mixture.initialize()
    values = rng.normal(size=(C, D))
    mixture.rho.set_data(nd.array(values + rho))
    variances = mixture.variances().asnumpy()
    np.testing.assert_allclose(np.log(variances), values - values.mean(), atol=1e-3)
    assert abs(mixture(nd.ones((B, D)))[1].asnumpy().mean()) < 1e-3


@pytest.mark.parametrize('offset', [0.0, 1000.0])
def test_float32_distances_survive_features_far_from_the_origin(offset):
    rng = np.random.default_rng(0)
    x, mean = rng.normal(size=(50, 64)) + offset, rng.normal(size=(7, 64)) + offset
    x32, mean32 = x.astype(np.float32), mean.astype(np.float32)
    want = ((x32.astype(np.float64)[:, None] - mean32) ** 2).sum(axis=2) / 2
    for kind in (GaussianMixture, DiagonalMixture):
        mixture = kind(7, 64)
        mixture.initialize()
        mixture.mean.set_data(nd.array(mean32))
        np.testing.assert_allclose(mixture(nd.array(x32))[0].asnumpy(), want, rtol=2e-5)


@pytest.mark.parametrize('kind', [GaussianMixture, DiagonalMixture])
def test_distance_is_never_negative(kind):
    mixture = kind(50, 64, mean_initializer=mx.init.Normal(10))
    mixture.initialize()
    distance, _ = mixture(mixture.mean.data())
    assert distance.asnumpy().min() >= 0


@pytest.mark.parametrize('kind', [GaussianMixture, DiagonalMixture])
def test_own_distances_and_gradients_survive_means_that_lie_far_apart(kind):
    rng = np.random.default_rng(0)
    mean = 300 * rng.normal(size=(20, 16))
    mixture, classes = kind(20, 16), np.repeat(np.arange(20), 10)
    mixture.initialize()
    mixture.mean.set_data(nd.array(mean))
    x = nd.array(mean[classes] + 0.01 * rng.normal(size=(200, 16)))
    x.attach_grad()
    with autograd.record():
        own = nd.pick(mixture(x)[0], nd.array(classes))
    own.backward()
    want = x.asnumpy() - mixture.mean.data().asnumpy()[classes]
    np.testing.assert_allclose(own.asnumpy(), (want**2).sum(axis=1) / 2, rtol=1e-3)
    np.testing.assert_allclose(x.grad.asnumpy(), want, atol=1e-3)


@pytest.mark.parametrize('kind', MIXTURES)
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_low_precision_features_are_measured_in_float32(kind, dtype):
    rng = np.random.default_rng(1)
    mixture, loss_fn = kind(C, D), LGMLoss()
    mixture.initialize()
    loss_fn.initialize()
    for name in ('rho', 'variance'):
        if hasattr(mixture, name):
            getattr(mixture, name).set_data(nd.array(rng.uniform(0.3, 2, (C, D))))
    if dtype == 'float16':
        mixture.cast(dtype)
        loss_fn.cast(dtype)
    low = mx.nd.amp_cast(
        nd.array(rng.normal(size=(B, D)) * 100), dtype=bfloat16 if dtype == 'bfloat16' else dtype
    )
    as_float32 = mx.nd.amp_cast(low, dtype='float32')
    distance, log_det = mixture(low)[:2]
    loss = loss_fn(distance, log_det, nd.array([0, 1, 2, 3, 4, 0]))
    assert distance.dtype == loss.dtype == mixture.mean.data().dtype == np.float32
    want = (
        (as_float32.asnumpy()[:, None] - mixture.mean.data().asnumpy()) ** 2 / mixture.variances().asnumpy()
    ).sum(2) / 2
    np.testing.assert_allclose(distance.asnumpy(), want, rtol=1e-5)


@pytest.mark.parametrize('kind', MIXTURES[1:])
def test_gradients_in_float32_are_those_in_float64(kind):
    gradients = {}
    for dtype in ('float64', 'float32'):  # MXNet has operators of its own for float32 on a CPU
        mixture, loss_fn, x, *_ = make(kind, 'full', dtype, hybridize=True)
        forward_backward(mixture, loss_fn, x, nd.array([0, 1, 2, 3, 4, 0]), dtype)
        gradients[dtype] = [parameter.grad().asnumpy() for parameter in mixture.collect_params().values()]
    for found, want in zip(gradients['float32'], gradients['float64']):
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5 * abs(want).max())


@pytest.mark.parametrize('rho', [-1e4, -100.0, 0.0, 100.0, 1e4])
def test_variance_stays_positive_and_finite_whatever_the_parameter(rho):
    mixture = DiagonalMixture(C, D)
    mixture.initialize()
    mixture.rho.set_data(nd.full((C, D), rho))
    variance = mixture.variances().asnumpy()
    np.testing.assert_allclose(variance, max(rho, 0) + math.log1p(math.exp(-abs(rho))) + 1e-4, rtol=1e-6)
    outputs = [a.asnumpy() for a in mixture(nd.ones((B, D)))]
    assert (variance >= 1e-4 * 0.999).all() and all(np.isfinite(a).all() for a in outputs)


def test_variance_starts_at_the_value_asked_for():
    mixture = DiagonalMixture(C, D, variance_init=0.37)
    mixture.initialize()
    np.testing.assert_allclose(mixture.variances().asnumpy(), 0.37, rtol=1e-6)


@pytest.mark.parametrize(
    'kind, multipliers',
    [
        (DiagonalMixture, (1, 0)),
        (FixedVolumeMixture, (1, 0)),
        (RawDiagonalMixture, (1, 1)),
        (InverseSumMixture, (0.01, 1)),
    ],
)
def test_variances_have_the_documented_multipliers(kind, multipliers):
    for settings, expected in (({}, multipliers), ({'variance_lr_mult': 3, 'variance_wd_mult': 5}, (3, 5))):
        mixture = kind(C, D, **settings)
        second = next(p for p in mixture.params.values() if p is not mixture.mean)
        assert (second.lr_mult, second.wd_mult) == expected
        assert (mixture.mean.lr_mult, mixture.mean.wd_mult) == (1, 1)


def test_parameter_groups_have_their_own_multipliers_and_initialisers():
    mixture = DiagonalMixture(
        C,
        D,
        mean_initializer=mx.init.Constant(3),
        mean_lr_mult=2,
        mean_wd_mult=0.5,
        variance_lr_mult=0.06,
        variance_wd_mult=0.1,
    )
    mixture.initialize(mx.init.Zero())
    assert (mixture.mean.data().asnumpy() == 3).all()
    assert (mixture.mean.lr_mult, mixture.mean.wd_mult) == (2, 0.5)
    assert (mixture.rho.lr_mult, mixture.rho.wd_mult) == (0.06, 0.1)
    before = mixture.mean.data().asnumpy().copy(), mixture.rho.data().asnumpy().copy()
    trainer = gluon.Trainer(mixture.collect_params(), 'sgd', {'learning_rate': 0.1})
    with autograd.record():
        (mixture.mean.data().sum() + mixture.rho.data().sum()).backward()
    trainer.step(1)
    np.testing.assert_allclose(before[0] - mixture.mean.data().asnumpy(), 0.2, rtol=1e-5)
    np.testing.assert_allclose(before[1] - mixture.rho.data().asnumpy(), 0.006, rtol=1e-4)


@pytest.mark.parametrize('kind', MIXTURES)
def test_classifier_needs_no_label_and_survives_export(kind, tmp_path):
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(8, activation='relu'), gluon.nn.Dense(D))
    mixture = kind(C, D)
    classifier = MixtureClassifier(net, mixture)
    classifier.initialize()
    classifier.hybridize()
    x = nd.random.normal(shape=(B, 3))
    logits = classifier(x).asnumpy()
    distance, log_det = mixture(net(x))[:2]
    np.testing.assert_allclose(logits, (-distance - log_det.expand_dims(0) / 2).asnumpy(), rtol=1e-6)
    classifier.export(str(tmp_path / 'model'))
    loaded = gluon.SymbolBlock.imports(
        str(tmp_path / 'model-symbol.json'), ['data'], str(tmp_path / 'model-0000.params')
    )
    np.testing.assert_array_equal(loaded(x).asnumpy(), logits)


def test_training_and_inference_share_parameters():
    mixture, loss_fn, x, *_ = make(GaussianMixture, dtype='float32')
    classifier = MixtureClassifier(gluon.nn.HybridLambda('identity'), mixture)
    before = classifier(nd.array(x)).asnumpy()
    trainer = gluon.Trainer(mixture.collect_params(), 'sgd', {'learning_rate': 0.5})
    forward_backward(mixture, loss_fn, x, nd.array([0, 1, 2, 3, 4, 0]), 'float32')
    trainer.step(1)
    assert np.abs(classifier(nd.array(x)).asnumpy() - before).max() > 0.01


@pytest.mark.parametrize('far', [False, True])
@pytest.mark.parametrize('variance', [1e-3, 1e-4])
def test_own_distances_are_accurate_in_float32_where_means_lie_far_apart(variance, far):
    rng = np.random.default_rng(0)
    mean = rng.normal(scale=50, size=(100, 64)).astype(np.float32)
    if far:
        mean[7] += 1e4
    label = rng.integers(0, 100, 256)
    x = (mean[label] + np.sqrt(variance) * rng.normal(size=(256, 64))).astype(np.float32)
    mixture = DiagonalMixture(100, 64, variance_floor=1e-6)
    mixture.initialize()
    mixture.mean.set_data(nd.array(mean))
    mixture.rho.set_data(nd.full((100, 64), math.log(math.expm1(variance - 1e-6))))
    s = mixture.variances().asnumpy().astype(np.float64)
    want = ((x.astype(np.float64) - mean[label]) ** 2 / s[label]).sum(axis=1) / 2
    distance, _, likelihood_distance, own = mixture(nd.array(x), nd.array(label))
    np.testing.assert_allclose(own.asnumpy(), want, rtol=1e-3)
    np.testing.assert_allclose(likelihood_distance.asnumpy(), want, rtol=1e-3)
    nearest = mixture(nd.array(x))[0].asnumpy()
    assert (nearest.argmin(axis=1) == label).all()
    np.testing.assert_allclose(nearest[range(256), label], want, rtol=1e-3)

    loss_fn = LGMLoss(lambda_=1)
    loss_fn.initialize()
    with autograd.record():
        distance, log_det, *rest = mixture(nd.array(x), nd.array(label))
        loss = loss_fn(distance, log_det, nd.array(label), None, *rest)
    loss.backward()
    np.testing.assert_allclose(loss.asnumpy(), want, rtol=1e-3)
    # The variances' gradients are sums of squared gaps, which the expanded form would lose.
    slope = np.zeros((100, 64))
    np.add.at(slope, label, -((x.astype(np.float64) - mean[label]) ** 2) / s[label] ** 2 / 2)
    slope *= -np.expm1(-(s - 1e-6))  # of softplus
    np.testing.assert_allclose(mixture.rho.grad().asnumpy(), slope, rtol=1e-3, atol=1e-3 * abs(slope).max())

    inference = MixtureInference(gluon.nn.HybridLambda('identity'), mixture)
    _, whole, predicted = inference(nd.array(x))
    log_density = -want - (np.log(s[label]).sum(axis=1) + 64 * math.log(2 * math.pi)) / 2
    np.testing.assert_allclose(predicted.asnumpy(), log_density, rtol=1e-3)
    np.testing.assert_allclose(whole.asnumpy(), log_density - math.log(100), rtol=1e-3)


def test_softplus_is_never_negative_and_has_its_gradient():
    x = np.concatenate([np.linspace(-60, 60, 2001), [-1e4, -31.53, 0, 40, 40.1, 1e4]])
    for dtype, rtol, atol in (('float32', 2e-6, 2e-13), ('float64', 1e-12, 1e-37)):
        given = nd.array(x, dtype=dtype)
        given.attach_grad()
        with autograd.record():
            y = softplus(nd, given, dtype)
        y.backward()
        rounded = given.asnumpy().astype(np.float64)
        want = np.maximum(rounded, 0) + np.log1p(np.exp(-abs(rounded)))
        assert y.asnumpy().min() >= 0
        np.testing.assert_allclose(y.asnumpy(), want, rtol=rtol, atol=atol)
        slope = np.exp(np.minimum(rounded, 0)) / (1 + np.exp(-abs(rounded)))
        np.testing.assert_allclose(given.grad.asnumpy(), slope, rtol=max(5 * rtol, 1e-11), atol=1e-37)
    mixture = DiagonalMixture(C, D, variance_init=1e-2, variance_floor=1e-6)
    mixture.initialize()
    mixture.rho.set_data(nd.full((C, D), -31.53))
    assert mixture.variances().asnumpy().min() > 0
    assert np.isfinite(mixture(nd.ones((B, D)))[1].asnumpy()).all()
