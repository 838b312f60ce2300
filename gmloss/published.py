"""Covariances as other implementations published them: for reproduction, not for new work."""

from typing import Any

from mxnet import init, nd
from mxnet.context import Context
from mxnet.ndarray import NDArray

from .distance import distances_with_own, half_squared_distance
from .mixture import GaussianMixture

STABILISER = 1e-8  # both add it to every variance before they divide


class RawVarianceMixture(GaussianMixture):
    """What both share: the trained parameters are the variances themselves."""

    _has_volume = True

    def __init__(
        self,
        num_classes: int,
        feature_size: int,
        variance_init: float,
        variance_lr_mult: float,
        variance_wd_mult: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, feature_size, **kwargs)
        with self.name_scope():
            self.variance = self.params.get(
                'variance',
                shape=(num_classes, feature_size),
                allow_deferred_init=True,
                init=init.Constant(float(variance_init)),
                lr_mult=variance_lr_mult,
                wd_mult=variance_wd_mult,
            )


class RawDiagonalMixture(RawVarianceMixture):
    r"""A diagonal covariance whose trained parameters are the variances themselves.

    .. math::
        q_k = \frac{1}{2} \sum_d \frac{(x_d - \mu_{kd})^2}{s_{kd} + 10^{-8}}, \qquad
        \log|\Lambda_k| = \sum_d \log s_{kd}

    A step of the optimizer can make a variance zero or negative, and the loss NaN: that is the
    published behaviour. Source: L-GM-Loss-For-Gluon, and gluon_GMLoss v1 and v3, computed in log
    space; use :class:`DiagonalMixture` or :class:`FixedVolumeMixture` otherwise.

    Parameters
    ----------
    num_classes, feature_size, mean_initializer, mean_lr_mult, mean_wd_mult, priors
        As in :class:`GaussianMixture`.
    variance_init : float, default 1
        Initial value of every variance.
    variance_lr_mult, variance_wd_mult : float, default 1
        Multipliers for the variances.
    euclidean : bool, default False
        Also give half the squared Euclidean distances, for the likelihood term of v3.

    Inputs:
        As in :class:`GaussianMixture`.

    Outputs:
        - **distance**: :math:`q_k`, shape (B, C).
        - **log_det**: shape (C,).
        - **euclidean**: half the squared Euclidean distance, shape (B, C), if asked for; pass it on
          to :class:`gmloss.LGMLoss`.
    """

    def __init__(
        self,
        num_classes: int,
        feature_size: int = 0,
        variance_init: float = 1.0,
        variance_lr_mult: float = 1.0,
        variance_wd_mult: float = 1.0,
        euclidean: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_classes, feature_size, variance_init, variance_lr_mult, variance_wd_mult, **kwargs
        )
        self._euclidean = euclidean

    def _variances_on(self, ctx: Context) -> NDArray:
        return self.variance.data(ctx)

    def _covariance(self, F: Any, class_ones: Any, variance: Any) -> Any:  # type: ignore[override]
        return F.log(variance), F.reciprocal(variance + STABILISER)

    def _measure(self, F: Any, x: Any, index: Any, mean: Any, variance: Any) -> Any:  # type: ignore[override]
        outputs = super()._measure(F, x, index, mean, variance=variance)
        if not self._euclidean:
            return outputs
        if index is None:
            return (*outputs, half_squared_distance(F, x, mean, self.num_classes))
        distance, log_det, _, own = outputs
        return distance, log_det, distances_with_own(F, x, mean, self.num_classes, None, False, index)[1], own


class InverseSumMixture(RawVarianceMixture):
    r"""The form of the published gluon_GMLoss v6: squared distance times summed inverse variances.

    .. math:: q_k = \frac{1}{2} \|x - \mu_k\|^2 \sum_d \frac{1}{s_{kd} + 10^{-8}}

    This is no Mahalanobis distance: with all variances 1 it is D times the Euclidean one. It is
    kept to reproduce the published runs; use :class:`DiagonalMixture` otherwise. The variance is
    the raw parameter, as published, and may become negative under a large learning rate.

    Parameters
    ----------
    num_classes, feature_size, mean_initializer, mean_lr_mult, mean_wd_mult, priors
        As in :class:`GaussianMixture`.
    variance_init : float, default 1
        Initial value of every variance.
    variance_lr_mult, variance_wd_mult : float, defaults 0.01 and 1
        Multipliers for the variances, as published.

    Inputs:
        As in :class:`GaussianMixture`.

    Outputs:
        - **distance**: :math:`q_k`, shape (B, C).
        - **log_det**: zeros, shape (C,); v6 has no log-determinant.
        - **euclidean**: half the squared Euclidean distance, shape (B, C), which v6 uses in its
          likelihood term; pass it on to :class:`gmloss.LGMLoss`.
    """

    def __init__(
        self,
        num_classes: int,
        feature_size: int = 0,
        variance_init: float = 1.0,
        variance_lr_mult: float = 0.01,
        variance_wd_mult: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_classes, feature_size, variance_init, variance_lr_mult, variance_wd_mult, **kwargs
        )

    def _variances_on(self, ctx: Context) -> NDArray:
        """The one variance per class that :math:`q_k` amounts to, in every dimension."""
        precision = (1 / (self.variance.data(ctx) + STABILISER)).sum(axis=1, keepdims=True)
        return nd.broadcast_like(1 / precision, self.variance.data(ctx))

    def _measure(self, F: Any, x: Any, index: Any, mean: Any, variance: Any) -> Any:  # type: ignore[override]
        precision = F.sum(F.reciprocal(variance + STABILISER), axis=1)
        log_det = F.zeros_like(precision)
        if index is None:
            euclidean = half_squared_distance(F, x, mean, self.num_classes)
            return F.broadcast_mul(euclidean, F.expand_dims(precision, axis=0)), log_det, euclidean
        euclidean, own = distances_with_own(F, x, mean, self.num_classes, None, False, index)
        distance = F.broadcast_mul(euclidean, F.expand_dims(precision, axis=0))
        return distance, log_det, own, F.elemwise_mul(own, F.take(precision, index))
