"""A moving average of the weights, to be validated and kept in their place."""

from typing import Any, Optional

from boltons.iterutils import chunked
from mxnet import nd

from training.model import Model, build_model, initialize

AT_ONCE = 60  # arrays of one call: the most that multi_sgd_update takes


class MovingAverage:
    r"""Keeps a twin of a graph at the exponential moving average of its weights.

    .. math:: \bar w \leftarrow d \, \bar w + (1 - d) \, w, \qquad
        d = \min(\text{decay}, \tfrac{1 + t}{10 + t})

    after every step t, so that the start is soon forgotten. BatchNorm's running statistics are
    averaged alike. Source: Polyak and Juditsky, "Acceleration of stochastic approximation by
    averaging" (1992), with the exponential weights and the warm-up that TensorFlow made usual.

    Parameters
    ----------
    model, twin : training.model.Model
        Two of the same kind, initialised on the same contexts; the twin gets the model's weights.
    decay : float
        0 to 1.
    """

    def __init__(self, model: Model, twin: Model, decay: float) -> None:
        self.model = twin
        self._decay = decay
        ours, theirs = (part.graph._collect_params_with_prefix() for part in (model, twin))
        pairs = [(theirs[name], ours[name]) for name in ours]
        for average, weight in pairs:
            average.set_data(weight.data(weight.list_ctx()[0]))
        self._parts = [
            part
            for context in pairs[0][0].list_ctx()
            for part in chunked(
                [(average.data(context), weight.data(context)) for average, weight in pairs], AT_ONCE
            )
        ]

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0 over the whole run; no host read."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        for part in self._parts:
            # SGD on half the squared distance from the average to the weight.
            nd.multi_sgd_update(
                *[array for pair in part for array in pair],
                out=[average for average, _ in part],
                lrs=[share] * len(part),
                wds=[1] * len(part),
                rescale_grad=-1,
                num_weights=len(part),
            )


def build_moving_average(
    model: Model, recipe: Any, device: Any, contexts: list[Any]
) -> Optional[MovingAverage]:
    """The MovingAverage of an initialised model that its recipe asks for, or None.

    Parameters are those of training.model.build_model and initialize.
    """
    decay = recipe.refinement.weight_average
    if not decay:
        return None
    twin = build_model(recipe, device)
    initialize(twin, recipe, contexts)
    twin.graph.collect_params().setattr('grad_req', 'null')
    return MovingAverage(model, twin, decay)
