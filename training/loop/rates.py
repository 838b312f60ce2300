"""Learning rates, margin and loss weights: functions of the step, and where they are set."""

from typing import Any, Callable

from training.model import Model


class Rates:
    """What changes from step to step: read at any step, set only where it takes effect.

    Parameters
    ----------
    learning_rates : list of callable
        Step to learning rate, one for each trainer; the first is the net's.
    trainers : list of gluon.Trainer
    model : training.model.Model
    margin : callable or None
        Step to the margin of the L-GM loss, as far as the model has one.
    softmax_weight : callable or None
        Step to the weight of the cross entropy, where the model's graph is weighted.
    """

    def __init__(
        self,
        learning_rates: list[Callable],
        trainers: list[Any],
        model: Model,
        margin: Callable,
        softmax_weight: Callable = lambda step: 1.0,
    ) -> None:
        self._learning_rates, self._trainers = learning_rates, trainers
        self._switches = []
        self._margin = margin if model.loss_fn else lambda step: 0.0
        if model.loss_fn:
            self._switches.append((self._margin, model.loss_fn.set_margin))
        if hasattr(model.graph, 'softmax_weight'):
            self._switches.append((softmax_weight, model.graph.set_softmax_weight))
        self._current: dict[int, float] = {}

    def at(self, step: int) -> dict[str, float]:
        """The net's learning rate and the margin at a step, counted from 0 over the whole run."""
        return {'lr': self._learning_rates[0](step), 'margin': self._margin(step)}

    def set(self, step: int) -> None:
        """Set everything for the step to come; no retrace, no host read."""
        for trainer, rate in zip(self._trainers, self._learning_rates):
            trainer.set_learning_rate(rate(step))
        for number, (value_at, set_value) in enumerate(self._switches):
            value = value_at(step)
            if self._current.get(number) != value:
                set_value(value)
                self._current[number] = value
