"""Class-conditional Gaussian mixtures on a feature space, as Gluon blocks.

Every mixture maps features ``(B, D)`` to ``distance (B, C)`` and ``log_det (C,)``. Distances come
from matrix products, so no ``(B, C, D)`` array exists at any point.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Optional, Union

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

    def hybrid_forward(self, F, x, label=None, used=None, log_prior=None, **parameters):
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

    def _measure(self, F, x, index, mean, **covariance):
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
            return half_squared_distance(
                F, x, mean, self.num_classes, precision, self.isotropic, log_det
            ), log_det
        distance, own = distances_with_own(F, x, mean, self.num_classes, precision, self.isotropic, index)
        return distance, log_det, own, own

    def _covariance(self, F, class_ones):
        """Logarithms of the variances and their inverses, (C, D), or (C, 1) where isotropic."""
        return None, None


class TrainedCovariance(GaussianMixture):
    r"""What mixtures share whose covariance is trained by a parameter :math:`\rho`.

    Parameters
    ----------
    isotropic : bool, default False
        One variance for all dimensions, as in the authors' Caffe layer.
    shared : bool, default False
        One covariance for all classes.
    """

    _has_volume = True

    def __init__(
        self,
        num_classes: int,
        feature_size: int = 0,
        isotropic: bool = False,
        shared: bool = False,
        variance_lr_mult: float = 1.0,
        variance_wd_mult: float = 0.0,
        rho_initializer: Any = 'zeros',
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, feature_size, **kwargs)
        self.isotropic, self.shared = isotropic, shared
        with self.name_scope():
            self.rho = self.params.get(
                'rho',
                shape=(1 if shared else num_classes, 1 if isotropic else feature_size),
                init=rho_initializer,
                lr_mult=variance_lr_mult,
                wd_mult=variance_wd_mult,
                allow_deferred_init=True,
            )

    def _details(self) -> list[str]:
        return ['isotropic'] * self.isotropic + ['shared'] * self.shared

    def _covariance(self, F, class_ones, rho):
        log_variance, precision = self._of_rho(F, rho)
        if self.shared:
            return F.dot(class_ones, log_variance), F.dot(class_ones, precision)
        return log_variance, precision

    def _variances_on(self, ctx: Context) -> NDArray:
        return 1 / self._of_rho(nd, self.rho.data(ctx))[1]


class DiagonalMixture(TrainedCovariance):
    r"""Gaussian mixture with a trained diagonal covariance per class.

    .. math::
        q_k = \frac{1}{2} \sum_d \frac{(x_d - \mu_{kd})^2}{s_{kd}}, \qquad
        \log|\Lambda_k| = \sum_d \log s_{kd}, \qquad
        s_{kd} = \text{floor} + \text{softplus}(\rho_{kd})

    The trained parameter is :math:`\rho`, so no optimizer step can make a variance zero or
    negative. Source: Wan et al. (CVPR 2018), section 3.2; the floor is the one that the authors'
    Caffe layer adds before it divides. Under the full likelihood take `FixedVolumeMixture`.

    Parameters
    ----------
    num_classes, feature_size, mean_initializer, mean_lr_mult, mean_wd_mult, priors
        As in :class:`GaussianMixture`.
    isotropic : bool, default False
        One variance for all dimensions, :math:`s_k`, as in the authors' Caffe layer.
    shared : bool, default False
        One covariance for all classes.
    variance_init : float, default 1
        Initial value of every variance; must exceed `variance_floor`.
    variance_floor : float, default 1e-4
        Smallest variance that can be represented.
    variance_lr_mult, variance_wd_mult : float, defaults 1 and 0
        Multipliers for :math:`\rho`. Decay of :math:`\rho` pulls the variance to
        floor + log 2, which has no statistical meaning, hence the 0.

    Inputs and outputs:
        As in :class:`GaussianMixture`.
    """

    def __init__(
        self,
        num_classes: int,
        feature_size: int = 0,
        variance_init: float = 1.0,
        variance_floor: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        if not 0 < variance_floor < variance_init < math.inf:
            raise ValueError(
                'variance_floor must lie between 0 and variance_init, got '
                f'{variance_floor} and {variance_init}'
            )
        self._floor = float(variance_floor)
        start = float(softplus_inverse(variance_init - variance_floor))
        super().__init__(num_classes, feature_size, rho_initializer=init.Constant(start), **kwargs)

    def _details(self) -> list[str]:
        return [*super()._details(), f'variance_floor={self._floor:g}']

    def _of_rho(self, F, rho):
        variance = softplus(F, rho, self._compute_dtype) + self._floor
        return F.log(variance), F.reciprocal(variance)


class FixedVolumeMixture(TrainedCovariance):
    r"""Gaussian mixture with trained diagonal covariances whose mean log-determinant is zero.

    .. math::
        \log s_{kd} = \rho_{kd} - \frac{1}{C D} \sum_{j, e} \rho_{je}, \qquad
        q_k = \frac{1}{2} \sum_d \frac{(x_d - \mu_{kd})^2}{s_{kd}}, \qquad
        \log|\Lambda_k| = \sum_d \log s_{kd}

    Scaling features, means and standard deviations by one factor changes no distance, so under
    the full likelihood a free covariance shrinks without end and takes the loss to minus infinity.
    Here that factor has one value: the geometric mean of all variances is 1. Shapes and relative
    sizes of the classes are free, the loss is bounded below by zero for balanced classes, and the
    variances need no learning rate of their own. Source: Wan et al. (CVPR 2018), section 3.2, for
    the loss; the constraint is this project's.

    Parameters
    ----------
    num_classes, feature_size, mean_initializer, mean_lr_mult, mean_wd_mult, priors
        As in :class:`GaussianMixture`.
    isotropic, shared : bool, default False
        As in :class:`DiagonalMixture`. Not both: a shared isotropic covariance of volume 1 is the
        identity, hence a :class:`GaussianMixture`.
    variance_lr_mult, variance_wd_mult : float, defaults 1 and 0
        Multipliers for :math:`\rho`. Decay pulls all variances towards 1.

    Inputs and outputs:
        As in :class:`GaussianMixture`.
    """

    def __init__(
        self,
        num_classes: int,
        feature_size: int = 0,
        isotropic: bool = False,
        shared: bool = False,
        **kwargs: Any,
    ) -> None:
        if isotropic and shared:
            raise ValueError(
                'a shared isotropic covariance of volume 1 is the identity: use GaussianMixture instead'
            )
        super().__init__(num_classes, feature_size, isotropic, shared, **kwargs)

    def _of_rho(self, F, rho):
        log_variance = F.broadcast_sub(rho, F.mean(rho, axis=(0, 1), keepdims=True))
        return log_variance, F.exp(-log_variance)


def softplus(F: Any, x: Any, dtype: str = 'float32') -> Any:
    """log(1 + exp(x)), never negative, for any finite x; in float32 to 2e-5 of itself or 3e-13.

    MXNet's softrelu in float32 is off by 6e-8 |x| where x is negative, below 0 too, but fast. There
    y = sigmoid(x) y / (1 - exp(-y)) with a linear approximation of the fraction puts it right.
    """
    if dtype == 'float64':
        return F.maximum(F.log1p(F.exp(F.minimum(x, 40))), x)
    fast = F.Activation(x, act_type='softrelu')
    # Stopped here, too: an Activation passes on gradients of zero, at full cost.
    r = F.Activation(F.stop_gradient(x), act_type='sigmoid')
    correction = F.elemwise_mul(x < -3.5, F.elemwise_mul(r, fast * 0.50206 + 1) - fast)
    return fast + F.stop_gradient(correction)


def softplus_inverse(y: Union[float, np.ndarray]) -> Union[float, np.ndarray]:
    """The x, in float64, of which `softplus` gives y, above 0."""
    return y + np.log(-np.expm1(-np.asarray(y, np.float64)))


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
