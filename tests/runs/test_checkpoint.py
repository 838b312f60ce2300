"""Checkpoints and weights round trips, in process."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd

from training.config.schema import Optimisation
from training.errors import UserError
from training.optim.trainer import build_trainer
from training.runs import checkpoint
from training.runs.weights import load_weights, named_parameters, save_weights


def make(optimizer, contexts):
    net = gluon.nn.HybridSequential()
    net.add(
        gluon.nn.Conv2D(4, 3, in_channels=3),
        gluon.nn.BatchNorm(in_channels=4),
        gluon.nn.Dense(2, in_units=4 * 36),
    )
    net.initialize(ctx=contexts)
    trainer = build_trainer(named_parameters({'net': net}).values(), Optimisation(optimizer=optimizer))
    trainer.set_learning_rate(0.05)
    return net, trainer


def state_after(epoch):
    history = [{'epoch': number + 1, 'val_acc': 0.1 + 0.2} for number in range(epoch)]
    return {'epoch': epoch, 'step': 0, 'totals': [0.0, 0.0], 'seconds': 0.5, 'history': history}


def step(net, trainer, contexts, seed):
    rng = np.random.default_rng(seed)
    batch = nd.array(rng.normal(size=(8, 3, 8, 8)))
    with autograd.record():
        losses = [(net(x) ** 2).sum() for x in gluon.utils.split_and_load(batch, contexts)]
    autograd.backward(losses)
    trainer.step(8)


def values(net):
    return {
        name: [array.asnumpy() for array in parameter.list_data()]
        for name, parameter in net._collect_params_with_prefix().items()
    }


@pytest.mark.parametrize('optimizer', ['nag', 'sgd', 'adam', 'muon'])
@pytest.mark.parametrize('contexts', [[mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]], ids=['one', 'two'])
def test_training_goes_on_exactly_where_it_was(optimizer, contexts, tmp_path):
    net, trainer = make(optimizer, contexts)
    for seed in range(3):
        step(net, trainer, contexts, seed)
    state = state_after(3)
    checkpoint.save_checkpoint(tmp_path / 'c.npz', {'net': net}, [trainer], state)
    other, other_trainer = make(optimizer, contexts)
    loaded = checkpoint.load_checkpoint(tmp_path / 'c.npz', {'net': other}, [other_trainer])
    assert {name: loaded[name] for name in state} == state
    for seed in range(3, 6):
        step(net, trainer, contexts, seed)
        step(other, other_trainer, contexts, seed)
    for name, arrays in values(net).items():
        for index, (first, second) in enumerate(zip(arrays, values(other)[name])):
            if 'running' in name and index:
                continue  # each device keeps its own statistics; the first one's are stored
            np.testing.assert_array_equal(first, second, err_msg=name)


@pytest.mark.parametrize('damage', ['missing', 'cut'])
def test_damaged_checkpoint_is_passed_over_for_the_one_before(damage, tmp_path, capsys):
    net, trainer = make('nag', [mx.cpu()])
    path = tmp_path / 'c.npz'
    for epoch in (1, 2, 3):
        checkpoint.save_checkpoint(path, {'net': net}, [trainer], state_after(epoch))
    assert checkpoint.load_checkpoint(path, {'net': net}, [trainer])['epoch'] == 3
    assert not capsys.readouterr().out
    if damage == 'missing':
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-300])
    assert checkpoint.load_checkpoint(path, {'net': net}, [trainer])['epoch'] == 2
    reason = 'missing' if damage == 'missing' else 'damaged checkpoint .*, now in c.npz.damaged'
    assert re.search(f'c.npz: {reason}; c.before.npz is used', capsys.readouterr().out)
    damaged = tmp_path / 'c.npz.damaged'
    assert damaged.exists() == (damage != 'missing')
    checkpoint.save_checkpoint(path, {'net': net}, [trainer], state_after(4))
    path.write_bytes(b'')
    assert checkpoint.load_checkpoint(path, {'net': net}, [trainer])['epoch'] == 2
    assert len(list(tmp_path.glob('c.npz.damaged*'))) == 1 + (damage != 'missing')
    path.write_bytes(b'')
    checkpoint.before(path).write_bytes(b'')
    with pytest.raises(UserError, match='damaged'):
        checkpoint.load_checkpoint(path, {'net': net}, [trainer])


@pytest.fixture
def two(tmp_path):
    """(path, blocks, trainers, load) where a checkpoint of epoch 2 lies beside one of epoch 1."""
    net, trainer = make('nag', [mx.cpu()])
    path = tmp_path / 'c.npz'
    for epoch in (1, 2):
        checkpoint.save_checkpoint(path, {'net': net}, [trainer], state_after(epoch))
    return path, {'net': net}, [trainer]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize('error', [OSError(5, 'Input/output error'), MemoryError()], ids=['EIO', 'memory'])
def test_failure_to_read_is_no_damage_and_leaves_both_checkpoints(two, tmp_path, monkeypatch, error):
    kept, read = contents(tmp_path), Path.read_bytes

    def read_bytes(path):
        if path == two[0]:
            raise error
        return read(path)

    monkeypatch.setattr(Path, 'read_bytes', read_bytes)
    with pytest.raises(UserError, match='c.npz: .*no checkpoint was changed'):
        checkpoint.load_checkpoint(*two)
    monkeypatch.undo()
    assert contents(tmp_path) == kept
    assert checkpoint.load_checkpoint(*two)['epoch'] == 2


@pytest.mark.parametrize(
    'damage',
    [
        {'epoch': None},
        {'epoch': -1},
        {'step': 0.5},
        {'totals': [0.0]},
        {'history': 3},
        {'history': [{'val_acc': 'high'}]},
        {'update_counts': [{'a': 1}]},
        {'data': 3},
    ],
    ids=str,
)
def test_damage_in_the_state_is_passed_over_too(two, damage):
    path = two[0]
    with np.load(path) as archive:
        arrays = dict(archive)
    state = {**json.loads(str(arrays.pop('state'))), **damage}
    np.savez(path, state=np.array(json.dumps(state)), **arrays)
    assert checkpoint.load_checkpoint(*two)['epoch'] == 1
    assert path.with_name('c.npz.damaged').exists() and not path.exists()


def test_workers_read_what_rank_0_has_chosen(two, capsys):
    """Each worker alone would pass over, or not, what it sees itself; only rank 0 may rename."""
    path, seen = two[0], []

    def workers(rank, use_before):
        def add_up(values):
            seen.append((rank, *map(bool, values)))
            return np.array([use_before, values[1]], float)

        return SimpleNamespace(is_rank_zero=rank == 0, sum=add_up)

    kept = contents(path.parent)
    assert checkpoint.load_checkpoint(*two, workers(1, True))['epoch'] == 1
    path.write_bytes(b'')
    with pytest.raises(UserError, match='c.npz: damaged checkpoint .*rank 0 could read it'):
        checkpoint.load_checkpoint(*two, workers(1, False))
    assert contents(path.parent) == {**kept, 'c.npz': b''} and not capsys.readouterr().out
    assert checkpoint.load_checkpoint(*two, workers(0, True))['epoch'] == 1
    assert (
        seen == [(1, False, False), (1, False, False), (0, True, False)]
        and path.with_name('c.npz.damaged').exists()
    )


def test_workers_stop_together_where_rank_0_finds_no_checkpoint(two):
    for path in two[0].parent.iterdir():
        path.unlink()
    told = []

    def rank_0(values):
        told.append(list(values))
        return np.array(values, float)

    with pytest.raises(UserError, match='there is no checkpoint to resume from'):
        checkpoint.load_checkpoint(*two, SimpleNamespace(is_rank_zero=True, sum=rank_0))
    with pytest.raises(UserError, match='c.npz: rank 0 cannot resume from it'):
        checkpoint.load_checkpoint(*two, SimpleNamespace(is_rank_zero=False, sum=lambda _: np.array(told[0])))


def test_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    net, trainer = make('nag', [mx.cpu()])
    path = tmp_path / 'c.npz'
    checkpoint.save_checkpoint(path, {'net': net}, [trainer], state_after(1))
    monkeypatch.setattr('os.fsync', lambda _: (_ for _ in ()).throw(OSError(28, 'disk full')))
    with pytest.raises(OSError):
        checkpoint.save_checkpoint(path, {'net': net}, [trainer], state_after(2))
    with np.load(path) as archive:
        assert json.loads(str(archive['state']))['epoch'] == 1


def test_weights_round_trip(tmp_path):
    net, _ = make('nag', [mx.cpu()])
    save_weights(tmp_path / 'w.params', net)
    other, _ = make('nag', [mx.cpu()])
    load_weights(tmp_path / 'w.params', other, [mx.cpu()])
    for name, arrays in values(net).items():
        np.testing.assert_array_equal(arrays[0], values(other)[name][0])


def test_checkpoint_of_a_later_format_is_not_passed_over_for_the_one_before(tmp_path, monkeypatch):
    net, trainer = make('nag', [mx.cpu()])
    path = tmp_path / 'c.npz'
    checkpoint.save_checkpoint(path, {'net': net}, [trainer], state_after(1))
    with monkeypatch.context() as later:
        later.setattr(checkpoint, 'FORMAT', 2)
        checkpoint.save_checkpoint(path, {'net': net}, [trainer], state_after(2))
    with pytest.raises(UserError, match='c.npz: a checkpoint of format 2'):
        checkpoint.load_checkpoint(path, {'net': net}, [trainer])


def test_further_arrays_are_filled_or_their_lack_is_told(tmp_path):
    net, trainer = make('nag', [mx.cpu()])
    path, found = tmp_path / 'c.npz', {'losses/known': np.zeros(3, np.float32)}
    checkpoint.save_checkpoint(
        path, {'net': net}, [trainer], state_after(1), {'losses/known': np.arange(3.0)}
    )
    checkpoint.load_checkpoint(path, {'net': net}, [trainer], further=found)
    np.testing.assert_array_equal(found['losses/known'], [0, 1, 2])
    for name, shape in ('losses/known', 4), ('losses/other', 3):
        with pytest.raises(
            UserError, match=rf'c.npz: does not fit this run: {name} of shape \({shape},\) is'
        ):
            checkpoint.load_checkpoint(path, {'net': net}, [trainer], further={name: np.zeros(shape)})
