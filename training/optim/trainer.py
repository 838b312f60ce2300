"""The Muon optimizer and the trainer."""

import mxnet as mx
import numpy as np
from mxnet import gluon, nd

from training.machine.cluster import Workers
from training.optim import muon  # noqa: F401 registers it with mxnet by its name


class Trainer(gluon.Trainer):
    """A gluon Trainer for the workers of a run, each with its own copy of the optimizer.

    Asynchronous workers have the servers update the weights instead, with each worker's gradients
    as one step of its own.

    Parameters
    ----------
    parameters : list of Parameter
        In an order that does not change from run to run: checkpoints number them by it.
    optimizer : str
    settings : dict
        The optimizer's keywords.
    workers : training.machine.cluster.Workers
    """

    def __init__(self, parameters, optimizer, settings, workers=Workers()):
        super().__init__(
            parameters,
            optimizer,
            settings,
            update_on_kvstore=False,
            kvstore=None if workers.distributed else workers.kvstore,
        )
        self._workers, self._first_key, self._buckets, self._told_lr = workers, None, None, None
        self._optimizer_name, self._settings = optimizer, settings
        self._zeroed = None

    def zero_overflows(self):
        """From now on, take the gradients of a step in which one is infinite or NaN for zero.

        As float16 needs it: one such step would end in weights that are NaN for good. No host read.
        """
        self._zeroed = [nd.zeros((1,), ctx=context) for context in self._contexts]

    def steps_zeroed(self):
        """How many steps that was since the last call."""
        counts = [int(count.asscalar()) for count in self._zeroed or ()]
        for count in self._zeroed or ():
            count[:] = 0
        return max(counts, default=0)

    def _zero_unless_finite(self):
        """As one array: one operator for each gradient would take longer to start than to run."""
        for device, count in enumerate(self._zeroed or ()):
            flat = [
                parameter.list_grad()[device].reshape((-1,))
                for parameter in self._params
                if parameter.grad_req != 'null'
            ]
            joined = nd.concat(*flat, dim=0).reshape((1, -1))
            finite = nd.multi_all_finite(joined, num_arrays=1)
            count += 1 - finite
            joined = nd.where(finite, joined, nd.zeros_like(joined)).reshape((-1,))
            ends = np.cumsum([0] + [gradient.size for gradient in flat])
            nd._internal._split_v2(
                joined, indices=tuple(ends[:-1].tolist()), axis=0, squeeze_axis=False, sections=0, out=flat
            )

    def _allreduce_grads(self):
        if self._workers.distributed:
            self._workers.add_up(self._buckets)
        else:
            super()._allreduce_grads()
        self._zero_unless_finite()

    def step(self, batch_size):
        """One update; `batch_size` is that of all workers together."""
        if self._workers.distributed and self._first_key is None:  # not before --resume has loaded
            self._first_key = self._workers.start_from_chief(self._params)
            if not self._workers.asynchronous:
                self._buckets = self._workers.buckets(self._params)
        if not self._workers.asynchronous:
            super().step(batch_size)
            return
        if self._told_lr is None:
            keys = range(self._first_key, self._first_key + len(self._params))
            self._workers.tell_servers(
                name=self._optimizer_name,
                settings={**self._settings, 'learning_rate': self.learning_rate},
                rescale_grad=self._workers.size / batch_size,
                lr_mult={key: p.lr_mult for key, p in zip(keys, self._params)},
                wd_mult={key: p.wd_mult for key, p in zip(keys, self._params)},
            )
        elif self._told_lr != self.learning_rate:
            self._workers.tell_servers(lr=self.learning_rate)
        self._told_lr = self.learning_rate
        self._zero_unless_finite()
        self._workers.update_on_servers(self._first_key, self._params)

    def catch_up(self):
        """Have asynchronous workers, once all have ended their steps, hold the same weights."""
        if self._workers.asynchronous and self._first_key is not None:
            self._workers.fetch(self._first_key, self._params)


def server_optimizer(name, settings, rescale_grad, lr_mult, wd_mult):
    """The optimizer that a server is told to use by `Trainer.step`; see there."""
    optimizer = mx.optimizer.create(name, rescale_grad=rescale_grad, **settings)
    optimizer.set_lr_mult({int(key): value for key, value in lr_mult.items()})
    optimizer.set_wd_mult({int(key): value for key, value in wd_mult.items()})
    return optimizer


def build_trainer(parameters, optimisation, workers=Workers()):
    """A Trainer for the recipe's optimizer.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those without a gradient are left out.
    optimisation : training.config.schema.Optimisation
        The learning rate is left out: the loop sets it before each step.
    workers : training.machine.cluster.Workers
    """
    parameters = [p for p in parameters if p.grad_req != 'null']
    if not optimisation.decay_bias_and_norm:  # He et al., arXiv 1812.01187, section 3.1
        for parameter in parameters:
            if parameter.name.endswith(('bias', 'gamma', 'beta')):
                parameter.wd_mult = 0.0
    name = {'nag': 'nesterov'}.get(optimisation.optimizer, optimisation.optimizer)
    settings = {'wd': optimisation.wd}
    if optimisation.optimizer != 'adam':
        settings['momentum'] = optimisation.momentum
    if optimisation.optimizer == 'muon':
        settings['matrix_lr_ratio'] = optimisation.matrix_lr / optimisation.lr
    return Trainer(parameters, name, settings, workers)
