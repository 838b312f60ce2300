"""The L-GM loss against plain loops in float64 and against finite differences."""

import math

import numpy as np
import pytest
from mxnet import nd
from plain import MIXTURES, B, C, D, forward_backward, make, numeric_gradient, plain_loss, plain_mixture

from gmloss import (
    ConstantMargin,
    DiagonalMixture,
    FixedVolumeMixture,
    GaussianMixture,
    InverseSumMixture,
    LGMLoss,
    RawDiagonalMixture,
    StepUpMargin,
)

LIKELIHOODS = ('off', 'distance', 'full')


@pytest.mark.parametrize('kind', MIXTURES)
@pytest.mark.parametrize('likelihood', LIKELIHOODS)
def test_loss_equals_plain_loops_and_gradients_equal_finite_differences(kind, likelihood):
    alpha, margin_add, lambda_ = 0.3, 0.7, 0.25
    mixture, loss_fn, x, mean, second, second_parameter = make(
        kind, likelihood, alpha=alpha, margin_add=margin_add, lambda_=lambda_
    )
    label = np.array([0, 4, 2, 2, 1, 4])
    loss, x_gradient = forward_backward(mixture, loss_fn, x, nd.array(label))

    def total():
        return plain_loss(kind, likelihood, alpha, margin_add, lambda_, x, mean, second, label).sum()

    np.testing.assert_allclose(
        loss, plain_loss(kind, likelihood, alpha, margin_add, lambda_, x, mean, second, label), rtol=1e-7
    )
    np.testing.assert_allclose(x_gradient, numeric_gradient(total, x), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        mixture.mean.grad().asnumpy(), numeric_gradient(total, mean), rtol=1e-5, atol=1e-7
    )
    if kind is not GaussianMixture:
        np.testing.assert_allclose(
            second_parameter.grad().asnumpy(), numeric_gradient(total, second), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('kind', [DiagonalMixture, InverseSumMixture])
def test_distributions_as_labels_share_out_margin_cross_entropy_and_likelihood(kind, hybridize):
    alpha, margin_add, lambda_ = 0.3, 0.7, 0.25
    mixture, loss_fn, x, mean, second, second_parameter = make(
        kind,
        'full',
        alpha=alpha,
        margin_add=margin_add,
        lambda_=lambda_,
        hybridize=hybridize,
        sparse_label=False,
    )
    target = np.random.default_rng(4).dirichlet(np.ones(C), B)

    def plain():
        distance, log_det, own = plain_mixture(kind, x, mean, second)
        losses = []
        for b in range(B):
            logits = [
                -distance[b, k] - log_det[k] / 2 - target[b, k] * (alpha * distance[b, k] + margin_add)
                for k in range(C)
            ]
            total = math.log(sum(math.exp(v) for v in logits))
            losses.append(
                sum(
                    target[b, k] * (total - logits[k] + lambda_ * (own[b, k] + log_det[k] / 2))
                    for k in range(C)
                )
            )
        return np.array(losses)

    given = nd.array(target, dtype='float64')
    given.attach_grad()
    loss, x_gradient = forward_backward(mixture, loss_fn, x, given)
    np.testing.assert_allclose(loss, plain(), rtol=1e-7)
    assert (given.grad.asnumpy() == 0).all()
    for array, gradient in (
        (x, x_gradient),
        (mean, mixture.mean.grad().asnumpy()),
        (second, second_parameter.grad().asnumpy()),
    ):
        np.testing.assert_allclose(
            gradient, numeric_gradient(lambda: plain().sum(), array), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize('likelihood', LIKELIHOODS)
def test_one_hot_distributions_give_the_loss_of_indices(likelihood):
    label = nd.array([0, 4, 2, 2, 1, 4], dtype='float64')
    results = [
        forward_backward(*make(DiagonalMixture, likelihood, sparse_label=sparse)[:3], given)
        for sparse, given in ((True, label), (False, nd.one_hot(label, C)))
    ]
    for sparse, soft in zip(*results):
        np.testing.assert_allclose(soft, sparse, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('kind', MIXTURES)
@pytest.mark.parametrize('label_type', ['float32', 'int32', 'int64', 'uint8'])
def test_hybridised_equals_imperative_for_every_label_type(kind, label_type):
    label = nd.array([0, 4, 2, 2, 1, 4], dtype=label_type)
    results = []
    for hybridize in (False, True):
        mixture, loss_fn, x, *_ = make(kind, 'full', 'float32', hybridize)
        results.append(
            (*forward_backward(mixture, loss_fn, x, label, 'float32'), mixture.mean.grad().asnumpy())
        )
    for imperative, hybridised in zip(*results):
        np.testing.assert_allclose(hybridised, imperative, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('label', [0, 3])
def test_v3_takes_the_euclidean_distance_in_its_likelihood_term(label):
    rng = np.random.default_rng(2)
    mixture = RawDiagonalMixture(C, D, variance_init=0.5, euclidean=True)
    mixture.initialize()
    x = nd.array(rng.normal(size=(B, D)))
    distance, log_det, euclidean = mixture(x)
    loss_fn, without = LGMLoss(lambda_=0.3), LGMLoss(likelihood='off')
    loss_fn.initialize()
    without.initialize()
    labels = nd.full((B,), label)
    own = ((x.asnumpy() - mixture.mean.data().asnumpy()[label]) ** 2).sum(axis=1) / 2
    difference = loss_fn(distance, log_det, labels, None, euclidean) - without(distance, log_det, labels)
    np.testing.assert_allclose(difference.asnumpy(), 0.3 * own, rtol=1e-4)
    np.testing.assert_allclose(distance.asnumpy(), 2 * euclidean.asnumpy(), rtol=1e-4)


def test_fixed_volume_has_no_scale_to_run_away_with():
    """The loss of shrunken features falls without bound under free variances, not under these."""
    labels, losses = nd.arange(C), {}
    for kind in (DiagonalMixture, FixedVolumeMixture):
        for scale in (1.0, 0.1):
            mixture, loss_fn, _, mean, *_ = make(kind, 'full', 'float64', lambda_=0.1)
            mixture.mean.set_data(nd.array(mean * scale, dtype='float64'))
            variance = (1.0 - 1e-4) * scale**2  # above the floor
            mixture.rho.set_data(
                nd.full(
                    (C, D),
                    math.log(math.expm1(variance)) if kind is DiagonalMixture else math.log(variance),
                    dtype='float64',
                )
            )
            loss = loss_fn(*mixture(nd.array(mean * scale, dtype='float64')), labels)
            losses[kind, scale] = loss.asnumpy()
            if kind is FixedVolumeMixture:
                np.testing.assert_allclose(mixture.variances().asnumpy(), 1, rtol=1e-12)
                assert loss.asnumpy().min() >= 0
    assert (losses[DiagonalMixture, 0.1] < losses[DiagonalMixture, 1.0] - 0.8).all()


def test_raw_variances_can_turn_the_loss_into_no_number():
    mixture, loss_fn = RawDiagonalMixture(C, D, variance_init=-0.1), LGMLoss(likelihood='full')
    mixture.initialize()
    loss_fn.initialize()
    assert np.isnan(loss_fn(*mixture(nd.ones((C, D))), nd.arange(C)).asnumpy()).all()


def test_loss_is_per_sample_and_takes_a_weight():
    mixture, loss_fn, x, *_ = make(GaussianMixture)
    halved = LGMLoss(weight=0.5)
    halved.initialize()
    halved.cast('float64')
    distance, log_det = mixture(nd.array(x, dtype='float64'))
    label = nd.array([0, 1, 2, 3, 4, 0])
    loss = loss_fn(distance, log_det, label)
    assert loss.shape == (B,)
    np.testing.assert_allclose(halved(distance, log_det, label).asnumpy(), loss.asnumpy() / 2)


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('shape', [(B,), (B, 1)])
def test_labels_and_sample_weights_come_in_one_or_two_dimensions_as_in_gluon(shape, hybridize):
    label, sample_weight = np.array([0, 1, 2, 3, 4, 0]), np.array([0, 0.5, 1, 2, 3, 1])
    for given, factor in (
        ([], 1),
        ([nd.array(sample_weight.reshape(shape), dtype='float64')], sample_weight),
    ):
        mixture, loss_fn, x, mean, second, _ = make(GaussianMixture, 'full', hybridize=hybridize)
        loss = loss_fn(*mixture(nd.array(x, dtype='float64')), nd.array(label.reshape(shape)), *given)
        want = plain_loss(GaussianMixture, 'full', 0.1, 0, 0.1, x, mean, second, label)
        np.testing.assert_allclose(loss.asnumpy(), factor * want, rtol=1e-7)


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('kind', MIXTURES)
def test_arrays_of_wrong_shapes_are_refused_not_repeated(kind, hybridize):
    x, index = nd.ones((B, D), dtype='float64'), nd.array([0, 1, 2, 3, 4, 0], dtype='float64')
    distance, log_det = make(kind)[0](x)[:2]
    one_hot = nd.one_hot(index, C, dtype='float64')
    for sparse, given in (
        (True, [distance, log_det, one_hot]),
        (True, [distance, log_det, index[:1]]),
        (True, [distance, log_det[:1], index]),
        (True, [distance, log_det, index, distance]),
        (False, [distance, log_det, index.reshape((-1, 1))]),
        (False, [distance, log_det, one_hot[:1]]),
    ):
        mixture, loss_fn, *_ = make(kind, hybridize=hybridize, sparse_label=sparse)
        with pytest.raises(ValueError, match='must have the shape'):
            loss_fn(*given).wait_to_read()
    with pytest.raises(ValueError, match='must have the shape'):
        mixture(x[:, :1])[0].wait_to_read()


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('dtype', ['float16', 'int32'])
def test_sample_weights_may_have_any_type(hybridize, dtype):
    given = np.array([0, 1, 2, 3, 1, 2], dtype=dtype)
    mixture, loss_fn, x, *_ = make(GaussianMixture, 'full', hybridize=hybridize)
    outputs = mixture(nd.array(x, dtype='float64'))
    label = nd.array([0, 1, 2, 3, 4, 0])
    found, whole = (
        loss_fn(*outputs, label, nd.array(weight, dtype=dtype)).asnumpy() for weight in (given, np.ones(B))
    )
    np.testing.assert_allclose(found, given * whole)
    assert found.any()


def test_numpy_scalars_are_settings_too():
    loss_fn, mixture = (
        LGMLoss(*np.float32([0.25, 0.5]), margin_add=np.float32(0.5)),
        RawDiagonalMixture(C, D, variance_init=np.float32(2)),
    )
    outputs = []
    for block in (loss_fn, mixture):
        block.initialize()
    for _ in range(2):
        outputs.append(loss_fn(*mixture(nd.ones((B, D))), nd.array([0, 1, 2, 3, 4, 0])).asnumpy())
        loss_fn.hybridize()
        mixture.hybridize()
    np.testing.assert_allclose(*outputs, rtol=1e-5)


@pytest.mark.parametrize(
    'make_bad, message',
    [
        (lambda: GaussianMixture(0, 2), 'num_classes'),
        (lambda: DiagonalMixture(2, 2, variance_floor=0), 'variance_floor'),
        (lambda: DiagonalMixture(2, 2, variance_init=1e-5), 'variance_floor'),
        (lambda: LGMLoss(alpha=-1), 'alpha'),
        (lambda: LGMLoss(alpha=math.nan), 'alpha'),
        (lambda: make(GaussianMixture)[1].set_margin(-1), 'alpha'),
        (lambda: make(GaussianMixture)[1].set_margin(math.nan), 'alpha'),
        (lambda: ConstantMargin(math.nan), 'alpha'),
        (lambda: StepUpMargin(factor=math.nan), 'step-up'),
        (lambda: LGMLoss(lambda_=-1), 'lambda_'),
        (lambda: LGMLoss(lambda_=math.nan), 'lambda_'),
        (lambda: LGMLoss(likelihood='half'), 'likelihood'),
        (lambda: LGMLoss(margin_add=math.nan), 'margin_add'),
        (lambda: LGMLoss(margin_add=-1), 'margin_add'),
        (lambda: LGMLoss(margin_add=math.inf), 'margin_add'),
        (lambda: LGMLoss(class_weight=[1, -1]), 'class_weight'),
        (lambda: LGMLoss(sparse_label=False, ignore_label=1), 'ignore_label'),
        (lambda: GaussianMixture(2, 2, priors=[1, 0]), 'priors'),
        (lambda: GaussianMixture(2, 2, priors=[1, 2, 3]), 'priors'),
        (lambda: FixedVolumeMixture(2, 2, isotropic=True, shared=True), 'GaussianMixture'),
    ],
)
def test_impossible_settings_are_refused_by_name(make_bad, message):
    with pytest.raises(ValueError, match=message):
        make_bad()
