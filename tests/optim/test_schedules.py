"""The schedules of the recipes at given steps."""

import math

import pytest

from training.config.schema import Optimisation
from training.optim.schedules import learning_rate


def test_v6_schedule():
    rate = learning_rate(
        Optimisation(
            epochs=400,
            lr=0.1,
            schedule='step',
            decay_factor=0.5,
            warmup='constant',
            warmup_epochs=10,
            warmup_lr=0.01,
            decay_epochs=[100, 150, 200, 250, 300, 350],
        ),
        390,
        128,
    )
    expected = {
        0: 0.01,
        9: 0.01,
        10: 0.1,
        99: 0.1,
        100: 0.05,
        149: 0.05,
        150: 0.025,
        200: 0.0125,
        250: 0.00625,
        300: 0.003125,
        350: 0.0015625,
        399: 0.0015625,
    }
    for epoch, lr in expected.items():
        assert rate(epoch * 390) == pytest.approx(lr, rel=1e-12)
        assert rate(epoch * 390 + 389) == pytest.approx(lr, rel=1e-12)


def test_linear_warmup_then_cosine():
    rate = learning_rate(
        Optimisation(epochs=10, lr=0.2, schedule='cosine', warmup='linear', warmup_epochs=2), 100, 128
    )
    for step in range(200):
        assert rate(step) == pytest.approx(0.2 * (step + 1) / 200)
    for step in range(200, 1000):
        assert rate(step) == pytest.approx(0.1 * (1 + math.cos(math.pi * (step - 200) / 800)))
    assert rate(999) < 1e-5


@pytest.mark.parametrize('batch_size, scale', [(512, 1), (128, 0.25), (1024, 2)])
def test_rates_scale_linearly_with_the_batch(batch_size, scale):
    rate = learning_rate(
        Optimisation(
            epochs=10,
            lr=0.1,
            schedule='step',
            decay_factor=0.5,
            decay_epochs=[5],
            warmup='constant',
            warmup_epochs=1,
            warmup_lr=0.01,
            lr_batch_size=512,
        ),
        10,
        batch_size,
    )
    assert [rate(0), rate(10), rate(50)] == pytest.approx([0.01 * scale, 0.1 * scale, 0.05 * scale])


@pytest.mark.parametrize('schedule', ['cosine', 'polynomial'])
def test_schedule_of_a_phase_is_that_of_a_run_of_its_length(schedule):
    whole, phase = (
        learning_rate(Optimisation(epochs=epochs, schedule=schedule), 10, 128, length)
        for epochs, length in ((4, None), (10, 4))
    )
    assert [phase(step) for step in range(40)] == [whole(step) for step in range(40)]


def test_fractional_decay_epochs_fall_within_an_epoch():
    rate = learning_rate(
        Optimisation(epochs=30, lr=1.0, schedule='step', decay_factor=0.5, decay_epochs=[7.5]), 10, 128
    )
    assert (rate(74), rate(75)) == (1.0, 0.5)


def test_polynomial_decay():
    rate = learning_rate(
        Optimisation(
            epochs=10, lr=0.4, schedule='polynomial', decay_power=2, warmup='linear', warmup_epochs=2
        ),
        10,
        1,
    )
    assert [rate(9), rate(20), rate(60), rate(99)] == pytest.approx(
        [0.2, 0.4, 0.4 * 0.5**2, 0.4 * (1 / 80) ** 2]
    )
