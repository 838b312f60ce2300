"""The margin: its schedules, and how the loss holds it."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from plain import B, C, D, forward_backward, make, plain_loss

from gmloss import (
    ConstantMargin,
    GaussianMixture,
    LGMLoss,
    MixtureClassifier,
    StepUpMargin,
)
from gmloss.loss import margin_logits
from training.losses.classifiers import LabelledClassifier


def test_constant_margin_never_changes():
    assert [ConstantMargin(0.3)(step) for step in (0, 1, 10**9)] == [0.3] * 3


def test_step_up_doubles_every_5000_steps_up_to_its_maximum():
    steps = [0, 4999, 5000, 9999, 10000, 10**12]
    for margin in (StepUpMargin(0.1, 2, 5000, 0.3), StepUpMargin()):
        assert [margin(step) for step in steps] == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]


@pytest.mark.parametrize('settings', [dict(start=0), dict(start=0.4), dict(factor=0.5), dict(every=0)])
def test_impossible_schedules_are_refused(settings):
    with pytest.raises(ValueError, match='step-up margin needs'):
        StepUpMargin(**settings)


def test_negative_constant_margin_is_refused():
    with pytest.raises(ValueError, match='alpha'):
        ConstantMargin(-0.1)


def test_margin_changes_without_a_new_graph():
    mixture, loss_fn, x, mean, second, _ = make(GaussianMixture, 'off', hybridize=True)
    label = np.array([0, 4, 2, 2, 1, 4])
    cached = []
    for alpha in (0.1, 0.2, 1.5):
        loss_fn.set_margin(alpha)
        loss, _ = forward_backward(mixture, loss_fn, x, nd.array(label))
        np.testing.assert_allclose(
            loss, plain_loss(GaussianMixture, 'off', alpha, 0, 0, x, mean, second, label), rtol=1e-7
        )
        cached.append(loss_fn._cached_op)
    assert cached[0] is not None and all(op is cached[0] for op in cached)


def test_margin_is_set_on_every_context():
    loss_fn = LGMLoss()
    loss_fn.initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    loss_fn.set_margin(0.75)
    assert [margin.asscalar() for margin in loss_fn.margin.list_data()] == [0.75, 0.75]


def test_margin_gets_no_gradient_and_no_update():
    mixture, loss_fn, x, *_ = make(GaussianMixture, dtype='float32', alpha=0.25)
    trainer = gluon.Trainer(
        {**mixture.collect_params(), **loss_fn.collect_params()}, 'sgd', {'learning_rate': 1.0, 'wd': 0.5}
    )
    forward_backward(mixture, loss_fn, x, nd.array([0, 1, 2, 3, 4, 0]), 'float32')
    trainer.step(1)
    assert loss_fn.margin.data().asscalar() == 0.25


def test_setting_the_margin_leaves_the_state_of_a_trainer_alone():
    contexts, means = [mx.cpu(0), mx.cpu(1)], []
    x, label = np.random.default_rng(0).normal(size=(B, D)), nd.array([0, 1, 2, 3, 4, 0])
    for setting in (True, False):
        mixture, loss_fn = GaussianMixture(C, D, mx.init.Constant(0.5)), LGMLoss()
        for block in (mixture, loss_fn):
            block.initialize(ctx=contexts)
        trainer = gluon.Trainer(
            {**mixture.collect_params(), **loss_fn.collect_params()},
            'sgd',
            {'learning_rate': 0.1, 'momentum': 0.9},
        )
        for _ in range(4):
            if setting:
                loss_fn.set_margin(0.1)
            with autograd.record():
                losses = [
                    loss_fn(*mixture(nd.array(x, ctx=context)), label.copyto(context)) for context in contexts
                ]
            autograd.backward(losses)
            trainer.step(2 * B)
        means.append(mixture.mean.data(contexts[1]).asnumpy())
    np.testing.assert_array_equal(*means)


@pytest.mark.parametrize('margin_add', [0, 0.5])
def test_target_of_the_margin_gets_no_gradient(margin_add):
    distance, log_det, target = nd.ones((B, C)), nd.zeros((C,)), nd.ones((B, C)) / C
    target.attach_grad()
    distance.attach_grad()
    with autograd.record():
        logits = margin_logits(nd, distance, log_det, target, nd.array([0.1]), margin_add)
    logits.backward()
    assert (target.grad == 0).asnumpy().all() and (distance.grad != 0).asnumpy().all()


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('margin_add', [0, 2])
def test_published_validation_puts_the_margin_on_the_label_it_is_told(hybridize, margin_add):
    mixture, loss_fn, x, mean, *_ = make(GaussianMixture, dtype='float32', alpha=0.5, margin_add=margin_add)
    labelled = LabelledClassifier(MixtureClassifier(gluon.nn.HybridLambda('identity'), mixture), loss_fn)
    if hybridize:
        labelled.hybridize()
    label = [0, 4, 2, 2, 1, 4]
    plain, marked = labelled(nd.array(x), nd.array(label))
    want = -((x[:, None] - mean) ** 2).sum(axis=2) / 2
    np.testing.assert_allclose(plain.asnumpy(), want, rtol=1e-5)
    want[np.arange(B), label] = want[np.arange(B), label] * 1.5 - margin_add
    np.testing.assert_allclose(marked.asnumpy(), want, rtol=1e-5)
