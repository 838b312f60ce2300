"""A run that is asked to stop."""

import signal

import numpy as np
import pytest

from training.loop.epoch import StopRequest


def test_signal_during_the_agreement_is_for_the_next_one():
    """The other workers have not heard of it: to stop now would leave them waiting."""

    class Workers:
        def sum(self, values):
            total = np.array(values, np.float32)  # sent before the signal comes
            stop.signal = 2
            return total

    stop = StopRequest()
    assert not stop.agree(Workers()) and stop.agree(Workers())


def test_second_ctrl_c_acts_as_usual():
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    stop = StopRequest()
    try:
        with stop.listening():
            signal.raise_signal(signal.SIGINT)
            assert stop.signal == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, kept)
