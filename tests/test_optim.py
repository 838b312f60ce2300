"""Learning-rate schedules at given steps."""
import math

import pytest

from training import optim
from training.recipe import Optimisation


def test_v6_schedule():
    rate = optim.learning_rate(Optimisation(
        epochs=400, lr=0.1, schedule='step', decay_factor=0.5, warmup='constant',
        warmup_epochs=10, warmup_lr=0.01, decay_epochs=[100, 150, 200, 250, 300, 350]), 390)
    expected = {0: 0.01, 9: 0.01, 10: 0.1, 99: 0.1, 100: 0.05, 149: 0.05, 150: 0.025,
                200: 0.0125, 250: 0.00625, 300: 0.003125, 350: 0.0015625, 399: 0.0015625}
    for epoch, lr in expected.items():
        assert rate(epoch * 390) == pytest.approx(lr, rel=1e-12)
        assert rate(epoch * 390 + 389) == pytest.approx(lr, rel=1e-12)


def test_linear_warmup_then_cosine():
    rate = optim.learning_rate(Optimisation(epochs=10, lr=0.2, schedule='cosine', warmup='linear',
                                            warmup_epochs=2), 100)
    for step in range(200):
        assert rate(step) == pytest.approx(0.2 * (step + 1) / 200)
    for step in range(200, 1000):
        assert rate(step) == pytest.approx(0.1 * (1 + math.cos(math.pi * (step - 200) / 800)))
    assert rate(999) < 1e-5


def test_fractional_decay_epochs_fall_within_an_epoch():
    rate = optim.learning_rate(Optimisation(epochs=30, lr=1.0, schedule='step', decay_factor=0.5,
                                            decay_epochs=[7.5]), 10)
    assert (rate(74), rate(75)) == (1.0, 0.5)
