"""Softmax plus center loss, the step of train_mnist.py, against plain loops."""

import math

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd

from center_loss import CenterLoss
from training.config.schema import CifarLoss, Optimisation
from training.model import softmax_model
from training.optim import schedules

B, C, D = 6, 5, 2
LABEL = [0, 4, 2, 2, 1, 4]


class Net(gluon.HybridBlock):
    """Images (B, 3) to features (B, D) and logits (B, C), both linear."""

    def __init__(self):
        super().__init__()
        self.feature, self.output = gluon.nn.Dense(D, in_units=3), gluon.nn.Dense(C, in_units=D)

    def hybrid_forward(self, F, x):
        features = self.feature(x)
        return features, self.output(features)


def make(lmbd, hybridize):
    net, center_loss = Net(), None if lmbd is None else CenterLoss(C, D, lmbd)
    model = softmax_model(net, center_loss, weighted=True, num_classes=C)
    model.graph.initialize(mx.init.Normal(1))
    if hybridize:
        model.graph.hybridize(static_alloc=True, static_shape=True)
    return model


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('lmbd', [None, 0.7])
@pytest.mark.parametrize('softmax_weight', [1.0, 0.0])
def test_loss_is_the_sum_of_both_and_the_weight_takes_softmax_out(softmax_weight, lmbd, hybridize):
    graph = make(lmbd, hybridize).graph
    graph.set_softmax_weight(softmax_weight)
    images, counts = np.random.default_rng(0).normal(size=(B, 3)), [3, 4, 2, 2, 1, 4]
    given = [nd.array(images), nd.array(LABEL, dtype='int32')]
    given += [] if lmbd is None else [nd.array(counts)]
    with autograd.record():
        loss, statistics = graph(*given)
    loss.backward()
    features, logits = (a.asnumpy().astype(float) for a in graph.net(given[0]))
    centers = None if lmbd is None else graph.center_loss.centers.weight.data().asnumpy()
    for b, y in enumerate(LABEL):
        want = softmax_weight * (math.log(sum(math.exp(v) for v in logits[b])) - logits[b, y])
        if lmbd is not None:
            want += lmbd / 2 * sum((features[b] - centers[y]) ** 2) / counts[b]
        assert loss[b].asscalar() == pytest.approx(want, rel=1e-4, abs=1e-6)
    right = sum(logits.argmax(axis=1) == LABEL)
    np.testing.assert_allclose(statistics.asnumpy(), [loss.sum().asscalar(), right], rtol=1e-5)
    learns = graph.net.output.weight.grad().abs().sum().asscalar() > 0
    assert learns == (softmax_weight > 0), 'center loss alone leaves the output layer as it is'


def test_center_loss_alone_leaves_the_output_layer_as_it_is():
    """Weight decay would shrink it; in Center_Loss_in_MXNet its update is skipped, decay and all."""
    graph = make(1.0, True).graph
    trainer = gluon.Trainer(
        graph.net.collect_params(), 'sgd', {'learning_rate': 0.1, 'wd': 0.1}, update_on_kvstore=False
    )
    given = [nd.ones((B, 3)), nd.array(LABEL, dtype='int32'), nd.ones(B)]
    for weight, output_moves in ((1, True), (0, False), (1, True)):
        graph.set_softmax_weight(weight)
        before = {name: p.data().asnumpy() for name, p in graph.net._collect_params_with_prefix().items()}
        with autograd.record():
            loss, _ = graph(*given)
        loss.backward()
        trainer.step(B)
        moved = {
            name: (p.data().asnumpy() != before[name]).any()
            for name, p in graph.net._collect_params_with_prefix().items()
        }
        assert moved['feature.weight'] and moved['output.weight'] == moved['output.bias'] == output_moves


def test_weight_is_set_on_every_context():
    graph = make(1.0, False).graph
    graph.initialize(ctx=[mx.cpu(0), mx.cpu(1)], force_reinit=True)
    graph.set_softmax_weight(0)
    assert [weight.asscalar() for weight in graph.softmax_weight.list_data()] == [0, 0]


def test_both_ways_to_classify():
    model = make(1.0, True)
    images = nd.random.normal(shape=(B, 3))
    logits, to_centers = (a.asnumpy() for a in model.classifier(images))
    features, expected = (a.asnumpy() for a in model.net(images))
    np.testing.assert_allclose(logits, expected, rtol=1e-6)
    distances = ((features[:, None] - model.center_loss.centers.weight.data().asnumpy()) ** 2).sum(2)
    np.testing.assert_allclose(to_centers, -distances / 2, rtol=1e-4, atol=1e-5)
    assert model.methods == ('softmax', 'knn') and make(None, False).methods == ('softmax',)


@pytest.mark.parametrize('class_weights', [None, [3.0, 0.2, 1, 1, 1]])
@pytest.mark.parametrize('lmbd', [0.003, 0.7])
def test_a_step_moves_centers_by_alpha_of_the_way_whatever_lambda_and_batch(lmbd, class_weights):
    center_loss = CenterLoss(C, D, lmbd)
    weights = class_weights and np.array(class_weights)
    graph = softmax_model(Net(), center_loss, num_classes=C, class_weights=weights).graph
    graph.initialize(mx.init.Normal(1))
    optimisation = Optimisation(lr=0.02, lr_batch_size=64, warmup='linear', warmup_epochs=1)
    rate = schedules.rate_of_centers(
        CifarLoss(loss='softmax-center', lmbd=lmbd, alpha=0.5),
        optimisation,
        B,
        schedules.learning_rate(optimisation, 4, B),
    )
    images, centers = nd.random.normal(shape=(B, 3)), center_loss.centers.weight
    features, label = graph.net(images)[0].asnumpy(), np.array(LABEL)
    trainer = gluon.Trainer([centers], 'sgd', {'wd': 0}, update_on_kvstore=False)
    for step, share in ((0, 0.125), (3, 0.5), (4, 0.5)):  # warm-up, and what follows
        before = centers.data().asnumpy()
        with autograd.record():
            loss, _ = graph(images, nd.array(label), nd.array([1, 2, 2, 2, 1, 2]))
        loss.backward()
        trainer.set_learning_rate(rate(step))
        trainer.step(B)
        want = before.copy()
        for k in set(LABEL):
            want[k] += share * (features[label == k].mean(axis=0) - before[k])
        np.testing.assert_allclose(centers.data().asnumpy(), want, rtol=1e-4, atol=1e-5)
