"""The training loop in process: no host reads, several contexts, order of the data."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, init, nd
from mxnet.ndarray import NDArray

from gmloss import GaussianMixture, LGMLoss, MixtureClassifier, RawDiagonalMixture
from training.config import recipe as recipes
from training.data import augment, batches
from training.data.datasets import Split
from training.data.hard_examples import HardExamples
from training.loop.epoch import StopRequest, train_epoch
from training.losses import graphs
from training.losses.build import variance_statistics
from training.machine.cluster import Workers
from training.machine.devices import Device
from training.metrics import likelihood
from training.metrics.accuracy import accuracies
from training.model import build_model, initialize, normaliser
from training.optim.overflow import loss_scale


def toy(contexts=None, batch_size=40, net=None):
    """A net, linear if not given, the L-GM loss and 200 random images on some contexts."""
    from mxnet import cpu

    contexts = contexts or [cpu()]
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200).astype(np.int32)
    images = rng.integers(0, 128, (200, 3, 32, 32)) + 40 * labels[:, None, None, None]
    data = batches.TrainingData(
        Split(images.astype(np.uint8), labels),
        contexts,
        augment.PadCropFlip(2, **augment.NORMALISATIONS['cifar10']),
        'random',
        batch_size,
        0,
    )
    classifier = MixtureClassifier(net or gluon.nn.Dense(4, in_units=3072), GaussianMixture(3, 4))
    graph = graphs.LGMGraph(classifier, LGMLoss(), num_classes=3)
    for block in (data.augment, graph):
        block.initialize(ctx=contexts)
        block.hybridize(static_alloc=True)
    trainer = gluon.Trainer(
        classifier.collect_params(), 'sgd', {'learning_rate': 0.001}, update_on_kvstore=False
    )
    return graph, data, trainer


def test_no_step_reads_from_the_device(monkeypatch):
    graph, data, trainer = toy()
    reads = []
    kept = NDArray.asnumpy
    monkeypatch.setattr(NDArray, 'asnumpy', lambda self: reads.append(self.shape) or kept(self))
    train_epoch(graph, data, [trainer], 0, 0, (0, 0), lambda step: None, StopRequest())
    assert data.steps_per_epoch == 5 and reads == [(2,)], 'one read at the end of the epoch'
    reads.clear()
    accuracies(graph.classifier, lambda x: x.astype('float32'), data)
    assert reads == [(1,)]


def test_statistics_are_the_sums_over_the_epoch():
    graph, data, trainer = toy()
    seen = list(data.batches(0))
    expected = np.zeros(2)
    for ((images, labels),) in seen:
        distance, log_det = graph.classifier.mixture(graph.classifier.net(images))
        expected[0] += graph.loss_fn(distance, log_det, labels).sum().asscalar()
        predicted = graph.classifier(images).asnumpy().argmax(axis=1)
        expected[1] += (predicted == labels.asnumpy()).sum()
    trainer.set_learning_rate(0)
    result = train_epoch(graph, data, [trainer], 0, 0, (0, 0), lambda step: None, StopRequest())
    np.testing.assert_allclose(result.totals, expected, rtol=1e-5)
    assert result.accuracy == pytest.approx(expected[1] / 200)


def test_hard_examples_are_told_the_loss_of_each_image_before_it_is_scaled():
    graph, data, trainer = toy([mx.cpu(0), mx.cpu(1)])
    data.hard_examples = HardExamples(200, 0.3, 1)
    words = lambda step: None, StopRequest()
    first = train_epoch(graph, data, [trainer], 0, 0, (0, 0), *words, loss_scale=8)
    running = data.hard_examples.running
    assert len(set(running)) > 150 and running.mean() == pytest.approx(first.loss, rel=1e-5)


def frozen_norms():
    """A net with BatchNorms that keep to the statistics they have."""
    net = gluon.nn.HybridSequential()
    net.add(
        gluon.nn.Conv2D(6, 3, 4, in_channels=3),
        gluon.nn.BatchNorm(
            use_global_stats=True, in_channels=6, running_variance_initializer=init.Constant(2e4)
        ),
        gluon.nn.Activation('relu'),
        gluon.nn.Dense(4, in_units=6 * 8 * 8),
    )
    return net


@pytest.mark.parametrize('make_net', [lambda: None, frozen_norms], ids=['linear', 'frozen norms'])
def test_two_contexts_give_the_gradients_of_one(make_net):
    from mxnet import cpu

    gradients, weights = [], None
    for contexts in ([cpu(0)], [cpu(0), cpu(1)]):
        graph, data, _ = toy(contexts, 25, make_net())  # 13 + 12 images on two contexts
        parameters = {
            name: p
            for name, p in graph.classifier._collect_params_with_prefix().items()
            if p.grad_req != 'null'
        }
        if weights is None:
            weights = {name: p.data(contexts[0]).asnumpy() for name, p in parameters.items()}
        for name, parameter in parameters.items():
            parameter.set_data(nd.array(weights[name]))
        batch = next(iter(data.batches(0)))
        assert [len(labels) for _, labels in batch] == ([25] if len(contexts) == 1 else [13, 12])
        with autograd.record():
            losses = [graph(images, labels)[0] for images, labels in batch]
        autograd.backward(losses)
        gradients.append(
            {name: sum(g.asnumpy() for g in parameter.list_grad()) for name, parameter in parameters.items()}
        )
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(
            gradients[1][name], gradient, rtol=1e-4, atol=1e-4 * np.abs(gradient).max(), err_msg=name
        )


def test_evaluation_over_two_contexts_counts_every_image_once():
    from mxnet import cpu

    for contexts in ([cpu(0)], [cpu(0), cpu(1)]):
        graph, data, _ = toy(contexts)
        want = (
            graph.classifier(data.images.arrays[0].astype('float32')).asnumpy().argmax(axis=1)
            == data.labels[0].asnumpy()
        ).mean()
        data.images.batch = 60  # so that both have some
        data.__class__ = batches.DeviceData
        assert accuracies(graph.classifier, lambda x: x.astype('float32'), data) == [pytest.approx(want)]


def test_each_epoch_shows_every_image_once_in_a_new_order():
    _, data, _ = toy()
    data.labels = [nd.arange(200, dtype='int32')]
    orders = [
        np.concatenate([labels.asnumpy() for ((_, labels),) in data.batches(epoch)]) for epoch in (0, 1, 0)
    ]
    assert all(sorted(order) == list(range(200)) for order in orders)
    assert (orders[0] == orders[2]).all() and (orders[0] != orders[1]).any()


def test_batches_resume_within_an_epoch():
    _, data, _ = toy()
    whole = [images.asnumpy() for ((images, _),) in data.batches(3)]
    rest = [images.asnumpy() for ((images, _),) in data.batches(3, first_step=2)]
    assert len(rest) == 3
    for first, second in zip(whole[2:], rest):
        np.testing.assert_array_equal(first, second)


def test_loss_scale_changes_nothing_but_the_range_of_gradients():
    weights = []
    for scale in (1.0, 128.0):
        graph, data, trainer = toy()
        for parameter in graph.classifier.collect_params().values():
            parameter.set_data(nd.full(parameter.shape, 0.01))
        graph.classifier.mixture.mean.set_data(nd.arange(12).reshape((3, 4)) / 10)
        train_epoch(graph, data, [trainer], 0, 0, (0, 0), lambda step: None, StopRequest(), loss_scale=scale)
        weights.append(graph.classifier.net.weight.data().asnumpy())
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-5, atol=1e-7)
    assert np.abs(weights[0] - 0.01).max() > 1e-4


@pytest.mark.parametrize('version, batch_size', [('v5', 128), ('v6', 128), ('fast', 512)])
def test_scaled_gradients_keep_to_the_range_of_float16(cifar, version, batch_size):
    """On real images at the start, where they are largest: below the limit by a factor of four."""
    recipe = recipes.load_recipe(recipes.version_path('cifar', version), recipes.CifarRecipe, {})
    device = Device('cpu', (0,), 'float32')
    mx.random.seed(0)
    model = build_model(recipe, device)
    initialize(model, recipe, device.contexts())
    graph = model.graph
    batch = cifar[0].select(slice(batch_size))
    images = normaliser(recipe, device.contexts())(nd.array(batch.images, dtype='uint8'))
    with autograd.record():
        loss, _ = graph(images, nd.array(batch.labels))
    loss.backward(nd.full(batch_size, loss_scale('float16', batch_size)))
    gradients = [
        parameter.grad() for parameter in graph.collect_params().values() if parameter.grad_req != 'null'
    ]
    largest = max(gradient.abs().max().asscalar() for gradient in gradients)
    assert 1e-3 < largest < np.finfo(np.float16).max / 4
    assert loss_scale('float32', batch_size) == 1


def test_net_with_dropout_resumes_within_an_epoch_with_the_masks_it_would_have_had():
    results = []
    for pause in (None, 2):
        net = gluon.nn.HybridSequential()
        net.add(gluon.nn.Dropout(0.5), gluon.nn.Dense(4, in_units=3072))
        graph, data, trainer = toy(net=net)
        for parameter in graph.classifier.collect_params().values():
            parameter.set_data(nd.arange(parameter.data().size).reshape(parameter.shape) / 1e5)
        stop, first_step = StopRequest(), 0
        if pause:

            def on_step(step):
                stop.signal = 2 if step == pause - 1 else None

            first_step = train_epoch(graph, data, [trainer], 0, 0, (0, 0), on_step, stop).steps
            assert first_step == pause
            nd.random.uniform(shape=10).wait_to_read()  # a new process is elsewhere in the stream
            stop.signal = None
        train_epoch(graph, data, [trainer], 0, first_step, (0, 0), lambda step: None, stop)
        results.append(net[1].weight.data().asnumpy())
    np.testing.assert_array_equal(*results)


def test_every_step_of_every_epoch_has_masks_of_its_own(monkeypatch):
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dropout(0.5), gluon.nn.Dense(4, in_units=3072))
    graph, data, trainer = toy(net=net)
    seeds = []
    monkeypatch.setattr(mx.random, 'seed', seeds.append)
    for seed, rank in ((0, 0), (0, 0), (1, 0), (0, 1)):
        data.seed, data.workers = seed, Workers()
        data.workers.rank, data.workers.share = rank, lambda count: slice(0, count)
        data.workers.sum = lambda values: np.array(values) + (len(values) == 3)  # rank 0's steps
        for epoch in range(2):
            train_epoch(graph, data, [trainer], epoch, 0, (0, 0), lambda step: None, StopRequest())
    first, again, other_seed, other_rank = np.reshape(seeds, (4, 10)).tolist()
    assert first == again and len({*first, *other_seed, *other_rank}) == 30


def test_recorded_covariances_are_those_of_numpy():
    variances = np.random.default_rng(0).uniform(0.1, 3, (5, 4))
    mixture = RawDiagonalMixture(5, 4)
    mixture.initialize()
    mixture.variance.set_data(nd.array(variances))
    found = variance_statistics(mixture)
    assert found == pytest.approx(
        {'smallest_variance': variances.min(), 'mean_log_det': np.log(variances).sum(axis=1).mean()}, rel=1e-5
    )
    assert variance_statistics(GaussianMixture(5, 4)) == {}


def test_spread_is_of_the_training_images_and_thresholds_of_the_others():
    graph, data, _ = toy()
    _, others, _ = toy()
    others.images.arrays, others.count = [others.images.arrays[0] / 2], 150
    drawn = []

    def normalise(images):
        return images.astype('float32') / 255

    found = likelihood.report(graph.classifier, normalise, data, others, drawn.append)
    mixture, features, distances = graph.classifier.mixture, [], []
    mean = mixture.mean.data().asnumpy().astype(float)
    for part in (data, others):
        features.append(graph.classifier.net(normalise(part.images.arrays[0][: part.count])).asnumpy())
        distances.append(((features[-1][:, None] - mean) ** 2).sum(axis=2) / 2)
    own = distances[0][np.arange(200), data.labels[0].asnumpy()]
    spread = own.mean() * 2 / 4
    assert found['likelihood_spread'] == pytest.approx(spread, rel=1e-4)
    expected = np.sort(np.log(np.exp(-distances[1] / spread).mean(axis=1)) - 2 * np.log(2 * np.pi * spread))
    for rate in (0.01, 0.05, 0.1):
        assert found['likelihood_thresholds'][str(rate)] == pytest.approx(expected[int(150 * rate)], abs=2e-4)
    (_, first, _), (_, second, likelihoods) = drawn[0]
    np.testing.assert_allclose(first, own, rtol=1e-4)
    assert len(second) == 150
    for rate, threshold in found['likelihood_thresholds'].items():
        assert (likelihoods < threshold).sum() <= 150 * float(rate) < (likelihoods < threshold + 1e-4).sum()


def test_features_that_are_their_means_cost_no_run_its_end():
    graph, data, _ = toy()
    for parameter in graph.classifier.collect_params().values():
        parameter.set_data(nd.zeros(parameter.shape))
    drawn = []
    found = likelihood.report(graph.classifier, lambda x: x.astype('float32'), data, data, drawn.append)
    assert found['likelihood_spread'] == 1 and len(drawn) == 1
    assert found['likelihood_thresholds']['0.05'] == pytest.approx(-2 * np.log(2 * np.pi), abs=1e-4)
