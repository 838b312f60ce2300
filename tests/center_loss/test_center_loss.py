"""Center loss against plain loops in NumPy and against the parameter-based original."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from mxnet.ndarray import NDArray

from center_loss import CenterLoss, NearestCenter

C, D = 5, 3
LABELS = {
    'mixed': [0, 2, 2, 3, 2, 0],
    'last class missing': [0, 1, 1, 2, 3, 3],
    'one class': [4] * 6,
    'one sample': [3],
}


def plain(x, centers, label, lmbd):
    """Loss of each sample by loops."""
    counts = {k: sum(int(y == k) for y in label) for k in label}
    return np.array(
        [
            lmbd / 2 * sum((x[b][d] - centers[y][d]) ** 2 for d in range(len(x[b]))) / counts[y]
            for b, y in enumerate(label)
        ]
    )


def make(lmbd=1.0, dtype='float64', hybridize=False, **settings):
    loss_fn = CenterLoss(C, D, lmbd, **settings)
    loss_fn.initialize()
    loss_fn.cast(dtype)
    if hybridize:
        loss_fn.hybridize(static_alloc=True, static_shape=True)
    centers = np.random.default_rng(1).normal(size=(C, D))
    loss_fn.centers.weight.set_data(nd.array(centers, dtype=dtype))
    return loss_fn, centers


def run(loss_fn, x, label, dtype='float64'):
    x = nd.array(x, dtype=dtype)
    x.attach_grad()
    with autograd.record():
        loss = loss_fn(x, label)
    loss.backward()
    return loss.asnumpy(), x.grad.asnumpy(), loss_fn.centers.weight.grad().asnumpy()


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('label', LABELS.values(), ids=LABELS.keys())
def test_loss_and_gradients_equal_plain_loops_and_finite_differences(label, hybridize):
    loss_fn, centers = make(0.7, hybridize=hybridize)
    x = np.random.default_rng(0).normal(size=(len(label), D))
    loss, x_gradient, center_gradient = run(loss_fn, x, nd.array(label))
    np.testing.assert_allclose(loss, plain(x, centers, label, 0.7), rtol=1e-7)
    for array, gradient in ((x, x_gradient), (centers, center_gradient)):
        for index in np.ndindex(*array.shape):
            kept, sums = array[index], []
            for step in (1e-6, -1e-6):
                array[index] = kept + step
                sums.append(plain(x, centers, label, 0.7).sum())
            array[index] = kept
            assert gradient[index] == pytest.approx((sums[0] - sums[1]) / 2e-6, abs=1e-6)


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('shape', [(6,), (6, 1)])
def test_labels_and_sample_weights_come_in_one_or_two_dimensions_as_in_gluon(shape, hybridize):
    loss_fn, centers = make(hybridize=hybridize)
    x, sample_weight = np.random.default_rng(0).normal(size=(6, D)), np.array([0, 0.5, 1, 2, 3, 1])
    label = LABELS['mixed']
    loss = loss_fn(
        nd.array(x, dtype='float64'),
        nd.array(label).reshape(shape),
        nd.array(sample_weight.reshape(shape), dtype='float64'),
    )
    np.testing.assert_allclose(loss.asnumpy(), sample_weight * plain(x, centers, label, 1.0), rtol=1e-7)


@pytest.mark.parametrize('hybridize', [False, True])
def test_arrays_of_wrong_shapes_are_refused_not_repeated(hybridize):
    x, label = nd.ones((6, D), dtype='float64'), nd.array(LABELS['mixed'], dtype='float64')
    for given in ((x[:, :1], label), (x[:1], label), (x, label[:1]), (x, label, label[:1])):
        loss_fn, _ = make(hybridize=hybridize)
        with pytest.raises(ValueError, match='must have the shape'):
            loss_fn(*given).wait_to_read()


@pytest.mark.parametrize('label_type', ['int32', 'int64', 'uint8', 'float32'])
def test_label_types_agree(label_type):
    loss_fn, centers = make(dtype='float32')
    x = np.random.default_rng(0).normal(size=(6, D))
    label = LABELS['mixed']
    loss, _, _ = run(loss_fn, x, nd.array(label, dtype=label_type), 'float32')
    np.testing.assert_allclose(loss, plain(x, centers, label, 1.0), rtol=1e-5)


def test_equals_the_host_counted_parameter_form():
    """Centers as a plain parameter, labels counted with bincount on the host."""
    loss_fn, centers = make(0.5, 'float32')
    x = nd.random.normal(shape=(6, D))
    label = nd.array(LABELS['mixed'])
    parameter = gluon.Parameter('centers', shape=(C, D))
    parameter.initialize()
    parameter.set_data(nd.array(centers))
    with autograd.record():
        own = nd.take(parameter.data(), label)
        counts = nd.array(np.bincount(label.asnumpy().astype(int), minlength=C))
        original = 0.5 / 2 * ((x - own) ** 2).sum(axis=1) / nd.take(counts, label)
    original.backward()
    loss, _, center_gradient = run(loss_fn, x.asnumpy(), label, 'float32')
    np.testing.assert_allclose(loss, original.asnumpy(), rtol=1e-6)
    np.testing.assert_allclose(center_gradient, parameter.grad().asnumpy(), rtol=1e-5, atol=1e-7)


def test_sparse_gradients_equal_dense_ones_and_train():
    label = nd.array(LABELS['mixed'])
    x = np.random.default_rng(0).normal(size=(6, D))
    results = []
    for sparse in (False, True):
        loss_fn, _ = make(dtype='float32', sparse_grad=sparse)
        trainer = gluon.Trainer(loss_fn.collect_params(), 'sgd', {'learning_rate': 0.5})
        run(loss_fn, x, label, 'float32')
        stype = loss_fn.centers.weight.grad().stype
        trainer.step(1)
        results.append(loss_fn.centers.weight.data().asnumpy())
        assert stype == ('row_sparse' if sparse else 'default')
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)


def test_training_step_copies_nothing_to_the_host(monkeypatch):
    loss_fn, _ = make(dtype='float32', hybridize=True)
    x, label = nd.random.normal(shape=(6, D)), nd.array(LABELS['mixed'])
    monkeypatch.setattr(NDArray, 'asnumpy', lambda self: pytest.fail('host read'))
    trainer = gluon.Trainer(loss_fn.collect_params(), 'sgd', {'learning_rate': 0.5})
    for _ in range(3):
        with autograd.record():
            loss = loss_fn(x, label)
        loss.backward()
        trainer.step(6)
    nd.waitall()


def test_gradients_over_several_contexts_sum_to_those_of_the_parts():
    contexts = [mx.cpu(0), mx.cpu(1)]
    loss_fn = CenterLoss(C, D)
    loss_fn.initialize(ctx=contexts)
    x, label = nd.random.normal(shape=(6, D)), nd.array(LABELS['mixed'])
    parts = [gluon.utils.split_and_load(a, contexts) for a in (x, label)]
    with autograd.record():
        losses = [loss_fn(a, b) for a, b in zip(*parts)]
    autograd.backward(losses)
    centers = loss_fn.centers.weight.data(contexts[0]).asnumpy()
    expected = np.zeros_like(centers)
    for a, b, loss in zip(*parts, losses):
        a, b = a.asnumpy(), b.asnumpy().astype(int)
        np.testing.assert_allclose(loss.asnumpy(), plain(a, centers, b, 1.0), rtol=1e-5)
        for x, y in zip(a, b):
            expected[y] += (centers[y] - x) / sum(b == y)
    found = sum(gradient.asnumpy() for gradient in loss_fn.centers.weight.list_grad())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('hybridize', [False, True])
def test_low_precision_features_are_measured_in_float32(hybridize):
    loss_fn, centers = make(dtype='float16', hybridize=hybridize)
    x = (np.random.default_rng(0).normal(size=(6, D)) * 300).astype(np.float16)
    loss, gradient, _ = run(loss_fn, x, nd.array(LABELS['mixed']), 'float16')
    assert loss.dtype == np.float32 and gradient.dtype == np.float16
    np.testing.assert_allclose(loss, plain(x.astype(float), centers, LABELS['mixed'], 1.0), rtol=1e-5)


@pytest.mark.parametrize('hybridize', [False, True])
def test_sample_weights_and_counts_may_have_any_type(hybridize):
    loss_fn, centers = make(dtype='float32', hybridize=hybridize)
    x, label = np.random.default_rng(0).normal(size=(6, D)), LABELS['mixed']
    given, count = np.array([0, 1, 2, 3, 1, 2]), [list(label).count(y) for y in label]
    found = loss_fn(
        nd.array(x), nd.array(label), nd.array(given, dtype='float16'), nd.array(count, dtype='int32')
    )
    np.testing.assert_allclose(found.asnumpy(), given * plain(x, centers, label, 1.0), rtol=1e-5)


def test_takes_a_weight_and_an_initialiser_of_the_centers():
    loss_fn = CenterLoss(C, D, weight=0.25, center_initializer=mx.init.Constant(2))
    loss_fn.initialize()
    x = np.random.default_rng(0).normal(size=(6, D))
    np.testing.assert_allclose(
        loss_fn(nd.array(x), nd.array(LABELS['mixed'])).asnumpy(),
        0.25 * plain(x, np.full((C, D), 2.0), LABELS['mixed'], 1.0),
        rtol=1e-5,
    )


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_nearest_center(hybridize, dtype):
    loss_fn, centers = make(dtype=dtype)
    nearest = NearestCenter(loss_fn)
    if hybridize:
        nearest.hybridize()
    x = np.random.default_rng(0).normal(size=(50, D))
    logits = nearest(nd.array(x)).asnumpy()
    assert logits.dtype == dtype
    distances = ((x[:, None] - centers) ** 2).sum(axis=2) / 2
    np.testing.assert_allclose(logits, -distances, rtol=1e-4, atol=1e-5)
    assert (logits.argmax(axis=1) == distances.argmin(axis=1)).all()


@pytest.mark.parametrize('dtype, computed', [('float64', 'float64'), ('float16', 'float32')])
@pytest.mark.parametrize('which', ['loss', 'nearest'])
def test_nearest_center_and_loss_are_cast_together(which, dtype, computed):
    loss_fn, centers = make(dtype='float32')
    nearest = NearestCenter(loss_fn, prefix='nearest_')
    nearest.hybridize()
    (loss_fn if which == 'loss' else nearest).cast(dtype)
    x, label = nd.array(np.random.default_rng(0).normal(size=(6, D)), dtype=dtype), LABELS['mixed']
    logits, loss = nearest(x), loss_fn(x, nd.array(label))
    assert logits.dtype == loss.dtype == np.dtype(computed)
    np.testing.assert_allclose(
        loss.asnumpy(), plain(x.asnumpy().astype(float), centers, label, 1.0), rtol=1e-5
    )
    np.testing.assert_allclose(
        logits.asnumpy()[range(6), label], -loss.asnumpy() * [label.count(k) for k in label], rtol=1e-5
    )


def test_impossible_settings_are_refused_by_name():
    for lmbd in (-1, np.nan):
        with pytest.raises(ValueError, match='lmbd'):
            CenterLoss(C, D, lmbd=lmbd)
    for shape in ((0, D), (C, -1)):
        with pytest.raises(ValueError, match='num_classes'):
            CenterLoss(*shape)


@pytest.mark.parametrize('split', [False, True])
def test_centers_move_as_in_the_paper_without_a_host_read(split, monkeypatch):
    rng, contexts = np.random.default_rng(0), [mx.cpu(0), mx.cpu(1)] if split else [mx.cpu(0)]
    loss_fn = CenterLoss(C, D, ignore_label=9)
    loss_fn.initialize(ctx=contexts)
    x, label = rng.normal(size=(8, D)), np.array([0, 2, 2, 9, 3, -1, 0, 2])
    x[3] = np.nan
    before = loss_fn.centers.weight.data(contexts[0]).asnumpy()
    want = before.copy()
    for k in (0, 2, 3):
        gap = sum(before[k] - row for row in x[label == k])
        want[k] -= 0.3 * gap / (1 + (label == k).sum())
    parts = [gluon.utils.split_and_load(nd.array(a), contexts) for a in (x, label)]
    with monkeypatch.context() as patch:
        patch.setattr(NDArray, 'asnumpy', lambda self: pytest.fail('host read'))
        loss_fn.move_centers(*(parts if split else [part[0] for part in parts]), 0.3)
    for context in contexts:
        moved = loss_fn.centers.weight.data(context).asnumpy()
        np.testing.assert_allclose(moved, want, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match='alpha'):
        loss_fn.move_centers(*parts, 2)


def test_centers_have_multipliers():
    loss_fn = CenterLoss(C, D, lr_mult=3, wd_mult=0)
    assert (loss_fn.centers.weight.lr_mult, loss_fn.centers.weight.wd_mult) == (3, 0)
