"""The moving average of the weights, by a plain loop, and in whole runs."""

import signal
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from small_runs import SMALL, run_fields, same_weights

from training.optim.average import MovingAverage


def make_graph(contexts):
    graph = gluon.nn.HybridSequential()
    for _ in range(25):  # 100 arrays: more than one call takes
        graph.add(gluon.nn.Dense(3, in_units=3), gluon.nn.BatchNorm(in_channels=3, axis=1))
    graph.initialize(mx.init.Normal(1), ctx=contexts)
    return graph


def weights(graph, context):
    return {
        name: parameter.data(context).asnumpy().astype(np.float64)
        for name, parameter in graph._collect_params_with_prefix().items()
    }


@pytest.mark.parametrize('decay', [0.0, 0.3, 0.9])
def test_average_by_a_plain_loop_on_two_contexts(decay):
    contexts = [mx.cpu(0), mx.cpu(1)]
    graph, twin = make_graph(contexts), make_graph(contexts)
    trainer = gluon.Trainer(graph.collect_params(), 'sgd', {'learning_rate': 0.1})
    average = MovingAverage(*(SimpleNamespace(graph=part) for part in (graph, twin)), decay)
    expected = [weights(graph, context) for context in contexts]
    for step in range(12):
        for context in contexts:
            x = nd.random.normal(shape=(8, 3), ctx=context)
            with autograd.record():
                loss = (graph(x) * x).sum()
            loss.backward()
        trainer.step(16)
        average.update(step)
        share = min(decay, (1 + step) / (10 + step))
        for now, context in zip(expected, contexts):
            for name, value in weights(graph, context).items():
                now[name] = share * now[name] + (1 - share) * value
    for now, context in zip(expected, contexts):
        found, last = weights(twin, context), weights(graph, context)
        for name, value in found.items():
            np.testing.assert_allclose(value, now[name], rtol=1e-4, atol=1e-5, err_msg=name)
        gaps = [abs(found[name] - last[name]).max() for name in found]
        assert max(gaps) < 1e-5 if decay == 0 else max(gaps) > 0.01


def test_run_keeps_the_average_and_goes_on_with_it(
    run_here, stop_at, tmp_path, capsys, monkeypatch, no_figures
):
    words = ['--epochs', 2, '--weight-average', 0.9]
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    steps, expected, update = [], [], MovingAverage.update

    def watched(average, step):
        expected[:] = expected or [average._parts[0][0][0].asnumpy()]
        update(average, step)
        steps.append(step)
        share = min(0.9, (1 + step) / (10 + step))
        expected.append(share * expected[-1] + (1 - share) * average._parts[0][0][1].asnumpy())

        held.update(p.grad_req for p in average.model.graph.collect_params().values())

    held = set()  # gradients of the average would take memory for nothing
    with monkeypatch.context() as patch:
        patch.setattr(MovingAverage, 'update', watched)
        assert run_here('train_cifar', *SMALL, *words, '--output-dir', whole) == 0
    assert steps == list(range(16)) and held == {'null'}
    kept = next(
        array.asnumpy()
        for array in mx.nd.load(str(whole / 'last.params')).values()
        if array.shape == expected[0].shape
    )
    np.testing.assert_allclose(kept, expected[-1], rtol=1e-4, atol=1e-6)
    assert abs(expected[-1] - expected[0]).max() > 1e-3
    stop_at(11)  # the third step of the second epoch
    assert run_here('train_cifar', *SMALL, *words, '--output-dir', parts) == 128 + signal.SIGTERM
    assert run_here('train_cifar', '--resume', '--output-dir', parts) == 0
    assert run_fields(parts) == run_fields(whole) and same_weights(parts, whole)
    capsys.readouterr()
    assert run_here('train_cifar', '--test', '--weights', whole / 'last.params', *SMALL) == 0
    shown = capsys.readouterr().out.split('accuracy ')[1].split()[0]
    assert float(shown) == pytest.approx(float(run_fields(whole)[-1]['val_acc']), abs=1e-4)
