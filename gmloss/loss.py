"""The large-margin Gaussian Mixture loss."""

from collections.abc import Iterable, Sequence
from typing import Any, Optional

import numpy as np
from mxnet import init
from mxnet.gluon.loss import Loss, _apply_weighting

from .blocks import CheckedBlock
from .distance import label_free_logits
from .labels import class_index, exact, is_trained, refused, rows_of
from .logits import columns, margin_logits, replaced
from .margin import not_negative
from .mixture import GaussianMixture

LIKELIHOODS = ('off', 'distance', 'full')


class LGMLoss(CheckedBlock, Loss):
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
    ignore_label : int or None
        Samples of this label have loss 0 and send no gradient, whatever their features are. It needs
        `sparse_label`.
    class_weight : sequence of C floats or None
        Factors, at least 0, for the losses of the samples of each class, as for rare classes.

    Inputs:
        - **distance**: half squared distances, shape (B, C).
        - **log_det**: log-determinants, shape (C,).
        - **label**: class indices from 0 to C - 1, shape (B,) or (B, 1), integer or float; the loss of
          any other is NaN (`check_labels` finds it). With `sparse_label` off, distributions, shape
          (B, C), which get no gradient.
        - **sample_weight**: optional, shape (B,) or (B, 1), multiplies the losses, as in every
          Gluon loss; a sample with weight 0 has no part in the gradient, whatever its features are.
        - **likelihood_distance**, **own_distance**: optional, what a mixture gives besides; shape (B,)
          if it was given the label, so that it computed the distance to its class directly, or the
          first alone, (B, C), where published forms take another distance in the likelihood term.

    Outputs:
        - **loss**: shape (B,).

    :class:`GaussianMixtureLoss` is mixture and loss in one block.
    """

    def __init__(
        self,
        alpha: float = 0.1,
        lambda_: float = 0.1,
        likelihood: str = 'distance',
        margin_add: float = 0.0,
        sparse_label: bool = True,
        weight: Optional[float] = None,
        ignore_label: Optional[int] = None,
        class_weight: Optional[Sequence[float]] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(weight, batch_axis=0, **kwargs)
        if likelihood not in LIKELIHOODS:
            raise ValueError(f'likelihood must be one of {LIKELIHOODS}, got {likelihood!r}')
        self._lambda = not_negative('lambda_', lambda_)
        self._likelihood = likelihood
        self._margin_add = not_negative('margin_add', margin_add)
        self._alpha = not_negative('alpha', alpha)
        self._sparse_label = sparse_label
        self._compute_dtype = 'float32'
        if ignore_label is not None and not sparse_label:
            raise ValueError(
                'ignore_label needs class indices as labels; use weights of 0 with distributions'
            )
        self._ignore_label = ignore_label
        self._num_classes: Optional[int] = None  # that of the distances
        with self.name_scope():
            self.margin = self.params.get(
                'margin',
                shape=(1,),
                grad_req='null',
                init=init.Constant(self._alpha),
                differentiable=False,
            )
            if class_weight is not None:
                weights = np.asarray([not_negative('class_weight', value) for value in class_weight])
                self.class_weight = self.params.get(
                    'class_weight',
                    shape=weights.shape,
                    grad_req='null',
                    init=init.Constant(weights),
                    differentiable=False,
                )

    def expected_shapes(
        self,
        distance: Any,
        log_det: Any,
        label: Any,
        sample_weight: Any = None,
        likelihood_distance: Any = None,
        own_distance: Any = None,
    ) -> Iterable[tuple]:
        samples, classes = (*distance.shape, None)[:2]
        yield 'distance', distance, [(None, None)]
        yield 'log_det', log_det, [(classes,)]
        yield from self._sample_shapes(samples, classes, label, sample_weight)
        whole = [(samples, classes)] if own_distance is None else [(samples,)]
        yield 'likelihood_distance', likelihood_distance, whole
        yield 'own_distance', own_distance, [(samples,)]

    def _sample_shapes(self, samples: Any, classes: Any, label: Any, sample_weight: Any) -> Iterable[tuple]:
        one_each = [(samples,), (samples, 1)]
        yield 'label', label, one_each if self._sparse_label else [(samples, classes)]
        yield 'sample_weight', sample_weight, one_each

    def __repr__(self) -> str:
        settings = {
            'alpha': float(self.margin.data(self.margin.list_ctx()[0]).asscalar())
            if self.margin._data
            else self._alpha,
            'lambda_': self._lambda,
            'likelihood': self._likelihood,
            'margin_add': self._margin_add or None,
            'sparse_label': None if self._sparse_label else False,
            'ignore_label': self._ignore_label,
            'class_weight': '...' if hasattr(self, 'class_weight') else None,
            'weight': self._weight,
        }
        words = [f'{name}={value}' for name, value in settings.items() if value is not None]
        return f'{type(self).__name__}({", ".join(words)})'

    def set_margin(self, alpha: float) -> None:
        """Set the multiplicative margin, at least 0, on every context: no retrace, no host read."""
        not_negative('alpha', alpha)
        for margin in self.margin.list_data():  # set_data makes a Trainer begin its kvstore anew
            margin[:] = alpha

    def cast(self, dtype: Any) -> None:
        """Cast to float32 or float64; for lower precisions the loss stays in float32."""
        self._compute_dtype = 'float64' if np.dtype(dtype) == np.float64 else 'float32'
        super().cast(self._compute_dtype)

    def hybrid_forward(
        self,
        F: Any,
        distance: Any,
        log_det: Any,
        label: Any,
        sample_weight: Any = None,
        likelihood_distance: Any = None,
        own_distance: Any = None,
        margin: Any = None,
        class_weight: Any = None,
    ) -> Any:
        if self._sparse_label:
            trained = is_trained(F, label, self._ignore_label, sample_weight)
            classes = self._num_classes or columns(F, distance)
            possible, index = class_index(F, label, classes - 1)
            own = F.pick(distance, index) if own_distance is None else own_distance
            own_euclidean = own if likelihood_distance is None else likelihood_distance
            if own_distance is None and likelihood_distance is not None:
                own_euclidean = F.pick(likelihood_distance, index)
            own, own_euclidean = (rows_of(F, trained, values) for values in (own, own_euclidean))
            own_log_det = None if log_det is None else F.take(log_det, index) / 2
            logits = label_free_logits(F, rows_of(F, trained, distance), log_det)
            stretched = F.broadcast_mul(own, margin + 1)
            stretched = stretched if log_det is None else F.elemwise_add(stretched, own_log_det)
            stretched = stretched + self._margin_add if self._margin_add else stretched
            loss = -F.pick(F.log_softmax(replaced(F, logits, index, -stretched, classes)), index)
            class_weight = None if class_weight is None else F.take(class_weight, index)
        else:
            trained = is_trained(F, label, None, sample_weight)
            euclidean = distance if likelihood_distance is None else likelihood_distance
            distance, euclidean = (rows_of(F, trained, values) for values in (distance, euclidean))
            target = F.stop_gradient(F.cast(label, self._compute_dtype))
            logits = margin_logits(F, distance, log_det, target, margin, self._margin_add)
            loss, own_euclidean = (
                F.sum(F.elemwise_mul(values, target), axis=1)
                for values in (-F.log_softmax(logits), euclidean)
            )
            own_log_det = None if log_det is None else F.dot(target, log_det) / 2
            class_weight = None if class_weight is None else F.dot(target, class_weight)
        if self._likelihood != 'off':
            full = self._likelihood == 'full' and log_det is not None
            own = F.elemwise_add(own_euclidean, own_log_det) if full else own_euclidean
            loss = loss + self._lambda * own
        if class_weight is not None:
            loss = F.elemwise_mul(loss, F.stop_gradient(class_weight))
        loss = rows_of(F, trained, weighted(F, loss, self._weight, sample_weight, self._compute_dtype))
        if not self._sparse_label:
            return loss
        if self._ignore_label is not None:
            possible = F.broadcast_maximum(possible, exact(F, label) == self._ignore_label)
        return refused(F, loss, possible)


class GaussianMixtureLoss(LGMLoss):
    """The L-GM loss of features, a mixture and :class:`LGMLoss` in one block.

    It takes the place of a dense layer and of Gluon's SoftmaxCrossEntropyLoss. Its parameters are
    trained with those of the net; ``MixtureClassifier(net, loss_fn.mixture)`` shares them.

    Parameters
    ----------
    mixture : GaussianMixture
        Any mixture of this package.
    alpha, lambda_, and by name likelihood, margin_add, sparse_label, weight, ignore_label, class_weight
        As in :class:`LGMLoss`.

    Inputs:
        - **features**: shape (B, D), any float type.
        - **label**, **sample_weight**: as in :class:`LGMLoss`.

    Outputs:
        - **loss**: shape (B,).
    """

    def __init__(
        self, mixture: GaussianMixture, alpha: float = 0.1, lambda_: float = 0.1, **settings: Any
    ) -> None:
        super().__init__(alpha, lambda_, **settings)
        self.mixture, self._num_classes = mixture, mixture.num_classes

    def expected_shapes(  # type: ignore[override]
        self, features: Any, label: Any, sample_weight: Any = None
    ) -> Iterable[tuple]:
        yield from self.mixture.expected_shapes(features)
        yield from self._sample_shapes(features.shape[0], self.mixture.num_classes, label, sample_weight)

    def __repr__(self) -> str:
        return super().__repr__().replace('(', f'({self.mixture}, ', 1)

    def hybrid_forward(  # type: ignore[override]
        self, F: Any, features: Any, label: Any, sample_weight: Any = None, **parameters: Any
    ) -> Any:
        inputs = [features]
        if self._sparse_label:
            used = is_trained(F, label, self._ignore_label, sample_weight)
            inputs += [label, class_index(F, label, self._num_classes - 1)[0] if used is None else used]
        distance, log_det, *rest = self.mixture(*inputs)
        log_det = log_det if self.mixture.has_log_det else None
        return super().hybrid_forward(
            F, distance, log_det, label, sample_weight, *(rest or [None]), **parameters
        )


def weighted(F: Any, loss: Any, weight: Any, sample_weight: Any, dtype: Any) -> Any:
    """A loss (B,) of `dtype` times a Gluon loss's weights: a number, and an array (B,) or (B, 1) of
    any type; either can be None.

    Gluon's own `_apply_weighting` would repeat a sample weight of size 1.
    """
    if sample_weight is not None:
        loss = F.elemwise_mul(loss, F.cast(F.reshape(sample_weight, (-1,)), dtype))
    return _apply_weighting(F, loss, weight)
