"""The large-margin Gaussian Mixture loss."""

import numpy as np
from mxnet import init
from mxnet.gluon.loss import Loss, _apply_weighting

from .margin import not_negative
from .mixture import label_free_logits

LIKELIHOODS = ('off', 'distance', 'full')


class LGMLoss(Loss):
    r"""Large-margin Gaussian Mixture (L-GM) loss.

    .. math::
        \text{logit}_k &= -q_k - \tfrac{1}{2} \log|\Lambda_k|
            - [k = y] \, (\alpha \, q_k + m) \\
        L_{cls} &= -\log \text{softmax}(\text{logit})_y \\
        L_{lkd} &= q_y + \tfrac{1}{2} \log|\Lambda_y| \\
        L &= L_{cls} + \lambda L_{lkd}

    The margin makes the true class look farther away than it is, so its samples must come closer
    to their mean than a plain classifier would ask. :math:`\alpha` multiplies the true class's
    distance; `margin_add` is the constant :math:`m` that the authors' Caffe layer can subtract
    from its logit besides, a margin independent of the distance (0 there by default).
    Source: Wan et al. (CVPR 2018), sections 3.2 and 3.3.

    With `sparse_label` off, labels are distributions :math:`t` over the classes, as label smoothing
    and mixup make them. Margin, cross entropy and likelihood are then shared out by them:

    .. math::
        \text{logit}_k &= -q_k - \tfrac{1}{2} \log|\Lambda_k| - t_k (\alpha \, q_k + m) \\
        L &= \textstyle\sum_k t_k \, [ -\log \text{softmax}(\text{logit})_k
            + \lambda \, (q_k + \tfrac{1}{2} \log|\Lambda_k|) ]

    The margin is a parameter, so that it can change without a new graph: call `initialize`, with
    the contexts of the net, before the first use.

    Parameters
    ----------
    alpha : float, default 0.1
        Initial multiplicative margin, at least 0; `set_margin` changes it.
    lambda_ : float, default 0.1
        Weight of the likelihood term, at least 0.
    likelihood : {'distance', 'full', 'off'}, default 'distance'
        'distance' uses :math:`q_y` alone, 'full' adds the log-determinant.
    margin_add : float, default 0
        Additive margin :math:`m`.
    sparse_label : bool, default True
        Whether labels are class indices, as in Gluon's SoftmaxCrossEntropyLoss.
    weight : float or None
        Scales the loss, as in every Gluon loss.

    Inputs:
        - **distance**: half squared distances, shape (B, C).
        - **log_det**: log-determinants, shape (C,).
        - **label**: class indices from 0 to C - 1 (not checked), shape (B,) or (B, 1), integer or
          float; with `sparse_label` off, distributions, shape (B, C), which get no gradient.
        - **sample_weight**: optional, shape (B,) or (B, 1), multiplies the losses, as in every
          Gluon loss.
        - **likelihood_distance**: optional (B, C), taken in the likelihood term in place of
          `distance`; the third output of published forms in which the two differ, as in
          ``loss_fn(distance, log_det, label, None, euclidean)``.

    Outputs:
        - **loss**: shape (B,).
    """

    def __init__(
        self,
        alpha=0.1,
        lambda_=0.1,
        likelihood='distance',
        margin_add=0.0,
        sparse_label=True,
        weight=None,
        **kwargs,
    ):
        super().__init__(weight, batch_axis=0, **kwargs)
        if likelihood not in LIKELIHOODS:
            raise ValueError(f'likelihood must be one of {LIKELIHOODS}, got {likelihood!r}')
        self._lambda = not_negative('lambda_', lambda_)
        self._likelihood = likelihood
        self._margin_add = float(margin_add)
        self._sparse_label = sparse_label
        self._compute_dtype = 'float32'
        with self.name_scope():
            self.margin = self.params.get(
                'margin',
                shape=(1,),
                grad_req='null',
                init=init.Constant(not_negative('alpha', alpha)),
                differentiable=False,
            )

    def set_margin(self, alpha):
        """Set the multiplicative margin, at least 0, on every context: no retrace, no host read."""
        not_negative('alpha', alpha)
        for margin in self.margin.list_data():  # set_data makes a Trainer begin its kvstore anew
            margin[:] = alpha

    def cast(self, dtype):
        """Cast to float32 or float64; for lower precisions the loss stays in float32."""
        self._compute_dtype = 'float64' if np.dtype(dtype) == np.float64 else 'float32'
        super().cast(self._compute_dtype)

    def hybrid_forward(
        self, F, distance, log_det, label, sample_weight=None, likelihood_distance=None, margin=None
    ):
        label = F.cast(label, self._compute_dtype)
        if self._sparse_label:
            label = F.reshape(label, (-1,))
        target = F.stop_gradient(one_hot(F, label, distance) if self._sparse_label else label)
        log_posterior = F.log_softmax(margin_logits(F, distance, log_det, target, margin, self._margin_add))

        def of_label(values):
            return (
                F.pick(values, label) if self._sparse_label else F.sum(F.elemwise_mul(values, target), axis=1)
            )

        loss = -of_label(log_posterior)
        if self._likelihood != 'off':
            own = of_label(distance if likelihood_distance is None else likelihood_distance)
            if self._likelihood == 'full':
                own = own + F.dot(target, log_det) / 2
            loss = loss + self._lambda * own
        return weighted(F, loss, self._weight, sample_weight, self._compute_dtype)


def weighted(F, loss, weight, sample_weight, dtype):
    """A loss (B,) of `dtype` times a Gluon loss's weights: a number, and an array (B,) or (B, 1) of
    any type; either can be None.

    Gluon's own `_apply_weighting` would repeat a sample weight of size 1.
    """
    if sample_weight is not None:
        loss = F.elemwise_mul(loss, F.cast(F.reshape(sample_weight, (-1,)), dtype))
    return _apply_weighting(F, loss, weight)


def margin_logits(F, distance, log_det, target, margin, margin_add=0.0):
    """Logits (B, C) with the margin shared out by the target (B, C), which gets no gradient; from
    distance (B, C), log_det (C,) and the multiplicative margin (1,)."""
    stretch = F.stop_gradient(F.broadcast_mul(target, margin) + 1)
    logits = label_free_logits(F, F.elemwise_mul(distance, stretch), log_det)
    return logits - F.stop_gradient(target * margin_add) if margin_add else logits


def one_hot(F, label, like):
    """The one-hot form (B, C) of class indices (B,) of the same dtype as `like` (B, C)."""
    classes = F.contrib.arange_like(like, axis=1)
    return F.broadcast_equal(F.expand_dims(label, axis=1), F.expand_dims(classes, axis=0))
