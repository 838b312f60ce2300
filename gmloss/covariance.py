"""Mixtures whose covariances are trained."""

import math
from typing import Any, Union

import numpy as np
from mxnet import init, nd
from mxnet.context import Context
from mxnet.ndarray import NDArray

from .mixture import GaussianMixture


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

    def _covariance(self, F: Any, class_ones: Any, rho: Any) -> Any:  # type: ignore[override]
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

    def _of_rho(self, F: Any, rho: Any) -> Any:
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

    def _of_rho(self, F: Any, rho: Any) -> Any:
        log_variance = F.broadcast_sub(rho, F.mean(rho, axis=(0, 1), keepdims=True))
        return log_variance, F.exp(-log_variance)


def softplus(F: Any, x: Any, dtype: str = 'float32') -> Any:
    """log(1 + exp(x)), never negative, for any finite x; in float32 to 2e-6 of itself or 2e-13.

    MXNet's softrelu in float32 is off by 6e-8 |x| where x is negative, below 0 too, but fast. There
    y = sigmoid(x) y / (1 - exp(-y)) with the fraction to second order corrects it.
    """
    if dtype == 'float64':
        return F.maximum(F.log1p(F.exp(F.minimum(x, 40))), x)
    fast = F.Activation(x, act_type='softrelu')
    # Stopped here, too: an Activation passes on gradients of zero, at full cost.
    r = F.Activation(F.stop_gradient(x), act_type='sigmoid')
    fraction = F.elemwise_mul(fast, fast / 12 + 0.5) + 1
    correction = F.elemwise_mul(x < -2, F.elemwise_mul(r, fraction) - fast)
    return fast + F.stop_gradient(correction)


def softplus_inverse(y: Union[float, np.ndarray]) -> Union[float, np.ndarray]:
    """The x, in float64, of which `softplus` gives y, above 0."""
    return y + np.log(-np.expm1(-np.asarray(y, np.float64)))
