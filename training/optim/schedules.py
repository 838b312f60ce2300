"""Learning rate and margin of a recipe by training step."""

import math
from typing import Callable, Optional, Union

from gmloss import ConstantMargin, StepUpMargin
from training.config.schema import CifarLoss, Loss, Optimisation


def learning_rate(
    optimisation: Optimisation, steps_per_epoch: int, batch_size: int, epochs: Optional[int] = None
) -> Callable[[int], float]:
    """The schedule of a recipe as a function of the training step, counted from 0.

    Parameters
    ----------
    optimisation : training.config.schema.Optimisation
    steps_per_epoch : int
    batch_size : int
        Images a step over all devices, for the recipes whose rates are scaled with it (linear
        scaling: He et al., arXiv 1812.01187, section 3.1).
    epochs : int, optional
        Over which the schedule runs, if not over all of the recipe's.

    Returns
    -------
    callable
        step -> learning rate. Step decay: lr * decay_factor ** (decay epochs passed). Cosine:
        lr / 2 * (1 + cos(pi * t)) with t running from 0 to 1 after the warm-up (He et al.,
        arXiv 1812.01187, section 5.1; linear warm-up in section 3.1). Polynomial:
        lr * (1 - t) ** decay_power.
    """
    o = optimisation
    total = (o.epochs if epochs is None else epochs) * steps_per_epoch
    warmup = 0 if o.warmup == 'none' else round(o.warmup_epochs * steps_per_epoch)
    decays = [round(epoch * steps_per_epoch) for epoch in o.decay_epochs]

    scale = _scale(o, batch_size)
    lr, warmup_lr = o.lr * scale, o.warmup_lr * scale

    def rate(step: int) -> float:
        if step < warmup:
            return warmup_lr if o.warmup == 'constant' else lr * (step + 1) / warmup
        progress = (step - warmup) / max(1, total - warmup)
        if o.schedule == 'cosine':
            return lr / 2 * (1 + math.cos(math.pi * progress))
        if o.schedule == 'polynomial':
            return lr * (1 - progress) ** o.decay_power
        return lr * o.decay_factor ** sum(step >= decay for decay in decays)

    return rate


def rate_of_centers(
    loss: CifarLoss, optimisation: Optimisation, batch_size: int, learning_rate: Callable[[int], float]
) -> Callable[[int], float]:
    """The learning rate of the centers of a center loss as a function of the step.

    Under SGD it moves each center of a class in the batch by a share of its way to the mean of the
    class's features: `alpha` where `learning_rate`, whose course it follows, is at its peak (Wen et al.,
    ECCV 2016, equation 4, but for the 1 that they add to the number of features). The gradient
    of a center is lmbd times that way, and a Trainer divides it by the batch.
    """
    if not loss.lmbd:
        return lambda step: 0.0
    peak = optimisation.lr * _scale(optimisation, batch_size)
    return lambda step: loss.alpha * batch_size / loss.lmbd * learning_rate(step) / peak


def _scale(optimisation: Optimisation, batch_size: int) -> float:
    return batch_size / optimisation.lr_batch_size if optimisation.lr_batch_size else 1.0


def margin(loss: Loss) -> Union[ConstantMargin, StepUpMargin]:
    """The margin of a training.config.schema.Loss as a function of the step."""
    if loss.margin_factor == 1:
        return ConstantMargin(loss.margin)
    return StepUpMargin(loss.margin, loss.margin_factor, loss.margin_every, loss.margin_maximum)
