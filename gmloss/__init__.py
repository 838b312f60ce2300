"""Large-margin Gaussian Mixture (L-GM) loss for Gluon.

>>> mixture = GaussianMixture(num_classes=10, feature_size=64)   # in place of the last Dense
>>> loss_fn = LGMLoss(alpha=0.1, lambda_=0.1)
>>> with autograd.record():
...     loss = loss_fn(*mixture(net(x)), y)                      # doctest: +SKIP
>>> classify = MixtureClassifier(net, mixture)                   # needs neither label nor margin
"""

from .inference import MixtureInference, calibrate, fit_spread, log_likelihood
from .loss import LGMLoss, margin_logits, one_hot
from .margin import ConstantMargin, StepUpMargin
from .mixture import (
    DiagonalMixture,
    FixedVolumeMixture,
    GaussianMixture,
    MixtureClassifier,
    label_free_logits,
)
from .published import InverseSumMixture, RawDiagonalMixture

__all__ = [
    'GaussianMixture',
    'DiagonalMixture',
    'FixedVolumeMixture',
    'LGMLoss',
    'ConstantMargin',
    'StepUpMargin',
    'MixtureClassifier',
    'MixtureInference',
    'calibrate',
    'fit_spread',
    'log_likelihood',
    'RawDiagonalMixture',
    'InverseSumMixture',
    'label_free_logits',
    'margin_logits',
    'one_hot',
]
