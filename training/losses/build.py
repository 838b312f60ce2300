"""From a recipe's loss section to the blocks of gmloss."""

from typing import Optional

import numpy as np

from gmloss import (
    DiagonalMixture,
    FixedVolumeMixture,
    GaussianMixture,
    InverseSumMixture,
    LGMLoss,
    RawDiagonalMixture,
)
from training.config.schema import VARIANCE_FLOOR, Loss
from training.nets.zoo import initializer

MIXTURES = {
    'identity': GaussianMixture,
    'diagonal': DiagonalMixture,
    'fixed-volume': FixedVolumeMixture,
    'raw': RawDiagonalMixture,
    'inverse-sum': InverseSumMixture,
}


def build_mixture(
    loss: Loss, num_classes: int, feature_size: int, priors: Optional[np.ndarray] = None
) -> GaussianMixture:
    """The mixture of a training.config.schema.Loss, not yet initialised."""
    settings = {
        'priors': priors,
        'mean_initializer': initializer(loss.mean_init),
        'mean_lr_mult': loss.mean_lr_mult,
    }
    if loss.covariance != 'identity':
        settings.update(variance_lr_mult=loss.variance_lr_mult, variance_wd_mult=loss.variance_wd_mult)
    if loss.covariance == 'diagonal':
        settings.update(variance_floor=VARIANCE_FLOOR)
    if loss.covariance == 'raw':
        settings.update(euclidean=loss.likelihood == 'euclidean')
    return MIXTURES[loss.covariance](num_classes, feature_size, **settings)


def build_loss(loss: Loss, sparse_label: bool = True) -> LGMLoss:
    """The L-GM loss of a training.config.schema.Loss, not yet initialised."""
    likelihood = 'distance' if loss.likelihood == 'euclidean' else loss.likelihood
    return LGMLoss(
        alpha=loss.margin,
        lambda_=loss.likelihood_weight,
        likelihood=likelihood,
        margin_add=loss.margin_add,
        sparse_label=sparse_label,
    )


def variance_statistics(mixture: Optional[GaussianMixture]) -> dict[str, float]:
    """What to record of a trained covariance: smallest variance, mean log-determinant; or {}."""
    if not any(parameter is not mixture.mean for parameter in mixture.params.values()):
        return {}
    variances = mixture.variances().asnumpy()
    with np.errstate(invalid='ignore', divide='ignore'):
        log_det = np.log(variances).sum(axis=1).mean()
    return {'smallest_variance': float(variances.min()), 'mean_log_det': float(log_det)}
