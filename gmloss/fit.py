"""A mixture in closed form from the features of a net that is already trained."""

from collections.abc import Iterable, Sequence
from typing import Any, Optional, Union

import numpy as np
from mxnet import cpu, init, nd
from mxnet.context import Context
from mxnet.gluon import HybridBlock
from mxnet.ndarray import NDArray

from .blocks import CheckedBlock
from .covariance import DiagonalMixture, softplus_inverse
from .mixture import GaussianMixture

COVARIANCES = {
    'identity': {},
    'isotropic': {'isotropic': True},
    'isotropic-shared': {'isotropic': True, 'shared': True},
    'diagonal': {},
    'diagonal-shared': {'shared': True},
    'full-shared': {},
}
BATCH = 4096
LEAST = 1e-6  # smallest variance, and smallest eigenvalue of a full covariance, over the mean one
Arrays = Union[np.ndarray, NDArray, Iterable]


def fit_mixture(
    features: Arrays,
    labels: Arrays,
    num_classes: int,
    covariance: str = 'full-shared',
    ctx: Union[Context, Sequence[Context], None] = None,
) -> GaussianMixture:
    r"""The mixture whose means, covariance and priors are those of labelled features.

    .. math::
        \mu_k = \frac{1}{n_k} \sum_{y_i = k} x_i, \qquad \pi_k = \frac{n_k}{N}, \qquad
        \Lambda = \frac{1}{N - C} \sum_i (x_i - \mu_{y_i})(x_i - \mu_{y_i})^T

    Covariances of each class are divided by :math:`n_k - 1`. With 'full-shared',
    :class:`MahalanobisScore` is the detector of Lee et al., "A Simple Unified Framework for Detecting
    Out-of-Distribution Samples and Adversarial Attacks" (NeurIPS 2018), section 2.1.

    Parameters
    ----------
    features : array (N, D), or iterable of arrays (B, D)
        Batches are read once and summed in float64, so that they may come from a generator.
    labels : array (N,), or iterable of arrays (B,)
        Class indices.
    num_classes : int
        C; 1, with labels 0, fits one Gaussian to all.
    covariance : {'full-shared', 'identity', 'isotropic', 'isotropic-shared', 'diagonal', 'diagonal-shared'}
        'isotropic' and 'diagonal' have one covariance per class. No variance is taken for less than
        1e-6 of the mean variance; a full covariance leaves out directions with less.
    ctx : Context, list of them, or None
        Where to initialise the mixture; the CPU if None.

    Returns
    -------
    GaussianMixture
        A :class:`WhitenedMixture`, a `DiagonalMixture`, or a `GaussianMixture` for 'identity'.
    """
    if covariance not in COVARIANCES:
        raise ValueError(f'covariance must be one of {", ".join(COVARIANCES)}, got {covariance!r}')
    count, total, squares, shift = sums(in_batches(features), in_batches(labels), num_classes, covariance)
    if covariance in ('isotropic', 'diagonal') and count.min() < 2 or count.min() < 1:
        raise ValueError(f'class {np.argmin(count)} has too few samples for a mean and a covariance')
    means, size = total / count[:, None], total.shape[1]
    if covariance == 'full-shared':
        scatter = squares - (total.T / count) @ total
        return WhitenedMixture.of_covariance(
            means + shift, scatter / max(1, int(count.sum()) - num_classes), count, ctx
        )
    settings = {'priors': count, 'mean_initializer': init.Constant((means + shift).astype(np.float32))}
    if covariance == 'identity':
        mixture = GaussianMixture(num_classes, size, **settings)
    else:
        shape = COVARIANCES[covariance]
        scatter, freedom = squares - total * means, count[:, None] - 1
        if shape.get('shared'):
            scatter = scatter.sum(axis=0, keepdims=True)
            freedom = np.maximum(1, count.sum() - num_classes)
        if shape.get('isotropic'):
            scatter = scatter.mean(axis=1, keepdims=True)
        variance = scatter / freedom
        floor = LEAST / 2 * variance.mean()
        mixture = DiagonalMixture(num_classes, size, max(1.0, 2 * floor), floor, **shape, **settings)
        mixture.rho.init = init.Constant(
            np.asarray(softplus_inverse(np.maximum(variance - floor, floor)), np.float32)
        )
    mixture.initialize(ctx=ctx or cpu())
    return mixture


def in_batches(values: Any) -> Iterable[np.ndarray]:
    """Batches as NumPy arrays, of one array or of batches."""
    batches = values
    if hasattr(values, 'shape'):
        batches = (values[start : start + BATCH] for start in range(0, len(values), BATCH))
    return (batch.asnumpy() if isinstance(batch, NDArray) else np.asarray(batch) for batch in batches)


def sums(
    features: Iterable[np.ndarray], labels: Iterable[np.ndarray], num_classes: int, covariance: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Counts (C,), sums (C, D), sums of squares (C, D) or of products (D, D), all of features less a
    shift (D,), which comes fourth."""
    count = np.zeros(num_classes)
    total = squares = shift = None
    for x, label in zip(features, labels):
        x, label = x.astype(np.float64), label.reshape(-1).astype(np.int64)
        if x.ndim != 2 or len(x) != len(label):
            raise ValueError(f'features (B, D) and labels (B,) are needed, got {x.shape} and {label.shape}')
        if len(label) and not 0 <= label.min() <= label.max() < num_classes:
            raise ValueError(f'labels must be 0 to {num_classes - 1}, got {label.min()} to {label.max()}')
        if shift is None:
            shift = x.mean(axis=0)
            total = np.zeros((num_classes, x.shape[1]))
            squares = np.zeros((x.shape[1], x.shape[1])) if covariance == 'full-shared' else total.copy()
        x -= shift
        if not np.isfinite(x).all():
            raise ValueError('features must be finite numbers')
        count += np.bincount(label, minlength=num_classes)
        order = np.argsort(label, kind='stable')
        classes, starts = np.unique(label[order], return_index=True)
        total[classes] += np.add.reduceat(x[order], starts)
        if covariance == 'full-shared':
            squares += x.T @ x
        else:
            squares[classes] += np.add.reduceat(x[order] ** 2, starts)
    if shift is None:
        raise ValueError('there are no features to fit a mixture to')
    return count, total, squares, shift


class WhitenedMixture(GaussianMixture):
    r"""One full covariance for all classes, as distances of features that a matrix whitens.

    .. math:: q_k = \frac{1}{2} \|(x - c) W - \mu_k\|^2, \qquad \log|\Lambda| = -2 \log|W|

    Made by :func:`fit_mixture`; the means could be trained further, c and W not.

    Inputs and outputs:
        As in :class:`GaussianMixture`.
    """

    _has_volume = True

    def __init__(self, num_classes: int, feature_size: int, **kwargs: Any) -> None:
        super().__init__(num_classes, feature_size, **kwargs)
        shapes = {
            'centre': (1, feature_size),
            'whitening': (feature_size, feature_size),
            'whitened_log_det': (1, 1),
        }
        with self.name_scope():
            for name, shape in shapes.items():
                parameter = self.params.get(
                    name, shape=shape, init='zeros', grad_req='null', differentiable=False
                )
                setattr(self, name, parameter)

    @classmethod
    def of_covariance(
        cls, means: np.ndarray, covariance: np.ndarray, priors: Any, ctx: Any
    ) -> 'WhitenedMixture':
        """Of means (C, D), a covariance (D, D) and C priors; initialised on `ctx`."""
        values, vectors = np.linalg.eigh(covariance)
        used = values > LEAST * max(values.mean(), 0)
        if not used.any():
            raise ValueError('the features of each class are all the same: they have no covariance')
        whitening = np.where(used, vectors / np.sqrt(np.where(used, values, 1)), 0)
        centre = means.mean(axis=0, keepdims=True)
        mixture = cls(*means.shape, priors=priors)
        mixture.initialize(ctx=ctx or cpu())
        for parameter, value in (
            (mixture.mean, (means - centre) @ whitening),
            (mixture.centre, centre),
            (mixture.whitening, whitening),
            (mixture.whitened_log_det, np.log(values[used]).sum().reshape(1, 1)),
        ):
            parameter.set_data(nd.array(value))
        return mixture

    def means(self, ctx: Optional[Context] = None) -> NDArray:
        return nd.array(
            super().means(ctx).asnumpy() @ np.linalg.pinv(self.whitening.data().asnumpy())
            + self.centre.data().asnumpy(),
            ctx=ctx or self.mean.list_ctx()[0],
        )

    def _variances_on(self, ctx: Context) -> NDArray:
        inverse = np.linalg.pinv(self.whitening.data(ctx).asnumpy().astype(np.float64))
        return nd.array((inverse**2).sum(axis=0, keepdims=True), ctx=ctx)

    def _measure(  # type: ignore[override]
        self, F: Any, x: Any, index: Any, mean: Any, centre: Any, whitening: Any, whitened_log_det: Any
    ) -> Any:
        x = F.dot(F.broadcast_sub(x, centre), whitening)
        distance, log_det, *rest = super()._measure(F, x, index, mean)
        log_det = F.broadcast_add(log_det, F.reshape(whitened_log_det, (-1,)))
        return (distance, log_det, *rest)


class MahalanobisScore(CheckedBlock):
    r"""How close features come to a class of a fitted mixture: low for out-of-distribution inputs.

    .. math:: -\min_k q_k \qquad \text{or, with a background,} \qquad -\min_k q_k + q_0

    Source: Lee et al. (NeurIPS 2018), section 2.1, times 1/2; with a background, the relative score of
    Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection" (2021).

    Parameters
    ----------
    net : HybridBlock
        Maps inputs to features (B, D).
    mixture : GaussianMixture
        Such as ``fit_mixture(features, labels, C)``.
    background : GaussianMixture or None
        One Gaussian for all features, ``fit_mixture(features, 0 * labels, 1)``.

    Inputs:
        - **x**: whatever `net` takes.

    Outputs:
        - **score**: shape (B,).
    """

    def __init__(
        self,
        net: HybridBlock,
        mixture: GaussianMixture,
        background: Optional[GaussianMixture] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.net, self.mixture = net, mixture
        if background is not None:
            self.background = background
        self._relative = background is not None

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        features = self.net(x)
        score = -F.min(self.mixture(features)[0], axis=1)
        return F.elemwise_add(score, F.min(self.background(features)[0], axis=1)) if self._relative else score
