"""Labels that are ignored, impossible or large; weights of 0; inputs that come and go; wrong shapes."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd
from mxnet.gluon import HybridBlock
from mxnet.ndarray import NDArray

from center_loss import CenterLoss
from gmloss import (
    DiagonalMixture,
    FixedVolumeMixture,
    GaussianMixture,
    GaussianMixtureLoss,
    LGMLoss,
    MixtureClassifier,
    RawDiagonalMixture,
    check_labels,
    class_counts,
)

C, D = 5, 3
KINDS = (GaussianMixture, DiagonalMixture, FixedVolumeMixture, RawDiagonalMixture)


class Composed(HybridBlock):
    """The composable form, with the label given to the mixture."""

    def __init__(self, mixture, **settings):
        super().__init__()
        self.mixture, self.loss_fn = mixture, LGMLoss(**settings)

    def hybrid_forward(self, F, x, label, sample_weight=None):
        distance, log_det, *rest = self.mixture(x, label)
        return self.loss_fn(distance, log_det, label, sample_weight, *rest)


def losses():
    yield 'center', lambda **settings: CenterLoss(C, D, **settings)
    for kind in KINDS:
        yield (
            kind.__name__,
            lambda kind=kind, **settings: GaussianMixtureLoss(
                kind(C, D), likelihood='full', margin_add=0.3, **settings
            ),
        )
    yield 'composed', lambda **settings: Composed(DiagonalMixture(C, D), **settings)


LOSSES = dict(losses())


def gradients(block, x, *inputs):
    x = nd.array(x)
    x.attach_grad()
    with autograd.record():
        loss = block(x, *inputs)
    loss.backward()
    trained = [p for p in block.collect_params().values() if p.grad_req != 'null']
    return [loss.asnumpy(), x.grad.asnumpy(), *(p.grad().asnumpy() for p in trained)]


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('features', [np.nan, np.inf, 1e30])
@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('by', ['ignored label', 'weight of 0'])
def test_samples_left_out_have_no_part_in_loss_and_gradient(name, features, by, hybridize):
    ignored = by == 'ignored label'
    block = LOSSES[name](ignore_label=255 if ignored else None)
    block.initialize()
    if hybridize:
        block.hybridize(static_alloc=True, static_shape=True)
    x, label = np.random.default_rng(0).normal(size=(6, D)), np.array([0, 2, 2, 3, 2, 0])
    counted = [] if name != 'center' or ignored else [nd.array([1, 2, 2, 1, 2, 1])]
    kept = [0, 1, 3, 4]
    want = gradients(
        block, x[kept], nd.array(label[kept]), nd.ones((4,)), *(count[kept] for count in counted)
    )
    x[[2, 5]] = features
    label = np.where(np.isin(np.arange(6), kept), label, 255) if ignored else label
    weight = np.ones(6) if ignored else np.isin(np.arange(6), kept)
    got = gradients(block, x, nd.array(label), nd.array(weight), *counted)
    assert (got[0][[2, 5]] == 0).all() and (got[1][[2, 5]] == 0).all()
    for found, expected in zip((got[0][kept], got[1][kept], *got[2:]), want):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('wrong', [-1, C, 255, 0.5, np.nan])
@pytest.mark.parametrize('name', LOSSES)
def test_label_that_is_no_class_makes_its_loss_nan_and_trains_nothing(name, wrong, hybridize):
    block = LOSSES[name](ignore_label=77)
    block.initialize()
    if hybridize:
        block.hybridize(static_alloc=True, static_shape=True)
    x, label = np.random.default_rng(0).normal(size=(4, D)), [0, wrong, 2, 77]
    loss, x_gradient, *others = gradients(block, x, nd.array(label))
    assert np.isnan(loss[1]) and np.isfinite(loss[[0, 2]]).all() and loss[3] == 0
    want = gradients(block, x[[0, 2]], nd.array([0, 2]))
    for found, expected in zip((loss[[0, 2]], x_gradient[[0, 2]], *others), want):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (x_gradient[[1, 3]] == 0).all()


def test_features_that_are_no_numbers_make_a_trained_sample_nan():
    for block in (make() for make in LOSSES.values()):
        block.initialize()
        loss = block(nd.array([[np.nan, 0, 0], [0, 0, 0]]), nd.array([1, 2])).asnumpy()
        assert np.isnan(loss[0]) and np.isfinite(loss[1])


@pytest.mark.parametrize('dtype', ['int32', 'int64'])
@pytest.mark.parametrize('sparse_grad', [False, True])
def test_center_loss_takes_large_integer_labels_exactly(dtype, sparse_grad):
    large = 2**24 + 1
    block = CenterLoss(large + 1, 1, sparse_grad=sparse_grad, center_initializer=mx.init.Zero())
    block.initialize()
    with autograd.record():
        loss = block(nd.array([[2.0], [2.0]]), nd.array([large, large - 1], dtype=dtype))
    loss.backward()
    assert loss.asnumpy().tolist() == [2, 2]
    gradient = block.centers.weight.grad()
    rows = gradient.indices if sparse_grad else nd.argsort(gradient[:, 0], dtype='int64')[:2]
    assert sorted(rows.asnumpy()) == [large - 1, large]


@pytest.mark.parametrize('dtype', ['int32', 'int64'])
def test_lgm_loss_takes_large_integer_labels_exactly(dtype):
    large = 2**24 + 1
    distance = nd.zeros((1, large + 1))
    loss_fn = LGMLoss(alpha=0, likelihood='off', margin_add=1)
    loss_fn.initialize()
    distance.attach_grad()
    with autograd.record():
        loss = loss_fn(
            distance, nd.zeros((large + 1,)), nd.array([large], dtype=dtype), None, None, nd.zeros(1)
        )
    loss.backward()
    assert loss.asscalar() == pytest.approx(np.log(large) + 1, rel=1e-4)
    assert distance.grad[0, large].asscalar() == 0 and distance.grad[0, large - 1].asscalar() != 0


def test_check_labels_names_the_label():
    check_labels(nd.array([[0], [2]]), 3)
    check_labels(np.array([0, 2, 255]), 3, ignore_label=255)
    for labels, message in (([0, 3, -1], 'label 3 of sample 1'), ([-1], 'label -1'), ([0.5], 'label 0.5')):
        with pytest.raises(ValueError, match=message):
            check_labels(np.array(labels), 3)
    with pytest.raises(ValueError, match='nor the ignored label 255'):
        check_labels(np.array([255, 4]), 3, ignore_label=255)


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('sizes', [(8,), (4, 4), (1, 7), (2,) * 4, (1,) * 8, (3, 5)])
def test_center_loss_over_parts_of_a_batch_is_that_of_the_batch(sizes, hybridize, monkeypatch):
    x, label = np.random.RandomState(0).randn(8, 2), [0, 0, 1, 1, 0, 0, 0, 1]
    contexts = [mx.cpu(k) for k in range(len(sizes))]
    block = CenterLoss(2, 2, center_initializer=mx.init.Zero())
    block.initialize(ctx=contexts)
    if hybridize:
        block.hybridize()
    ends = np.cumsum(sizes)
    xs, ys = (
        [nd.array(a[end - size : end], ctx=ctx) for end, size, ctx in zip(ends, sizes, contexts)]
        for a in (x, np.array(label))
    )
    with monkeypatch.context() as patch:
        patch.setattr(NDArray, 'asnumpy', lambda self: pytest.fail('host read'))
        counts = class_counts(ys)
    assert [count.context for count in counts] == contexts
    with autograd.record():
        parts = [block(a, b, None, count) for a, b, count in zip(xs, ys, counts)]
    autograd.backward(parts)
    assert sum(part.asnumpy().sum() for part in parts) == pytest.approx(2.1614, abs=1e-3)
    gradient = sum(part.asnumpy() for part in block.centers.weight.list_grad())
    want = [-x[np.array(label) == k].mean(axis=0) for k in (0, 1)]
    np.testing.assert_allclose(gradient, want, rtol=1e-5)


def test_ignored_labels_do_not_count():
    counts = class_counts([nd.array([0, 9, 0]), nd.array([[9], [0], [1]])], ignore_label=9)
    assert [count.asnumpy().tolist() for count in counts] == [[3, 1, 3], [1, 3, 1]]


@pytest.mark.parametrize('name', LOSSES)
def test_optional_inputs_come_and_go_on_a_hybridised_block(name):
    block = LOSSES[name]()
    block.initialize()
    x, label, weight = nd.ones((3, D)), nd.array([0, 1, 1]), nd.array([2, 2, 2])
    if isinstance(block, Composed):
        return
    block.hybridize(static_alloc=True, static_shape=True)
    plain = block(x, label).asnumpy()
    operators = block._cached_op
    for _ in range(2):
        np.testing.assert_allclose(block(x, label, weight).asnumpy(), 2 * plain, rtol=1e-6)
        np.testing.assert_allclose(block(x, label, None).asnumpy(), plain, rtol=1e-6)
    assert block._cached_op is operators
    if name == 'center':
        np.testing.assert_allclose(block(x, label, None, nd.array([2, 2, 2]))[1:].asnumpy(), plain[1:])
        np.testing.assert_allclose(block(x, label, weight).asnumpy(), 2 * plain, rtol=1e-6)


@pytest.mark.parametrize('hybridize', [False, True])
def test_errors_name_block_input_and_shapes(hybridize):
    label = nd.array([0, 1])
    for block, inputs, message in (
        (GaussianMixture(C, D), [nd.ones((2, 4))], r'GaussianMixture: features .* \(any, 3\), got \(2, 4\)'),
        (GaussianMixture(C, D), [nd.ones((2, D, 1))], r'GaussianMixture: features .* got \(2, 3, 1\)'),
        (
            LGMLoss(),
            [nd.ones((2, C)), nd.ones(C), nd.ones((2, C))],
            r'label .* \(2,\) or \(2, 1\), got \(2, 5\)',
        ),
        (GaussianMixtureLoss(GaussianMixture(C, D)), [nd.ones((2, 4)), label], 'MixtureLoss: features'),
        (
            GaussianMixtureLoss(GaussianMixture(C, D)),
            [nd.ones((2, D)), nd.ones((2, C))],
            'MixtureLoss: label',
        ),
        (CenterLoss(C, D), [nd.ones((2, D, 1, 1)), label], r'CenterLoss: features .* \(2, 3, 1, 1\)'),
        (CenterLoss(C, D), [nd.ones((2, D)), label, nd.ones(3)], r'sample_weight .* got \(3,\)'),
    ):
        block.initialize()
        if hybridize:
            block.hybridize()
        with pytest.raises(ValueError, match=message):
            nd.waitall() or block(*inputs)


def test_blocks_say_what_they_are():
    assert repr(LGMLoss(0.2, 0.3)) == 'LGMLoss(alpha=0.2, lambda_=0.3, likelihood=distance)'
    assert 'alpha=0.1' in repr(GaussianMixtureLoss(DiagonalMixture(C))) and 'Diagonal' in repr(
        GaussianMixtureLoss(DiagonalMixture(C))
    )
    assert repr(GaussianMixture(C, D)) == 'GaussianMixture(3 -> 5)'
    assert repr(CenterLoss(C, D, 0.5)) == 'CenterLoss(3 -> 5, lmbd=0.5)'
    loss_fn = LGMLoss(0.2)
    loss_fn.initialize()
    loss_fn.set_margin(0.25)
    assert 'alpha=0.25' in repr(loss_fn)
    assert 'net' in repr(MixtureClassifier(mx.gluon.nn.Dense(2), GaussianMixture(C, D)))
