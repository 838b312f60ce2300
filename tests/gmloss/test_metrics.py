"""Metrics of features: their values, over contexts, in Estimator, and without host reads."""

import copy

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon, nd
from mxnet.gluon.contrib.estimator import Estimator
from mxnet.ndarray import NDArray

from center_loss import CenterLoss, NearestCenterAccuracy
from gmloss import (
    GaussianMixture,
    GaussianMixtureLoss,
    LogLikelihood,
    MixtureAccuracy,
    MixtureInference,
    OwnDistance,
)

C, D, N = 3, 2, 40


def test_values_are_those_of_the_samples_and_nothing_is_read_on_the_way(monkeypatch):
    rng, contexts = np.random.default_rng(0), [mx.cpu(0), mx.cpu(1)]
    x, label = rng.normal(size=(N, D)), rng.integers(0, C, N)
    label[3] = 9
    mixture, center_loss = GaussianMixture(C, D), CenterLoss(C, D)
    for block in (mixture, center_loss):
        block.initialize(mx.init.Normal(1), ctx=contexts, force_reinit=True)
    metrics = [
        MixtureAccuracy(mixture, ignore_label=9),
        OwnDistance(mixture, ignore_label=9),
        LogLikelihood(mixture, 2, ignore_label=9),
        NearestCenterAccuracy(center_loss, ignore_label=9),
    ]
    metrics += [copy.deepcopy(metric) for metric in metrics]
    with monkeypatch.context() as patch:
        patch.setattr(NDArray, 'asnumpy', lambda self: pytest.fail('host read'))
        for start in (0, 20):
            parts = [
                gluon.utils.split_and_load(nd.array(a[start : start + 20]), contexts) for a in (label, x)
            ]
            for metric in metrics:
                metric.update(*parts)
    used = label != 9
    q, to_centers = (
        ((x[:, None] - means.asnumpy()) ** 2).sum(axis=2)[used] / 2
        for means in (mixture.means(), center_loss.centers.weight.data(contexts[0]))
    )
    inference = MixtureInference(gluon.nn.HybridLambda('identity'), mixture, 2)
    wanted = [
        (q.argmin(axis=1) == label[used]).mean(),
        q[np.arange(N - 1), label[used]].mean(),
        inference(nd.array(x[used]))[1].asnumpy().mean(),
        (to_centers.argmin(axis=1) == label[used]).mean(),
    ]
    for metric, want in zip(metrics, wanted * 2):
        assert metric.get()[1] == pytest.approx(want, rel=1e-4)
        metric.reset()
        assert np.isnan(metric.get()[1])


@pytest.mark.filterwarnings('ignore')
def test_estimator_trains_with_the_loss_of_features():
    rng = np.random.default_rng(0)
    label = rng.integers(0, C, 300)
    data = gluon.data.DataLoader(
        gluon.data.ArrayDataset(
            (rng.normal(size=(300, 5)) + 4 * np.eye(C, 5)[label]).astype('float32'), label
        ),
        batch_size=30,
    )
    net, loss_fn = gluon.nn.Dense(4), GaussianMixtureLoss(GaussianMixture(C))
    for block in (net, loss_fn):
        block.initialize()
        block.hybridize()
    trainer = gluon.Trainer(
        {**net.collect_params(), **loss_fn.collect_params()}, 'adam', {'learning_rate': 0.02}
    )
    accuracy = MixtureAccuracy(loss_fn.mixture)
    estimator = Estimator(net, loss_fn, accuracy, trainer=trainer, context=mx.cpu())
    estimator.logger.setLevel('ERROR')
    estimator.fit(data, data, epochs=5)
    estimator.evaluate(data)
    assert estimator.val_metrics[0].get()[1] > 0.97


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_ten_lines_with_estimator_reach_098_on_mnist():
    from training.data.datasets import load_mnist

    splits = load_mnist()
    data = [
        gluon.data.DataLoader(
            gluon.data.ArrayDataset(split.images.astype('float32') / 255, split.labels), 100, shuffle=True
        )
        for split in splits
    ]
    net, loss_fn = gluon.nn.HybridSequential(), GaussianMixtureLoss(GaussianMixture(10))
    for channels in (32, 64):
        net.add(gluon.nn.Conv2D(channels, 5, activation='relu'), gluon.nn.MaxPool2D())
    net.add(gluon.nn.Dense(64))
    for block in (net, loss_fn):
        block.initialize(mx.init.Xavier())
        block.hybridize()
    parameters = {**net.collect_params(), **loss_fn.collect_params()}
    trainer = gluon.Trainer(parameters, 'adam', {'learning_rate': 1e-3})
    estimator = Estimator(net, loss_fn, MixtureAccuracy(loss_fn.mixture), trainer=trainer, context=mx.cpu())
    estimator.fit(data[0], epochs=1)
    estimator.evaluate(data[1])
    assert estimator.val_metrics[0].get()[1] >= 0.98
