"""Class-conditional Gaussian mixtures on a feature space, as Gluon blocks.

Every mixture maps features ``(B, D)`` to ``distance (B, C)`` and ``log_det (C,)``. Distances come
from matrix products, so no ``(B, C, D)`` array exists at any point.
"""

import math

import numpy as np
from mxnet import init, nd
from mxnet.gluon import HybridBlock


class GaussianMixture(HybridBlock):
    r"""Gaussian mixture with one component per class and identity covariance.

    .. math:: q_k = \frac{1}{2} \sum_d (x_d - \mu_{kd})^2, \qquad \log|\Lambda_k| = 0

    Source: Wan et al., "Rethinking Feature Distribution for Loss Functions in Image
    Classification" (CVPR 2018), sections 3.1 and 3.2, with the covariance fixed as in the
    authors' TensorFlow demonstration.

    Parameters
    ----------
    num_classes : int
        Number of classes C.
    feature_size : int
        Feature dimension D.
    mean_initializer : str or Initializer, default Xavier()
        Initialises the class means ``mean`` of shape (C, D).
    mean_lr_mult, mean_wd_mult : float, default 1
        Multipliers of the trainer's learning rate and weight decay for the means.

    Inputs:
        - **x**: features, shape (B, D), any float type. They are cast to float32 first: low
          precision would lose the small differences between large squares.

    Outputs:
        - **distance**: half the squared Mahalanobis distance to every class, shape (B, C); rounding
          is relative to the square of how far features and means lie from the first mean.
        - **log_det**: log-determinant of every class's covariance, shape (C,).
    """

    def __init__(
        self, num_classes, feature_size, mean_initializer=None, mean_lr_mult=1.0, mean_wd_mult=1.0, **kwargs
    ):
        super().__init__(**kwargs)
        check_sizes(num_classes, feature_size)
        self.num_classes = num_classes
        self.feature_size = feature_size
        self._compute_dtype = 'float32'
        with self.name_scope():
            self.mean = self.params.get(
                'mean',
                shape=(num_classes, feature_size),
                init=mean_initializer or init.Xavier(),
                lr_mult=mean_lr_mult,
                wd_mult=mean_wd_mult,
            )

    def cast(self, dtype):
        """Cast to float32 or float64; for lower precisions the parameters stay float32.

        Cast the outermost block where one around this has run hybridised.
        """
        self._compute_dtype = 'float64' if np.dtype(dtype) == np.float64 else 'float32'
        super().cast(self._compute_dtype)

    def __repr__(self):
        return f'{type(self).__name__}({self.feature_size} -> {self.num_classes})'

    def variances(self, ctx=None):
        """Variances along each feature dimension, an NDArray of shape (C, D) on `ctx`.

        Without one, on the first context that the mixture is on.
        """
        return self._variances_on(ctx or self.mean.list_ctx()[0])

    def _variances_on(self, ctx):
        return nd.ones_like(self.mean.data(ctx))

    def hybrid_forward(self, F, x, mean):
        distance = half_squared_distance(F, F.cast(x, self._compute_dtype), mean)
        first_column = F.slice_axis(mean, axis=1, begin=0, end=1)
        return distance, F.reshape(F.zeros_like(first_column), (-1,))


class DiagonalMixture(GaussianMixture):
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
    num_classes, feature_size, mean_initializer, mean_lr_mult, mean_wd_mult
        As in :class:`GaussianMixture`.
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
        num_classes,
        feature_size,
        variance_init=1.0,
        variance_floor=1e-4,
        variance_lr_mult=1.0,
        variance_wd_mult=0.0,
        **kwargs,
    ):
        super().__init__(num_classes, feature_size, **kwargs)
        if not 0 < variance_floor < variance_init:
            raise ValueError(
                'variance_floor must lie between 0 and variance_init, got '
                f'{variance_floor} and {variance_init}'
            )
        self._floor = variance_floor
        above_floor = variance_init - variance_floor
        softplus_inverse = above_floor + math.log(-math.expm1(-above_floor))
        with self.name_scope():
            self.rho = self.params.get(
                'rho',
                shape=(num_classes, feature_size),
                init=init.Constant(softplus_inverse),
                lr_mult=variance_lr_mult,
                wd_mult=variance_wd_mult,
            )

    def _variances_on(self, ctx):
        return self._variance(nd, self.rho.data(ctx))

    def _variance(self, F, rho):
        return F.Activation(rho, act_type='softrelu') + self._floor

    def hybrid_forward(self, F, x, mean, rho):
        variance = self._variance(F, rho)
        distance = half_squared_distance(F, F.cast(x, self._compute_dtype), mean, F.reciprocal(variance))
        return distance, F.sum(F.log(variance), axis=1)


class FixedVolumeMixture(GaussianMixture):
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
    num_classes, feature_size, mean_initializer, mean_lr_mult, mean_wd_mult
        As in :class:`GaussianMixture`.
    variance_lr_mult, variance_wd_mult : float, defaults 1 and 0
        Multipliers for :math:`\rho`. Decay pulls all variances towards 1.

    Inputs and outputs:
        As in :class:`GaussianMixture`.
    """

    def __init__(self, num_classes, feature_size, variance_lr_mult=1.0, variance_wd_mult=0.0, **kwargs):
        super().__init__(num_classes, feature_size, **kwargs)
        with self.name_scope():
            self.rho = self.params.get(
                'rho',
                shape=(num_classes, feature_size),
                init=init.Zero(),
                lr_mult=variance_lr_mult,
                wd_mult=variance_wd_mult,
            )

    def _variances_on(self, ctx):
        return self._log_variance(nd, self.rho.data(ctx)).exp()

    @staticmethod
    def _log_variance(F, rho):
        return F.broadcast_sub(rho, F.mean(rho, axis=(0, 1), keepdims=True))

    def hybrid_forward(self, F, x, mean, rho):
        log_variance = self._log_variance(F, rho)
        distance = half_squared_distance(F, F.cast(x, self._compute_dtype), mean, F.exp(-log_variance))
        return distance, F.sum(log_variance, axis=1)


class MixtureClassifier(HybridBlock):
    r"""A feature network and a mixture as one classifier that needs neither label nor margin.

    .. math:: \text{logit}_k = -q_k - \frac{1}{2} \log|\Lambda_k|

    Parameters are shared with the blocks given, so the classifier always shows the state of the
    training. ``export`` of the hybridised block writes a symbol that ``SymbolBlock`` loads.
    Source: Wan et al. (CVPR 2018), section 3.2.

    Parameters
    ----------
    net : HybridBlock
        Maps inputs to features of shape (B, D).
    mixture : GaussianMixture
        Any mixture of this package.

    Inputs:
        - **x**: whatever `net` takes.

    Outputs:
        - **logits**: shape (B, C); their softmax is the class posterior under equal priors.
    """

    def __init__(self, net, mixture, **kwargs):
        super().__init__(**kwargs)
        self.net = net
        self.mixture = mixture

    def hybrid_forward(self, F, x):
        distance, log_det = self.mixture(self.net(x))[:2]
        return label_free_logits(F, distance, log_det)


def check_sizes(num_classes, feature_size):
    """ValueError unless both are at least 1."""
    if num_classes < 1 or feature_size < 1:
        raise ValueError(
            f'num_classes and feature_size must be at least 1, got {num_classes} and {feature_size}'
        )


def label_free_logits(F, distance, log_det):
    """``-distance - log_det / 2`` for distance (B, C) and log_det (C,); shape (B, C)."""
    batch_ones = F.ones_like(F.slice_axis(distance, axis=1, begin=0, end=1))
    return F.elemwise_sub(F.dot(batch_ones, F.expand_dims(log_det / -2, axis=0)), distance)


def half_squared_distance(F, x, mean, precision=None):
    """Half the squared distance of every row of x (B, D) to every row of mean (C, D): (B, C).

    `precision` (C, D) weights the dimensions per class. The square is expanded into products of
    matrices, which cancels digits when features sit far from the origin; hence everything is
    shifted to the first mean. The distance does not depend on that shift, so no gradient is sent
    through it. Rows are summed and repeated by products with ones, which MXNet does several times
    faster, backward above all, than by its reductions and broadcasts. `elemwise_add` refuses
    features of another size, where + would repeat those of size 1.
    """
    to_origin = F.stop_gradient(-F.slice_axis(mean, axis=0, begin=0, end=1))
    ones = F.reshape(F.ones_like(to_origin), (-1, 1))
    batch_ones, class_ones = (F.ones_like(F.slice_axis(a, axis=1, begin=0, end=1)) for a in (x, mean))
    x = F.elemwise_add(x, F.stop_gradient(F.dot(batch_ones, to_origin)))
    mean = mean + F.stop_gradient(F.dot(class_ones, to_origin))
    if precision is None:
        mean_squares = F.dot(F.square(mean), ones) / 2
        x_squares = F.dot(F.square(x), ones) / 2
        squares = F.dot(
            F.concat(x_squares, batch_ones, dim=1),
            F.concat(class_ones, mean_squares, dim=1),
            transpose_b=True,
        )
        return clipped(F, squares - F.dot(x, mean, transpose_b=True))
    weighted = mean * precision
    mean_squares = F.dot(mean * weighted, ones) / 2
    squares = F.dot(F.square(x) / 2, precision, transpose_b=True) + F.dot(
        batch_ones, mean_squares, transpose_b=True
    )
    return clipped(F, squares - F.dot(x, weighted, transpose_b=True))


def clipped(F, distance):
    """Rounding errors below 0 as 0, with the gradient as it is, which is right there too."""
    return distance + F.stop_gradient(F.relu(-distance))
