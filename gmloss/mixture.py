"""Class-conditional Gaussian mixtures on a feature space, as Gluon blocks.

Every mixture maps features ``(B, D)`` to ``distance (B, C)`` and ``log_det (C,)``. Distances come
from matrix products, so no ``(B, C, D)`` array exists at any point.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Optional

import numpy as np
from mxnet import init, nd
from mxnet.context import Context
from mxnet.ndarray import NDArray

from .blocks import CheckedBlock
from .distance import distances_with_own, first_column_of_ones, half_squared_distance, row_sums
from .labels import class_index, rows_of


class GaussianMixture(CheckedBlock):
    r"""Gaussian mixture with one component per class and identity covariance.

    .. math:: q_k = \frac{1}{2} \sum_d (x_d - \mu_{kd})^2, \qquad \log|\Lambda_k| = 0

    Source: Wan et al., "Rethinking Feature Distribution for Loss Functions in Image
    Classification" (CVPR 2018), sections 3.1 and 3.2, with the covariance fixed as in the
    authors' TensorFlow demonstration.

    Parameters
    ----------
    num_classes : int
        Number of classes C.
    feature_size : int, default 0
        Feature dimension D; 0 leaves it to the first features that come, as in Gluon.
    mean_initializer : str or Initializer, default Xavier()
        Initialises the class means ``mean`` of shape (C, D).
    mean_lr_mult, mean_wd_mult : float, default 1
        Multipliers of the trainer's learning rate and weight decay for the means.
    priors : sequence of C floats or None
        How frequent the classes are, as counts or shares, all above 0; None for equal ones. They are
        not trained.

    Inputs:
        - **x**: features, shape (B, D), any float type. They are cast to float32 first: low
          precision would lose the small differences between large squares.
        - **label**: optional class indices, shape (B,) or (B, 1).
        - **used**: optional beside a label, shape (B,): 0 where features, whatever they are, count as
          zeros and get no gradient. Without it, where they are no numbers or too large to be squared;
          the distances to their class are NaN then.

    Outputs:
        - **distance**: half the squared Mahalanobis distance to every class, shape (B, C), with a
          rounding error of about 1e-7 times the squared distance of features and means from the mean
          of the means, over the variance. Without a `label`, that to the likeliest class is free of it.
        - **log_det**: log-determinant of every class's covariance, less 2 log(C prior); shape (C,).
        - **likelihood_distance**, **own_distance**: with a `label`, the distance to its class, computed
          directly, for the likelihood term and for the logits of :class:`LGMLoss`; both (B,).
    """

    isotropic = False
    _has_volume = False

    def __init__(
        self,
        num_classes: int,
        feature_size: int = 0,
        mean_initializer: Any = None,
        mean_lr_mult: float = 1.0,
        mean_wd_mult: float = 1.0,
        priors: Optional[Sequence[float]] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_sizes(num_classes, feature_size)
        self.num_classes = num_classes
        self._compute_dtype = 'float32'
        with self.name_scope():
            self.mean = self.params.get(
                'mean',
                shape=(num_classes, feature_size),
                init=mean_initializer or init.Xavier(),
                lr_mult=mean_lr_mult,
                wd_mult=mean_wd_mult,
                allow_deferred_init=True,
            )
            if priors is not None:
                self.log_prior = self.params.get(
                    'log_prior',
                    shape=(num_classes,),
                    init=init.Constant(relative_log_prior(priors, num_classes)),
                    grad_req='null',
                    differentiable=False,
                )

    @property
    def has_log_det(self) -> bool:
        """Whether log-determinants can be anything but zeros."""
        return self._has_volume or hasattr(self, 'log_prior')

    @property
    def feature_size(self) -> int:
        """Feature dimension D; 0 as long as it is not known."""
        return self.mean.shape[1]

    def cast(self, dtype: Any) -> None:
        """Cast to float32 or float64; for lower precisions the parameters stay float32.

        Cast the outermost block where one around this has run hybridised.
        """
        self._compute_dtype = 'float64' if np.dtype(dtype) == np.float64 else 'float32'
        super().cast(self._compute_dtype)

    def expected_shapes(self, x: Any, label: Any = None, used: Any = None) -> Iterable[tuple]:
        yield 'features', x, [(None, self.feature_size or None)]
        yield 'label', label, [(x.shape[0],), (x.shape[0], 1)]
        yield 'used', used, [(x.shape[0],)]

    def __repr__(self) -> str:
        details = self._details() + ['priors'] * hasattr(self, 'log_prior')
        size = self.feature_size or None
        return f'{type(self).__name__}({", ".join([f"{size} -> {self.num_classes}", *details])})'

    def _details(self) -> list[str]:
        return []

    def means(self, ctx: Optional[Context] = None) -> NDArray:
        """Means of the classes, an NDArray (C, D) on `ctx`, or on the mixture's first context."""
        return self.mean.data(ctx or self.mean.list_ctx()[0])

    def variances(self, ctx: Optional[Context] = None) -> NDArray:
        """Variances along each feature dimension, an NDArray (C, D); `ctx` as in `means`."""
        return nd.broadcast_like(self._variances_on(ctx or self.mean.list_ctx()[0]), self.means(ctx))

    def priors(self, ctx: Optional[Context] = None) -> NDArray:
        """Prior probabilities of the classes, an NDArray (C,); `ctx` as in `means`."""
        if hasattr(self, 'log_prior'):
            return self.log_prior.data(ctx or self.mean.list_ctx()[0]).exp() / self.num_classes
        return nd.full((self.num_classes,), 1 / self.num_classes, ctx or self.mean.list_ctx()[0])

    def _variances_on(self, ctx: Context) -> NDArray:
        return nd.ones_like(self.mean.data(ctx))

    def hybrid_forward(
        self, F: Any, x: Any, label: Any = None, used: Any = None, log_prior: Any = None, **parameters: Any
    ) -> Any:
        x = F.cast(x, self._compute_dtype)
        for name in [name for name in parameters if 0 in self._reg_params[name].shape]:
            # Gluon infers shapes by those of an operator's other inputs: a sum with zeros settles this one.
            ones = F.ones((self._reg_params[name].shape[0], 1), dtype=self._compute_dtype)
            zeros = F.dot(ones, F.zeros_like(F.slice_axis(x, axis=0, begin=0, end=1)))
            parameters[name] = F.elemwise_add(parameters[name], zeros)
        index = unfit = None
        if label is not None:
            index = class_index(F, label, self.num_classes - 1)[1]
            if used is None:
                unfit = F.stop_gradient(F.reshape(row_sums(F, F.square(x)), (-1,))) * 0  # else NaN
                used = unfit == 0
            x = rows_of(F, used, x)
        distance, log_det, *rest = self._measure(F, x, index, **parameters)
        if unfit is not None:
            rest = [F.elemwise_add(own, unfit) for own in rest]
        if log_prior is not None:
            log_det = F.elemwise_sub(log_det, 2 * log_prior)
        return (distance, log_det, *rest)

    def _measure(self, F: Any, x: Any, index: Any, mean: Any, **covariance: Any) -> Any:
        """What the mixture gives, without its priors."""
        class_ones = first_column_of_ones(F, mean)
        log_variance, precision = self._covariance(F, class_ones, **covariance)
        if log_variance is None:
            log_det = F.reshape(F.zeros_like(class_ones), (-1,))
        elif self.isotropic:
            size = row_sums(F, F.ones_like(F.slice_axis(mean, axis=0, begin=0, end=1)))
            log_det = F.reshape(F.broadcast_mul(log_variance, size), (-1,))
        else:
            log_det = F.reshape(row_sums(F, log_variance), (-1,))
        if index is None:
            volume = None if log_variance is None else log_det
            distance = half_squared_distance(F, x, mean, self.num_classes, precision, self.isotropic, volume)
            return distance, log_det
        distance, own = distances_with_own(F, x, mean, self.num_classes, precision, self.isotropic, index)
        return distance, log_det, own, own

    def _covariance(self, F: Any, class_ones: Any) -> Any:
        """Logarithms of the variances and their inverses, (C, D), or (C, 1) where isotropic."""
        return None, None


def relative_log_prior(priors: Sequence[float], num_classes: int) -> np.ndarray:
    """log(C prior), float32 (C,), of counts or shares; ValueError unless there are C above 0."""
    values = np.asarray(priors, np.float64)
    if values.shape != (num_classes,) or not (values > 0).all() or not np.isfinite(values).all():
        raise ValueError(f'priors must be {num_classes} finite numbers above 0, got {priors}')
    return np.log(values / values.mean()).astype(np.float32)


def check_sizes(num_classes: int, feature_size: int) -> None:
    """ValueError unless there is a class, and a feature or 0 for a size that is not known yet."""
    if num_classes < 1 or feature_size < 0:
        raise ValueError(
            'num_classes must be at least 1, and feature_size at least 1 or 0 for the size of the '
            f'first features, got {num_classes} and {feature_size}'
        )
