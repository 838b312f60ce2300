"""Schedules of the multiplicative margin alpha: functions of the training step, without state."""

import math


class ConstantMargin:
    """The same margin at every step.

    Parameters
    ----------
    alpha : float
        The margin, at least 0.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = not_negative('alpha', alpha)

    def __call__(self, step: int) -> float:
        """Margin at training step `step`, counted from 0."""
        return self.alpha


class StepUpMargin:
    """Margin multiplied by `factor` every `every` steps up to `maximum`.

    The STEPUP rule of the authors' Caffe layer: 0.1, doubled every 5000 iterations, at most 0.3.

    Parameters
    ----------
    start : float
        Margin at step 0, above 0.
    factor : float
        Multiplier, at least 1.
    every : int
        Steps between two multiplications, at least 1.
    maximum : float
        Upper bound of the margin, at least `start`.
    """

    def __init__(
        self, start: float = 0.1, factor: float = 2.0, every: int = 5000, maximum: float = 0.3
    ) -> None:
        if not (0 < start <= maximum and factor >= 1 and every >= 1):
            raise ValueError(
                'a step-up margin needs 0 < start <= maximum, factor >= 1 and every '
                f'>= 1, got start={start}, maximum={maximum}, factor={factor}, '
                f'every={every}'
            )
        self.start, self.factor, self.every, self.maximum = start, factor, every, maximum

    def __call__(self, step: int) -> float:
        """Margin at training step `step`, counted from 0."""
        try:
            grown = self.start * float(self.factor) ** (step // self.every)
        except OverflowError:
            return self.maximum
        return min(self.maximum, grown)


def not_negative(name: str, value: float) -> float:
    """`value`, a float, if it can be a margin or a weight, else a ValueError that names it."""
    if not 0 <= value < math.inf:
        raise ValueError(f'{name} must be finite and not negative, got {value}')
    return float(value)  # Gluon's initialisers take no NumPy scalars once hybridised
