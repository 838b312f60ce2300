"""The Muon optimizer and the trainer."""
import math
from collections import defaultdict

import mxnet as mx
import numpy as np
from mxnet import gluon, nd
from mxnet.gluon import HybridBlock

from .cluster import Workers

NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315  # quintic whose iteration takes singular values near 1
NEWTON_SCHULZ_STEPS = 3


@mx.optimizer.register
class Nesterov(mx.optimizer.NAG):
    """MXNet's NAG with the weight decay of the old weights, so that runs repeat to the last bit.

    In place, its operator reads some weights before it writes them and some after; which ones hangs
    on the layout that oneDNN happens to keep them in, and that on timing.
    """

    def update_multi_precision(self, index, weight, grad, state):
        self.update(index, weight, grad, state)

    def update(self, index, weight, grad, state):
        if state is None:
            super().update(index, weight, grad, state)
            return
        self._update_count(index)
        nd.nag_mom_update(weight * 1, grad, state, out=weight, lr=self._get_lr(index),
                          wd=self._get_wd(index), momentum=self.momentum,
                          rescale_grad=self.rescale_grad)


@mx.optimizer.register
class Muon(Nesterov):
    """Nesterov momentum whose update of each convolution kernel is made orthogonal.

    A kernel W, seen as a matrix of (out, in * height * width), is kept at the Frobenius norm
    sqrt(out), which costs nothing where a BatchNorm follows, and moves by
    ``lr * matrix_lr_ratio`` times the nearest orthogonal matrix to its momentum. All directions
    then learn at one pace. All other parameters are updated as by NAG. Source: Jordan et al.,
    "Muon: an optimizer for hidden layers in neural networks" (2024), with the fixed norm of its
    CIFAR-10 record.

    Parameters
    ----------
    matrix_lr_ratio : float
        Step of the kernels, relative to their size, over the learning rate.
    momentum, learning_rate, wd
        As in NAG; kernels have no weight decay, since their norm is fixed.
    """

    def __init__(self, matrix_lr_ratio=1.0, **kwargs):
        super().__init__(**kwargs)
        self.matrix_lr_ratio = matrix_lr_ratio
        self.aggregate_num = 2 ** 30  # hands `update` all parameters at once
        self._steps = {}

    def update_multi_precision(self, index, weight, grad, state):
        groups = defaultdict(list)
        for entry in zip(index, weight, grad, state):
            if entry[1].ndim == 4:
                groups[entry[1].shape].append(entry)
            else:
                super().update(*entry)
        for shape, entries in groups.items():
            self._update_kernels(shape, *zip(*entries))

    def _update_kernels(self, shape, index, weights, grads, momenta):
        for i in index:
            self._update_count(i)
        key = len(index), shape  # a static graph is for one shape
        if key not in self._steps:
            self._steps[key] = MuonStep(shape, self.momentum)
        weight, momentum, update = self._steps[key](
            nd.stack(*weights), nd.stack(*grads) * self.rescale_grad, nd.stack(*momenta))
        weight = weight - self.learning_rate * self.matrix_lr_ratio * update
        for targets, values in ((momenta, momentum), (weights, weight)):
            nd.split(values, num_outputs=len(index), axis=0, squeeze_axis=True, out=list(targets))


class MuonStep(HybridBlock):
    """What Muon makes of K kernels of one shape, in one launch.

    On a GPU its many small operators would, one by one, take longer to start than to run.

    Parameters
    ----------
    shape : tuple
        Of a kernel: (out, in, height, width).
    momentum : float

    Inputs:
        - **weight**, **grad**, **momentum**: shape (K, out, in, height, width).

    Outputs:
        - **weight**: the same at the norm that it is kept at.
        - **momentum**: the new one.
        - **update**: the nearest orthogonal matrices to the new one, looking ahead as Nesterov.
    """

    def __init__(self, shape, momentum, **kwargs):
        super().__init__(**kwargs)
        self._shape, self._momentum = shape, momentum
        self.hybridize(static_alloc=True, static_shape=True)

    def hybrid_forward(self, F, weight, grad, momentum):
        rows, columns = self._shape[0], math.prod(self._shape[1:])
        momentum = momentum * self._momentum + grad
        update = F.reshape(grad + momentum * self._momentum, (-1, rows, columns))
        update = F.reshape(orthogonalise(F, update, tall=rows > columns), (-1, *self._shape))
        norms = F.reshape(F.norm(F.reshape(weight, (0, -1)), axis=1), (-1, 1, 1, 1, 1))
        return F.broadcast_mul(weight, rows ** 0.5 / norms), momentum, update


def orthogonalise(F, matrices, tall):
    """Nearest orthogonal matrices, roughly: singular values of about 0.7 to 1.2.

    That is where they are above some 2 % of the Frobenius norm; smaller ones grow 40-fold.

    Parameters
    ----------
    F : mxnet.nd or mxnet.sym
    matrices : NDArray or Symbol, shape (K, M, N)
    tall : bool
        Whether M is larger than N.

    Returns
    -------
    NDArray or Symbol, shape (K, M, N)
    """
    x = F.transpose(matrices, axes=(0, 2, 1)) if tall else matrices
    norms = F.reshape(F.norm(F.reshape(x, (0, -1)), axis=1), (-1, 1, 1))
    x = F.broadcast_div(x, norms + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = F.batch_dot(x, x, transpose_b=True)
        x = a * x + F.batch_dot(b * square + c * F.batch_dot(square, square), x)
    return F.transpose(x, axes=(0, 2, 1)) if tall else x


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
    workers : training.cluster.Workers
    """

    def __init__(self, parameters, optimizer, settings, workers=Workers()):
        super().__init__(parameters, optimizer, settings, update_on_kvstore=False,
                         kvstore=None if workers.distributed else workers.kvstore)
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
            flat = [parameter.list_grad()[device].reshape((-1,)) for parameter in self._params
                    if parameter.grad_req != 'null']
            joined = nd.concat(*flat, dim=0).reshape((1, -1))
            finite = nd.multi_all_finite(joined, num_arrays=1)
            count += 1 - finite
            joined = nd.where(finite, joined, nd.zeros_like(joined)).reshape((-1,))
            ends = np.cumsum([0] + [gradient.size for gradient in flat])
            nd._internal._split_v2(joined, indices=tuple(ends[:-1].tolist()), axis=0,
                                   squeeze_axis=False, sections=0, out=flat)

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
                wd_mult={key: p.wd_mult for key, p in zip(keys, self._params)})
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
    optimisation : training.fields.Optimisation
        The learning rate is left out: the loop sets it before each step.
    workers : training.cluster.Workers
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
