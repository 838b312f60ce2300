"""What the mixture says of a sample after training: posterior, likelihood, and what is unlikely."""
import math

import numpy as np
from mxnet.gluon import HybridBlock

from .mixture import label_free_logits

__all__ = ['MixtureInference', 'calibrate', 'log_likelihood']


class MixtureInference(HybridBlock):
    r"""Class posterior and log-likelihoods of samples; needs neither label nor margin.

    .. math::
        \log p(x \mid k) &= -q_k - \tfrac{1}{2} \log|\Lambda_k| - \tfrac{D}{2} \log 2\pi \\
        \log p(x) &= \log \sum_k p(x \mid k) - \log C

    A sample that is unlike the training data is unlikely under every class, whatever its posterior.
    Parameters are shared with the blocks given. Source: Wan et al. (CVPR 2018), sections 3.2 and
    4.4.

    Parameters
    ----------
    net : HybridBlock
        Maps inputs to features of shape (B, D).
    mixture : GaussianMixture
        Any mixture of this package.

    Inputs:
        - **x**: whatever `net` takes.

    Outputs:
        - **posterior**: shape (B, C).
        - **log_likelihood**: log p(x), under equal priors, shape (B,).
        - **predicted_log_likelihood**: log p(x | k) of the predicted class k, shape (B,).
    """

    def __init__(self, net, mixture, **kwargs):
        super().__init__(**kwargs)
        self.net = net
        self.mixture = mixture

    def hybrid_forward(self, F, x):
        distance, log_det = self.mixture(self.net(x))[:2]
        logits = label_free_logits(F, distance, log_det)
        constant = self.mixture.feature_size / 2 * math.log(2 * math.pi)
        return (F.softmax(logits),
                log_likelihood(F, distance, log_det, self.mixture.feature_size),
                F.max(logits, axis=1) - constant)


def log_likelihood(F, distance, log_det, dimensions):
    """log p(x) of samples, (B,), from distance (B, C), log_det (C,) and the feature dimension."""
    logits = label_free_logits(F, distance, log_det)
    highest = F.max(logits, axis=1, keepdims=True)
    mean = F.mean(F.exp(F.broadcast_sub(logits, highest)), axis=1)
    return F.reshape(highest, (-1,)) + F.log(mean) - dimensions / 2 * math.log(2 * math.pi)


def calibrate(log_likelihoods, false_alarm_rate):
    """The threshold below which a sample is called unlike the training data.

    Parameters
    ----------
    log_likelihoods : array (N,)
        Of normal samples that were held out of the training.
    false_alarm_rate : float
        Share of normal samples that may fall below it, 0 to 1.

    Returns
    -------
    float
        The highest threshold that keeps to the rate on these samples.
    """
    values = np.sort(np.asarray(log_likelihoods, dtype=np.float64))
    if not len(values) or not 0 <= false_alarm_rate < 1 or not np.isfinite(values).all():
        raise ValueError('calibration needs finite log-likelihoods and a rate of at least 0 and '
                         f'below 1, got {len(values)} values and {false_alarm_rate}')
    return float(values[int(false_alarm_rate * len(values))])
