"""The two phases of Center_Loss_in_MXNet in one run of train_mnist.py."""

import math
import signal

import mxnet as mx
import numpy as np
import pytest
from small_runs import run_fields, same_weights

from training.loop import fit as fit_module
from training.loop import validation
from training.losses.graphs import SoftmaxGraph

pytestmark = pytest.mark.usefixtures('no_figures')
WHOLE = ('--version', 'two-phase', '--epochs', 4, '--first-phase-epochs', 2, '--lr', 0.02)


@pytest.fixture(scope='module')
def whole(tmp_path_factory, train_small):
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp('runs') / 'whole'
    assert train_small(folder, *WHOLE) == 0
    return folder


def test_two_phases_restart_the_rate_and_freeze_the_centers(train_small, tmp_path, monkeypatch):
    weights, centers, rates = [], [], []
    kept_set, kept_epoch = SoftmaxGraph.set_softmax_weight, fit_module.train_epoch

    def train_epoch(graph, data, trainers, *rest):
        result = kept_epoch(graph, data, trainers, *rest)
        centers.append(graph.center_loss.centers.weight.data().asnumpy())
        rates.append([trainer.learning_rate for trainer in trainers])
        return result

    monkeypatch.setattr(fit_module, 'train_epoch', train_epoch)
    monkeypatch.setattr(
        SoftmaxGraph,
        'set_softmax_weight',
        lambda graph, weight: weights.append(weight) or kept_set(graph, weight),
    )
    decay = '--alpha', 0.4, '--decay-epochs', 1, '--decay-factor', 0.5
    assert train_small(tmp_path / 'run', *WHOLE, *decay) == 0
    rows = run_fields(tmp_path / 'run')
    assert [float(row['lr']) for row in rows] == pytest.approx([0.02, 0.01, 0.02, 0.01])
    assert weights == [1, 0]
    np.testing.assert_allclose(rates, [[0.02, 0.4], [0.01, 0.2], [0.02, 0], [0.01, 0]])
    assert (centers[0] != centers[1]).any() and (centers[2] == centers[3]).all()
    last = mx.nd.load(str(tmp_path / 'run' / 'last.params'))
    assert (last['center_loss.centers.weight'].asnumpy() == centers[3]).all()


def test_second_phase_begins_with_the_best_weights_of_the_first(train_small, tmp_path, monkeypatch):
    """As two commands of Center_Loss_in_MXNet would; and it leaves output layer and centers alone."""
    best, accuracies = tmp_path / 'run' / 'best.params', iter([0.5, 0.9, 0.7, 0.8, 0.6])
    validate = validation.Validation.__call__
    monkeypatch.setattr(
        validation.Validation,
        '__call__',
        lambda self, size: {**validate(self, size), 'val_acc': next(accuracies)},
    )
    words = '--version two-phase --epochs 5 --first-phase-epochs 3 --lr 0.02 --wd 0.1 --momentum 0.5'
    assert train_small(best.parent, *words.split()) == 0
    of_best, last = mx.nd.load(str(best)), mx.nd.load(str(tmp_path / 'run' / 'last.params'))
    for name in ('net.output.weight', 'net.output.bias', 'center_loss.centers.weight'):
        assert (of_best[name].asnumpy() == last[name].asnumpy()).all(), name
    assert any((of_best[name].asnumpy() != last[name].asnumpy()).any() for name in of_best)


@pytest.mark.parametrize('step, message', [(12, 'stopped after epoch 2'), (13, 'stopped in epoch 3')])
def test_two_phases_stopped_at_their_boundary_resume_as_if_they_had_not(
    whole, train_small, stop_at, tmp_path, capsys, step, message
):
    """After the last step of the first phase, and after the first one of the second."""
    stopped = tmp_path / 'stopped'
    stop_at(step)
    assert train_small(stopped, *WHOLE) == 128 + signal.SIGTERM
    assert message in capsys.readouterr().out
    assert train_small(stopped, '--version', 'two-phase', '--resume') == 0
    assert run_fields(stopped) == run_fields(whole)
    assert same_weights(stopped, whole)


def test_each_phase_has_a_whole_schedule(train_small, tmp_path):
    words = '--version two-phase --epochs 5 --first-phase-epochs 2 --lr 0.01 --lr-batch-size 10'
    assert train_small(tmp_path / 'run', *words.split(), '--schedule', 'cosine', '--device', 'cpu:0,1') == 0
    steps = 60 / 20  # of two devices, so that the rate is twice the one given
    assert [float(row['lr']) for row in run_fields(tmp_path / 'run')] == pytest.approx(
        [
            0.01 * (1 + math.cos(math.pi * (epoch * steps - 1) / (length * steps)))
            for length in (2, 3)
            for epoch in range(1, length + 1)
        ],
        rel=1e-4,
    )
