"""What distributed runs share out and agree upon, without the processes of one."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import cpu, nd
from mxnet.gluon import nn

from training import begin as begin_module
from training.begin import begin
from training.config import recipe as recipes
from training.data import augment, batches
from training.errors import UserError
from training.loop.epoch import average_statistics
from training.machine import devices, parameter_server
from training.machine.cluster import Workers
from training.optim.trainer import server_optimizer
from training.runs.folder import RunFolder


def of_size(rank, size):
    workers = Workers()
    workers.rank, workers.size = rank, size
    return workers


@pytest.mark.parametrize('count, size', [(128, 2), (10, 3), (7, 7), (5, 2)])
def test_shares_are_disjoint_and_complete(count, size):
    items = list(range(count))
    shares = [items[of_size(rank, size).share(count)] for rank in range(size)]
    assert sum(shares, []) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_workers_together_see_the_batches_of_one_process(cifar):
    def seen_by(workers):
        data = batches.TrainingData(
            cifar[0].select(slice(200)),
            [cpu()],
            augment.PadCropFlip(4, **augment.NORMALISATIONS['cifar10']),
            'random',
            50,
            3,
            workers=workers,
        )
        data.augment.initialize()
        return [[part.asnumpy() for part in batch[0]] for batch in data.batches(1)]

    whole, shares = seen_by(Workers()), [seen_by(of_size(rank, 3)) for rank in range(3)]
    assert len(whole) == 4
    for step, (images, labels) in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([share[step][0] for share in shares]), images)
        np.testing.assert_array_equal(np.concatenate([share[step][1] for share in shares]), labels)


def test_class_sizes_are_those_of_the_whole_step(cifar):
    contexts = [cpu(0), cpu(1)]
    data = batches.TrainingData(
        cifar[0].select(slice(120)),
        contexts,
        augment.PadCropFlip(4, **augment.NORMALISATIONS['cifar10']),
        'random',
        40,
        0,
        class_sizes=True,
    )
    data.augment.initialize(ctx=contexts)
    for (_, first, first_sizes), (_, second, second_sizes) in data.batches(0):
        labels = np.concatenate([first.asnumpy(), second.asnumpy()])
        sizes = np.concatenate([first_sizes.asnumpy(), second_sizes.asnumpy()])
        assert sizes.tolist() == [(labels == label).sum() for label in labels]


def test_batchnorm_statistics_become_the_mean_over_devices():
    contexts = [cpu(0), cpu(1)]
    net = nn.HybridSequential()
    net.add(nn.Dense(3, in_units=2), nn.BatchNorm(in_channels=3), nn.BatchNorm(in_channels=5))
    net.initialize(ctx=contexts)
    rng = np.random.default_rng(0)
    means = []
    for norm in net[1], net[2]:
        for parameter in norm.running_mean, norm.running_var:
            values = rng.normal(size=(2, *parameter.shape)).astype(np.float32)
            for array, value in zip(parameter.list_data(), values):
                array[:] = nd.array(value)
            means.append((parameter, values.mean(axis=0)))
    gamma = net[1].gamma.data(contexts[0]).asnumpy()
    data = type('Data', (), {'contexts': contexts, 'workers': Workers()})
    average_statistics(net, data)
    for parameter, mean in means:
        for array in parameter.list_data():
            np.testing.assert_allclose(array.asnumpy(), mean, rtol=1e-6)
    np.testing.assert_array_equal(net[1].gamma.data(contexts[0]).asnumpy(), gamma)


def test_batchnorm_statistics_become_the_mean_over_workers():
    net = nn.BatchNorm(in_channels=3)
    net.initialize()
    net.running_mean.set_data(nd.array([1, 2, 3]))
    workers = of_size(0, 2)
    workers.sum = lambda values: np.asarray(values) + [5, 6, 7, 3, 3, 3]  # the other one's
    average_statistics(net, type('Data', (), {'contexts': [cpu()], 'workers': workers}))
    assert net.running_mean.data().asnumpy().tolist() == [3, 4, 5]
    assert net.running_var.data().asnumpy().tolist() == [2, 2, 2]


def test_workers_that_differ_are_refused():
    def agree(ours, theirs):
        sent, workers, other = [], of_size(0, 2), of_size(1, 2)
        other.sum = lambda halves: sent.append(halves) or halves * 2
        other.agree(theirs, '')
        workers.sum = lambda halves: halves + sent[0]
        workers.agree(ours, 'they differ')

    agree('one recipe', 'one recipe')
    with pytest.raises(UserError, match='they differ'):
        agree('one recipe', 'another one')


@pytest.mark.parametrize(
    'kvstore, environment, message',
    [
        ('device', {'DMLC_ROLE': 'worker'}, 'DMLC_ROLE is worker.*--kvstore dist_sync, or unset'),
        ('dist_sync', {}, 'DMLC_ROLE, DMLC_PS_ROOT_URI.*must be set; start the run with launch.py'),
        (
            'dist_sync',
            dict.fromkeys(parameter_server.ENVIRONMENT, 'x'),
            'expected worker, server or scheduler',
        ),
    ],
)
def test_environment_and_kvstore_must_go_together(monkeypatch, kvstore, environment, message):
    for name in parameter_server.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        parameter_server.check_environment(kvstore)


@pytest.mark.parametrize('silences, ended', [([0, 1, 1, 0, 1, 1, 0, 0], False), ([0, 1, 1, 1], True)])
def test_silence_that_lasts_ends_the_process(monkeypatch, capsys, silences, ended):
    """Two heartbeats of a second each; what the engine says of the others is made up."""
    from mxnet import base

    answers, codes = iter(silences), []

    class Ended:
        def wait(self, seconds):
            return bool(codes) or self.over

        over = False

    def count_silent(handle, nodes, silent, timeout):
        silent._obj.value = next(answers)
        Ended.over = answers.__length_hint__() == 0
        return 0

    monkeypatch.setattr(
        base, '_LIB', type('Engine', (), {'MXKVStoreGetNumDeadNode': staticmethod(count_silent)})
    )
    monkeypatch.setattr(parameter_server.os, '_exit', codes.append)
    for name, value in zip(parameter_server.HEARTBEAT, ('1', '5')):
        monkeypatch.setenv(name, value)
    watch = parameter_server.Watch.__new__(parameter_server.Watch)
    watch._store, watch._ended = type('Store', (), {'handle': None}), Ended()
    watch.run()
    assert codes == ([1] if ended else [])
    assert ('silent for 5 seconds' in capsys.readouterr().err) == ended


def test_servers_take_rates_and_multipliers_of_each_parameter():
    optimizer = server_optimizer('sgd', {'wd': 0.5, 'momentum': 0}, 0.25, {'3': 2, '4': 1}, {'3': 1, '4': 0})
    update = mx.optimizer.get_updater(optimizer)
    optimizer.set_learning_rate(0.1)
    for key, expected in ((3, 1 - 0.1 * 2 * (8 * 0.25 + 0.5)), (4, 1 - 0.1 * 8 * 0.25)):
        weight = nd.ones(2)
        update(key, nd.full(2, 8), weight)
        np.testing.assert_allclose(weight.asnumpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    'asked, kvstore, kept',
    [
        ('auto', 'dist_sync', 'gpu'),
        ('gpu', 'dist_sync', 'gpu'),
        ('gpu:1', 'dist_sync', 'gpu:1'),
        ('auto', 'device', 'gpu:1'),
    ],
)
def test_resumed_workers_take_gpus_in_turn_as_before(monkeypatch, tmp_path, asked, kvstore, kept):
    monkeypatch.setattr(parameter_server, 'check_environment', lambda _: False)
    monkeypatch.setattr(devices, 'prepare', lambda *_: devices.Device('gpu', (1,), 'float32'))
    monkeypatch.setattr(begin_module, 'join', lambda *_: Workers())
    path = recipes.version_path('cifar', 'fast')
    recipe = recipes.load_recipe(path, recipes.CifarRecipe, {'device': asked, 'kvstore': kvstore})
    begin(recipe, path, 'fast', RunFolder(tmp_path), {})
    assert recipe.run.device == kept
