"""Nesterov momentum that repeats to the last bit, and Muon on top of it."""

import math
from collections import defaultdict
from typing import Any

import mxnet as mx
from mxnet import nd
from mxnet.gluon import HybridBlock

NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315  # quintic whose iteration takes singular values near 1
NEWTON_SCHULZ_STEPS = 3


@mx.optimizer.register
class Nesterov(mx.optimizer.NAG):
    """MXNet's NAG with the weight decay of the old weights, so that runs repeat to the last bit.

    In place, its operator reads some weights before it writes them and some after; which ones depends
    on the layout that oneDNN happens to keep them in, and that on timing.
    """

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        self.update(index, weight, grad, state)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        if state is None:
            super().update(index, weight, grad, state)
            return
        self._update_count(index)
        nd.nag_mom_update(
            weight * 1,
            grad,
            state,
            out=weight,
            lr=self._get_lr(index),
            wd=self._get_wd(index),
            momentum=self.momentum,
            rescale_grad=self.rescale_grad,
        )


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

    def __init__(self, matrix_lr_ratio: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.matrix_lr_ratio = matrix_lr_ratio
        self.aggregate_num = 2**30  # hands `update` all parameters at once
        self._steps: dict[Any, Any] = {}

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        groups = defaultdict(list)
        for entry in zip(index, weight, grad, state):
            if entry[1].ndim == 4:
                groups[entry[1].shape].append(entry)
            else:
                super().update(*entry)
        for shape, entries in groups.items():
            self._update_kernels(shape, *zip(*entries))

    def _update_kernels(
        self, shape: tuple[int, ...], index: Any, weights: Any, grads: Any, momenta: Any
    ) -> None:
        for i in index:
            self._update_count(i)
        key = len(index), shape  # a static graph is for one shape
        if key not in self._steps:
            self._steps[key] = MuonStep(shape, self.momentum)
        weight, momentum, update = self._steps[key](
            nd.stack(*weights), nd.stack(*grads) * self.rescale_grad, nd.stack(*momenta)
        )
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

    def __init__(self, shape: tuple[int, ...], momentum: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._shape, self._momentum = shape, momentum
        self.hybridize(static_alloc=True, static_shape=True)

    def hybrid_forward(self, F: Any, weight: Any, grad: Any, momentum: Any) -> tuple[Any, Any, Any]:
        rows, columns = self._shape[0], math.prod(self._shape[1:])
        momentum = momentum * self._momentum + grad
        update = F.reshape(grad + momentum * self._momentum, (-1, rows, columns))
        update = F.reshape(orthogonalise(F, update, tall=rows > columns), (-1, *self._shape))
        norms = F.reshape(F.norm(F.reshape(weight, (0, -1)), axis=1), (-1, 1, 1, 1, 1))
        return F.broadcast_mul(weight, rows**0.5 / norms), momentum, update


def orthogonalise(F: Any, matrices: Any, tall: bool) -> Any:
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
