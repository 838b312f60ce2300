"""Learning-rate schedules and the trainer."""
import math

from mxnet import gluon


def learning_rate(optimisation, steps_per_epoch):
    """The schedule of a recipe as a function of the training step, counted from 0.

    Parameters
    ----------
    optimisation : training.recipe.Optimisation
    steps_per_epoch : int

    Returns
    -------
    callable
        step -> learning rate. Step decay: lr * decay_factor ** (decay epochs passed). Cosine:
        lr / 2 * (1 + cos(pi * t)) with t running from 0 to 1 after the warm-up (He et al.,
        arXiv 1812.01187, section 5.1; linear warm-up in section 3.1).
    """
    o = optimisation
    total = o.epochs * steps_per_epoch
    warmup = 0 if o.warmup == 'none' else round(o.warmup_epochs * steps_per_epoch)
    decays = [round(epoch * steps_per_epoch) for epoch in o.decay_epochs]

    def rate(step):
        if step < warmup:
            return o.warmup_lr if o.warmup == 'constant' else o.lr * (step + 1) / warmup
        if o.schedule == 'cosine':
            return o.lr / 2 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
        return o.lr * o.decay_factor ** sum(step >= decay for decay in decays)
    return rate


def build_trainer(parameters, optimisation):
    """A gluon Trainer for the recipe's optimizer; every device updates its own copy.

    Parameters
    ----------
    parameters : iterable of Parameter
        In an order that does not change from run to run: checkpoints number them by it.
    optimisation : training.recipe.Optimisation
        The learning rate is left out: the loop sets it before each step.
    """
    settings = {'wd': optimisation.wd}
    if optimisation.optimizer != 'adam':
        settings['momentum'] = optimisation.momentum
    return gluon.Trainer([p for p in parameters if p.grad_req != 'null'],
                         optimisation.optimizer, settings, update_on_kvstore=False)
