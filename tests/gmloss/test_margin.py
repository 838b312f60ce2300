"""Margin schedules."""

import pytest

from gmloss import ConstantMargin, StepUpMargin


def test_constant_margin_never_changes():
    assert [ConstantMargin(0.3)(step) for step in (0, 1, 10**9)] == [0.3] * 3


def test_step_up_doubles_every_5000_steps_up_to_its_maximum():
    steps = [0, 4999, 5000, 9999, 10000, 10**12]
    for margin in (StepUpMargin(0.1, 2, 5000, 0.3), StepUpMargin()):
        assert [margin(step) for step in steps] == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]


@pytest.mark.parametrize('settings', [dict(start=0), dict(start=0.4), dict(factor=0.5), dict(every=0)])
def test_impossible_schedules_are_refused(settings):
    with pytest.raises(ValueError, match='step-up margin needs'):
        StepUpMargin(**settings)


def test_negative_constant_margin_is_refused():
    with pytest.raises(ValueError, match='alpha'):
        ConstantMargin(-0.1)
