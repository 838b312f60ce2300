"""Covariances by class or shared, priors and weights, deferred sizes, copies: against NumPy in float64."""

import copy
import pickle

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from plain import numeric_gradient

from center_loss import CenterLoss, NearestCenter
from gmloss import (
    DiagonalMixture,
    FixedVolumeMixture,
    GaussianMixture,
    GaussianMixtureLoss,
    InverseSumMixture,
    LGMLoss,
    MixtureClassifier,
    MixtureInference,
    RawDiagonalMixture,
)

B, C, D = 6, 5, 4
FORMS = [
    (GaussianMixture, {}),
    *(
        (kind, {'isotropic': i, 'shared': s})
        for kind in (DiagonalMixture, FixedVolumeMixture)
        for i in (0, 1)
        for s in (0, 1)
        if kind is DiagonalMixture or not (i and s)
    ),
]
IDS = [
    f'{kind.__name__}{"-isotropic" * s.get("isotropic", 0)}{"-shared" * s.get("shared", 0)}'
    for kind, s in FORMS
]
PRIORS = [1, 2, 3, 4, 10]
LABEL = np.array([0, 4, 2, 2, 1, 4])


def plain(kind, x, mean, rho, alpha=0.3, lambda_=0.25, margin_add=0.7):
    """Full-likelihood loss with priors and class weights, by the formulas."""
    log_prior = np.log(np.array(PRIORS) / np.mean(PRIORS))
    if kind is GaussianMixture:
        variance = np.ones((C, D))
    elif kind is DiagonalMixture:
        variance = np.log1p(np.exp(rho)) + 1e-4
    else:
        variance = np.exp(rho - rho.mean())
    variance = np.broadcast_to(variance, (C, D))
    q = ((x[:, None] - mean) ** 2 / variance).sum(axis=2) / 2
    bias = np.log(variance).sum(axis=1) / 2 - log_prior
    rows = np.arange(len(x))
    logits = -q - bias
    likelihood = -logits[rows, LABEL]
    logits[rows, LABEL] -= alpha * q[rows, LABEL] + margin_add
    cross_entropy = np.log(np.exp(logits).sum(axis=1)) - logits[rows, LABEL]
    return np.linspace(0.5, 2, C)[LABEL] * (cross_entropy + lambda_ * likelihood), variance


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('contexts', [1, 2])
@pytest.mark.parametrize('kind, shape', FORMS, ids=IDS)
def test_loss_and_gradients_equal_the_formulas(kind, shape, contexts, hybridize):
    rng, contexts = np.random.default_rng(0), [mx.cpu(k) for k in range(contexts)]
    mixture = kind(C, 0, priors=PRIORS, **shape)
    block = GaussianMixtureLoss(
        mixture, 0.3, 0.25, likelihood='full', margin_add=0.7, class_weight=np.linspace(0.5, 2, C)
    )
    block.initialize(ctx=contexts)
    block.cast('float64')
    if hybridize:
        block.hybridize(static_alloc=True, static_shape=True)
    assert mixture.feature_size == 0
    block(nd.ones((1, D), dtype='float64'), nd.zeros(1))
    assert mixture.feature_size == D
    x, mean = rng.normal(size=(B, D)), rng.normal(size=(C, D))
    mixture.mean.set_data(nd.array(mean, dtype='float64'))
    rho = None
    if kind is not GaussianMixture:
        rho = rng.normal(size=mixture.rho.shape)
        mixture.rho.set_data(nd.array(rho, dtype='float64'))
    want, variance = plain(kind, x, mean, rho)
    np.testing.assert_allclose(mixture.variances().asnumpy(), variance, rtol=1e-6)
    parts = gluon.utils.split_and_load(nd.array(x, dtype='float64'), contexts)
    labels = gluon.utils.split_and_load(nd.array(LABEL), contexts)
    for part in parts:
        part.attach_grad()
    with autograd.record():
        losses = [block(*pair) for pair in zip(parts, labels)]
    autograd.backward(losses)
    np.testing.assert_allclose(np.concatenate([loss.asnumpy() for loss in losses]), want, rtol=1e-6)
    found = [np.concatenate([part.grad.asnumpy() for part in parts])]
    found += [
        sum(gradient.asnumpy() for gradient in parameter.list_grad())
        for parameter in (mixture.mean, *([] if rho is None else [mixture.rho]))
    ]
    for array, gradient in zip((x, mean, rho), found):
        expected = numeric_gradient(lambda: plain(kind, x, mean, rho)[0].sum(), array)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('contexts', [1, 2])
@pytest.mark.parametrize('kind, shape', FORMS, ids=IDS)
def test_classifier_and_inference_know_the_priors_and_survive_export(kind, shape, contexts, tmp_path):
    contexts = [mx.cpu(k) for k in range(contexts)]
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(D))
    mixture = kind(C, priors=PRIORS, **shape)
    inference, classifier = MixtureInference(net, mixture), MixtureClassifier(net, mixture)
    classifier.initialize(ctx=contexts)
    inference.hybridize()
    x = nd.random.normal(shape=(B, 3))
    posterior, whole, _ = (a.asnumpy() for a in inference(x))
    gap = net(x).asnumpy()[:, None].astype(np.float64) - mixture.means().asnumpy()
    variance = mixture.variances().asnumpy()
    density = np.exp(-(gap**2 / variance).sum(axis=2) / 2) / np.sqrt((2 * np.pi * variance).prod(axis=1))
    joint = density * mixture.priors().asnumpy()
    np.testing.assert_allclose(mixture.priors().asnumpy(), np.array(PRIORS) / 20, rtol=1e-6)
    np.testing.assert_allclose(posterior, joint / joint.sum(axis=1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(whole, np.log(joint.sum(axis=1)), rtol=1e-4)
    logits = classifier(x).asnumpy()
    classifier.hybridize()
    for ctx in contexts:
        np.testing.assert_allclose(classifier(x.as_in_context(ctx)).asnumpy(), logits, rtol=1e-5)
    np.testing.assert_allclose(nd.softmax(nd.array(logits)).asnumpy(), posterior, rtol=1e-5)
    classifier.export(str(tmp_path / 'model'))
    loaded = gluon.SymbolBlock.imports(
        str(tmp_path / 'model-symbol.json'), ['data'], str(tmp_path / 'model-0000.params'), ctx=contexts
    )
    for ctx in contexts:
        np.testing.assert_allclose(loaded(x.as_in_context(ctx)).asnumpy(), logits, rtol=1e-5)


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('kind', [GaussianMixture, DiagonalMixture, FixedVolumeMixture, RawDiagonalMixture,
                                  InverseSumMixture])  # fmt: skip
def test_feature_size_may_be_left_to_the_net(kind, hybridize):
    net, mixture = gluon.nn.Dense(3), kind(C)
    classifier = MixtureClassifier(net, mixture)
    classifier.initialize()
    if hybridize:
        classifier.hybridize()
    assert classifier(nd.ones((2, 7))).shape == (2, C) and mixture.feature_size == 3
    assert mixture.variances().shape == mixture.means().shape == (C, 3)


@pytest.mark.parametrize('copying', [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))])
def test_every_block_can_be_copied_and_pickled_after_use(copying):
    center_loss = CenterLoss(C, D)
    x, label = nd.random.normal(shape=(B, D)), nd.array(LABEL)
    blocks = [
        (center_loss, (x, label)),
        (NearestCenter(center_loss), (x,)),
        (LGMLoss(), (nd.random.normal(shape=(B, C)), nd.zeros(C), label)),
        (MixtureClassifier(gluon.nn.Dense(D), GaussianMixture(C)), (x,)),
        (MixtureInference(gluon.nn.Dense(D), DiagonalMixture(C, priors=PRIORS)), (x,)),
    ]
    blocks += [(GaussianMixtureLoss(kind(C, D, **shape)), (x, label)) for kind, shape in FORMS]
    blocks += [(kind(C, D), (x,)) for kind in (RawDiagonalMixture, InverseSumMixture)]
    for block, inputs in blocks:
        block.initialize()
        block.hybridize()
        want, got = block(*inputs), copying(block)(*inputs)
        for a, b in zip(*((v,) if isinstance(v, nd.NDArray) else v for v in (got, want))):
            np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=1e-6)


@pytest.mark.parametrize('contexts', [1, 2])
@pytest.mark.parametrize('copying', [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))])
def test_blocks_whose_parameters_are_in_a_trainer_can_be_copied_and_pickled(copying, contexts):
    """The copy has the same values, and a step of the original, or a Trainer of its own, moves it alone."""
    x, label = nd.random.normal(shape=(B, D)), nd.array(LABEL)
    contexts = [mx.cpu(k) for k in range(contexts)]
    for block in (GaussianMixtureLoss(DiagonalMixture(C, D, priors=PRIORS)), CenterLoss(C, D)):
        block.initialize(ctx=contexts)
        block.hybridize()
        trainer = gluon.Trainer(block.collect_params(), 'sgd', {'learning_rate': 0.5, 'momentum': 0.9})

        def step(block, trainer):
            with autograd.record():
                losses = [block(x.as_in_context(ctx), label.as_in_context(ctx)) for ctx in contexts]
            autograd.backward(losses)
            trainer.step(B)

        step(block, trainer)
        twin = copying(block)
        want = block(x, label).asnumpy()
        np.testing.assert_allclose(twin(x, label).asnumpy(), want, rtol=1e-6)
        step(block, trainer)
        np.testing.assert_allclose(twin(x, label).asnumpy(), want, rtol=1e-6)
        moved = block(x, label).asnumpy()
        step(twin, gluon.Trainer(twin.collect_params(), 'sgd', {'learning_rate': 0.5}))
        assert np.abs(twin(x, label).asnumpy() - want).max() > 1e-3
        np.testing.assert_array_equal(block(x, label).asnumpy(), moved)
