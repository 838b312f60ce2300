"""Muon against NumPy, and the trainer."""

from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon

from training.config.schema import Optimisation
from training.optim.muon import orthogonalise
from training.optim.overflow import OverflowGuard
from training.optim.trainer import build_trainer, make_trainer, server_optimizer, take_step


def newton_schulz(matrix):
    """The iteration by plain NumPy."""
    x = matrix / (np.linalg.norm(matrix) + 1e-7)
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(3):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize('shape', [(3, 16, 144), (2, 64, 32)])
def test_orthogonalise_equals_numpy_and_keeps_the_directions(shape):
    matrices = np.random.default_rng(0).normal(size=shape)
    found = orthogonalise(mx.nd, mx.nd.array(matrices), tall=shape[1] > shape[2]).asnumpy()
    for matrix, got in zip(matrices, found):
        np.testing.assert_allclose(got, newton_schulz(matrix), atol=1e-4)
        left, singular, right = np.linalg.svd(got, full_matrices=False)
        assert 0.6 < singular.min() and singular.max() < 1.25
        u, _, v = np.linalg.svd(matrix, full_matrices=False)
        np.testing.assert_allclose(left @ right, u @ v, atol=1e-3)


def test_muon_steps_equal_numpy():
    """Two kernels of one shape, one of another, and a vector that NAG updates."""
    rng = np.random.default_rng(0)
    shapes = [(4, 3, 3, 3), (4, 3, 3, 3), (8, 4, 1, 1), (5,)]
    lr, matrix_lr, momentum, wd, batch = 0.2, 0.05, 0.9, 1e-2, 10
    parameters = [gluon.Parameter(f'p{i}', shape=shape) for i, shape in enumerate(shapes)]
    weights = [rng.normal(size=shape) for shape in shapes]
    for parameter, weight in zip(parameters, weights):
        parameter.initialize()
        parameter.set_data(mx.nd.array(weight))
    lr_mult, wd_mult = parameters[3].lr_mult, parameters[3].wd_mult = 0.5, 3.0
    trainer = build_trainer(
        parameters, Optimisation(optimizer='muon', lr=lr, matrix_lr=matrix_lr, momentum=momentum, wd=wd)
    )
    states = [np.zeros(shape) for shape in shapes]
    for share in (1, 0.5, 0.1):  # of the schedule, which both rates follow
        trainer.set_learning_rate(lr * share)
        gradients = [rng.normal(size=shape) for shape in shapes]
        with mx.autograd.record():
            loss = sum((p.data() * mx.nd.array(g)).sum() for p, g in zip(parameters, gradients))
        loss.backward()
        trainer.step(batch)
        for i, gradient in enumerate(gradients):
            gradient = gradient / batch
            if i == 3:
                # mxnet's momentum holds steps, not gradients: a new rate leaves them as they were.
                move = lr * share * lr_mult * (gradient + wd * wd_mult * weights[i])
                states[i] = momentum * states[i] + move
                weights[i] = weights[i] - move - momentum * states[i]
                continue
            states[i] = momentum * states[i] + gradient
            update = gradient + momentum * states[i]
            rows = len(update)
            weights[i] = weights[i] * rows**0.5 / np.linalg.norm(weights[i])
            weights[i] -= matrix_lr * share * newton_schulz(update.reshape(rows, -1)).reshape(update.shape)
    for parameter, weight in zip(parameters, weights):
        np.testing.assert_allclose(parameter.data().asnumpy(), weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('contexts', [[mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]], ids=['one', 'two'])
@pytest.mark.parametrize('wrong', [np.inf, -np.inf, np.nan])
def test_all_trainers_skip_a_step_in_which_one_gradient_overflows(contexts, wrong):
    """As for MNIST, whose net and centers have a trainer each."""
    shapes = (3, 2, 1, 1), (4,), (5,)
    parameters = [gluon.Parameter(f'p{i}', shape=shape) for i, shape in enumerate(shapes)]
    for parameter in parameters:
        parameter.initialize(mx.init.One(), ctx=contexts)
    trainers = [
        build_trainer(parameters[:2], Optimisation(optimizer='sgd', momentum=0, wd=0)),
        make_trainer(parameters[2:], 'sgd', {'wd': 0}),
    ]
    for trainer in trainers:
        trainer.set_learning_rate(0.5)
    guard = OverflowGuard(trainers)

    def weights_after(last):
        with mx.autograd.record():  # gradients of 1, `last` and 1 on the first device, 0 on others
            losses = [
                sum(
                    (parameter.data(context) * (slope if context == contexts[0] else 0)).sum()
                    for parameter, slope in zip(parameters, (1, last, 1))
                )
                for context in contexts
            ]
        mx.autograd.backward(losses)
        take_step(trainers, 1, guard)
        return [
            array.asnumpy().ravel().tolist() for parameter in parameters for array in parameter.list_data()
        ]

    devices = len(contexts)
    ones = [[1] * 6] * devices + [[1] * 4] * devices + [[1] * 5] * devices
    assert weights_after(wrong) == ones
    assert weights_after(wrong) == ones
    assert guard.skipped_steps() == 2
    assert weights_after(2) == [[0.5] * 6] * devices + [[0] * 4] * devices + [[0.5] * 5] * devices
    assert guard.skipped_steps() == 0


def test_servers_know_the_learning_rate_before_a_worker_pushes():
    seen = []
    workers = SimpleNamespace(
        distributed=True,
        asynchronous=True,
        size=2,
        start_from_rank_zero=lambda parameters: 5,
        tell_servers=lambda **message: seen.append(message),
        update_on_servers=lambda *_: seen.append('push'),
    )
    parameters = [
        gluon.Parameter(name, shape=(2,), lr_mult=lr_mult, wd_mult=wd_mult)
        for name, lr_mult, wd_mult in (('p', 2, 3), ('q', 5, 7))
    ]
    for parameter in parameters:
        parameter.initialize()
    trainer = build_trainer(parameters, Optimisation(optimizer='sgd'), workers)
    for rate in (0.3, 0.3, 0.1):
        trainer.set_learning_rate(rate)
        trainer.step(4)
    assert seen[1:] == ['push', 'push', {'lr': 0.1}, 'push']
    assert server_optimizer(**seen[0]).learning_rate == 0.3
    assert seen[0]['rescale_grad'] == 0.5  # each worker's gradients are of its half of the 4 images
    assert (seen[0]['lr_mult'], seen[0]['wd_mult']) == ({5: 2, 6: 5}, {5: 3, 6: 7})


def test_nag_is_the_plain_formula_with_the_multipliers_of_each_parameter():
    rng = np.random.default_rng(0)
    lr, momentum, wd, batch, lr_mult, wd_mult = 0.5, 0.9, 0.3, 4, 0.3, 2.0
    weight, state = rng.normal(size=(6, 5)), np.zeros((6, 5))
    parameter = gluon.Parameter('p', shape=weight.shape)
    parameter.initialize()
    parameter.set_data(mx.nd.array(weight))
    parameter.lr_mult, parameter.wd_mult = lr_mult, wd_mult
    trainer = build_trainer([parameter], Optimisation(optimizer='nag', lr=lr, momentum=momentum, wd=wd))
    trainer.set_learning_rate(lr)
    for _ in range(4):
        gradient = rng.normal(size=weight.shape)
        with mx.autograd.record():
            loss = (parameter.data() * mx.nd.array(gradient)).sum()
        loss.backward()
        trainer.step(batch)
        decayed = gradient / batch + wd * wd_mult * weight
        state = momentum * state + decayed
        weight = weight - lr * lr_mult * (decayed + momentum * state)
    np.testing.assert_allclose(parameter.data().asnumpy(), weight, rtol=1e-5, atol=1e-6)
