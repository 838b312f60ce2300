"""Large-margin Gaussian Mixture (L-GM) loss for Gluon.

>>> loss_fn = GaussianMixtureLoss(GaussianMixture(num_classes=10), alpha=0.1, lambda_=0.1)
>>> with autograd.record():
...     loss = loss_fn(net(x), y)                       # net without its last dense layer  # doctest: +SKIP
>>> classify = MixtureClassifier(net, loss_fn.mixture)  # needs neither label nor margin
"""

from .covariance import DiagonalMixture, FixedVolumeMixture
from .distance import label_free_logits
from .fit import MahalanobisScore, WhitenedMixture, fit_mixture
from .inference import MixtureClassifier, MixtureInference, calibrate, fit_spread, log_likelihood
from .labels import check_labels, class_counts
from .logits import margin_logits, one_hot
from .loss import GaussianMixtureLoss, LGMLoss
from .margin import ConstantMargin, StepUpMargin
from .metrics import LogLikelihood, MixtureAccuracy, OwnDistance
from .mixture import GaussianMixture
from .published import InverseSumMixture, RawDiagonalMixture

__all__ = [
    'GaussianMixture',
    'DiagonalMixture',
    'FixedVolumeMixture',
    'GaussianMixtureLoss',
    'LGMLoss',
    'ConstantMargin',
    'StepUpMargin',
    'MixtureClassifier',
    'MixtureInference',
    'calibrate',
    'fit_mixture',
    'WhitenedMixture',
    'MahalanobisScore',
    'MixtureAccuracy',
    'OwnDistance',
    'LogLikelihood',
    'check_labels',
    'class_counts',
    'fit_spread',
    'log_likelihood',
    'RawDiagonalMixture',
    'InverseSumMixture',
    'label_free_logits',
    'margin_logits',
    'one_hot',
]
