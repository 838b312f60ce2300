"""Gradients to weights: the trainers of a recipe, on one process or on several workers."""

from collections.abc import Iterable
from typing import Any, Optional

import mxnet as mx
from mxnet import gluon

from training.config.schema import Optimisation
from training.machine.cluster import Workers
from training.optim import muon  # noqa: F401 registers its optimizers with mxnet by their names
from training.optim.overflow import OverflowGuard


def build_trainer(
    parameters: Iterable[gluon.Parameter], optimisation: Optimisation, workers: Workers = Workers()
) -> gluon.Trainer:
    """The trainer of a recipe's optimizer.

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
    return make_trainer(parameters, name, settings, workers)


def make_trainer(
    parameters: Iterable[gluon.Parameter],
    optimizer: str,
    settings: dict[str, Any],
    workers: Workers = Workers(),
) -> gluon.Trainer:
    """A gluon.Trainer for the workers of a run.

    Parameters
    ----------
    parameters : iterable of Parameter
        In an order that does not change from run to run: checkpoints number them by it.
    optimizer : str
    settings : dict
        The optimizer's keywords.
    workers : training.machine.cluster.Workers
    """
    if workers.asynchronous:
        return AsynchronousTrainer(parameters, optimizer, settings, workers)
    if workers.distributed:
        return SynchronousTrainer(parameters, optimizer, settings, workers)
    return gluon.Trainer(parameters, optimizer, settings, update_on_kvstore=False, kvstore=workers.kvstore)


def take_step(
    trainers: list[gluon.Trainer], batch_size: float, guard: Optional[OverflowGuard] = None
) -> None:
    """One update by all trainers; `batch_size` is that of all workers together."""
    for trainer in trainers:
        trainer.allreduce_grads()
    if guard is not None:
        guard.zero_overflows()
    for trainer in trainers:
        trainer.update(batch_size)


class SynchronousTrainer(gluon.Trainer):
    """Adds up the gradients of all workers; each has its own copy of the optimizer."""

    def __init__(
        self,
        parameters: Iterable[gluon.Parameter],
        optimizer: str,
        settings: dict[str, Any],
        workers: Workers,
    ) -> None:
        super().__init__(parameters, optimizer, settings, update_on_kvstore=False, kvstore=None)
        self._workers = workers
        self._buckets: Optional[list] = None

    def _allreduce_grads(self) -> None:
        if self._buckets is None:  # in the first step, when --resume has loaded the weights
            self._workers.start_from_rank_zero(self._params)
            self._buckets = self._workers.buckets(self._params)
        self._workers.add_up(self._buckets)


class AsynchronousTrainer(gluon.Trainer):
    """Has the servers update the weights, with each worker's gradients as one step of its own."""

    def __init__(
        self,
        parameters: Iterable[gluon.Parameter],
        optimizer: str,
        settings: dict[str, Any],
        workers: Workers,
    ) -> None:
        super().__init__(parameters, optimizer, settings, update_on_kvstore=False)
        self._workers = workers
        self._first_key: Optional[int] = None
        self._servers_lr: Optional[float] = None
        self._name_and_settings = optimizer, settings

    def _update(self, ignore_stale_grad: bool = False) -> None:
        if self._first_key is None:
            self._first_key = self._workers.start_from_rank_zero(self._params)
            keys = range(self._first_key, self._first_key + len(self._params))
            name, settings = self._name_and_settings
            self._workers.tell_servers(
                name=name,
                settings={**settings, 'learning_rate': self.learning_rate},
                rescale_grad=self._workers.size * self._optimizer.rescale_grad,
                lr_mult={key: p.lr_mult for key, p in zip(keys, self._params)},
                wd_mult={key: p.wd_mult for key, p in zip(keys, self._params)},
            )
        elif self._servers_lr != self.learning_rate:
            self._workers.tell_servers(lr=self.learning_rate)
        self._servers_lr = self.learning_rate
        self._workers.update_on_servers(self._first_key, self._params)


def server_optimizer(
    name: str,
    settings: dict[str, Any],
    rescale_grad: float,
    lr_mult: dict[str, float],
    wd_mult: dict[str, float],
) -> mx.optimizer.Optimizer:
    """The optimizer that an `AsynchronousTrainer` tells the servers to use; see there."""
    optimizer = mx.optimizer.create(name, rescale_grad=rescale_grad, **settings)
    optimizer.set_lr_mult({int(key): value for key, value in lr_mult.items()})
    optimizer.set_wd_mult({int(key): value for key, value in wd_mult.items()})
    return optimizer
