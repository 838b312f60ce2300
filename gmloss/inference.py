"""What the mixture says of a sample after training: class, posterior, likelihood, and what is unlikely."""

import math
from typing import Any, Union

import numpy as np
from mxnet import nd
from mxnet.gluon import HybridBlock
from mxnet.ndarray import NDArray

from .blocks import CheckedBlock
from .distance import label_free_logits, row_sums
from .mixture import GaussianMixture


class MixtureClassifier(CheckedBlock):
    r"""A feature network and a mixture as one classifier that needs neither label nor margin.

    .. math:: \text{logit}_k = -q_k - \frac{1}{2} \log|\Lambda_k| + \log C \pi_k

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
        - **logits**: shape (B, C); their softmax is the class posterior.
    """

    def __init__(self, net: HybridBlock, mixture: GaussianMixture, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.net = net
        self.mixture = mixture

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        distance, log_det = self.mixture(self.net(x))[:2]
        return label_free_logits(F, distance, log_det)


class MixtureInference(CheckedBlock):
    r"""Class posterior and log-likelihoods of samples; needs neither label nor margin.

    .. math::
        P(k \mid x) &\propto \pi_k \exp(-q_k - \tfrac{1}{2} \log|\Lambda_k|) \\
        \log p(x \mid k) &= -q_k / s - \tfrac{1}{2} \log|\Lambda_k| - \tfrac{D}{2} \log 2\pi s \\
        \log p(x) &= \log \sum_k \pi_k \, p(x \mid k)

    A sample that is unlike the training data is unlikely under every class, whatever its posterior.
    Parameters are shared with the blocks given; the spread is not among them. Source: Wan et al.
    (CVPR 2018), sections 3.2 and 4.4; the spread s, which the paper leaves at 1, is this project's.

    Parameters
    ----------
    net : HybridBlock
        Maps inputs to features of shape (B, D).
    mixture : GaussianMixture
        Any mixture of this package; of :class:`InverseSumMixture`, which has no log-determinant,
        the densities are off by a factor for each class.
    spread : float, default 1
        The variances of the densities over those of the mixture, from :func:`fit_spread`.

    Inputs:
        - **x**: whatever `net` takes.

    Outputs:
        - **posterior**: shape (B, C).
        - **log_likelihood**: log p(x), shape (B,).
        - **predicted_log_likelihood**: log C prior(k) p(x | k) of the predicted class k, shape (B,).
    """

    def __init__(
        self, net: HybridBlock, mixture: GaussianMixture, spread: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < spread < math.inf:
            raise ValueError(f'spread must be above 0 and finite, got {spread}')
        self.net = net
        self.mixture = mixture
        self._spread = spread

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        features = self.net(x)
        distance, log_det = self.mixture(features)[:2]
        logits = label_free_logits(F, distance, log_det)
        row = F.slice_axis(features, axis=0, begin=0, end=1)  # its size may not be known yet
        volume = F.reshape(row_sums(F, F.ones_like(row)), (-1,)) * math.log(2 * math.pi * self._spread)
        volume = F.cast(volume, self.mixture._compute_dtype)
        densities = label_free_logits(F, distance / self._spread, F.broadcast_add(log_det, volume))
        predicted = F.argmax(logits, axis=1)
        return F.softmax(logits), log_mean_exp(F, densities), F.pick(densities, predicted)


def log_likelihood(F: Any, distance: Any, log_det: Any, dimensions: int, spread: float = 1.0) -> Any:
    """log p(x), (B,), from distance (B, C), log_det (C,) and the feature dimension."""
    volume = dimensions * math.log(2 * math.pi * spread)
    return log_mean_exp(F, label_free_logits(F, distance / spread, log_det + volume))


def log_mean_exp(F: Any, x: Any) -> Any:
    """log of the mean of exp(x) over the columns of x (B, C), of shape (B,)."""
    highest = F.max(x, axis=1, keepdims=True)
    return F.reshape(highest, (-1,)) + F.log(F.mean(F.exp(F.broadcast_sub(x, highest)), axis=1))


def fit_spread(distances: Union[np.ndarray, NDArray], dimensions: int) -> float:
    """How much wider than the mixture's Gaussians the features lie, by maximum likelihood.

    The loss settles which class is likelier, hence differences of distances, and lets features
    crowd around their means far closer than unit variance says. Likelihoods of the mixture as it
    was trained then hardly tell a sample in the midst of its class from one at its rim.

    Parameters
    ----------
    distances : numpy array or NDArray (N,)
        Half squared distances of training samples to their own class.
    dimensions : int
        Feature dimension D.

    Returns
    -------
    float
        Twice the mean distance over D: the mean variance that the mixture took for 1.
    """
    mean = float(np.mean(one_per_sample(distances)))
    if not 0 < mean < math.inf or dimensions < 1:
        raise ValueError(
            'a spread needs finite distances that are not all 0, and at least one '
            f'dimension, got a mean of {mean} and {dimensions}'
        )
    return 2 * mean / dimensions


def calibrate(log_likelihoods: Union[np.ndarray, NDArray], false_alarm_rate: float) -> float:
    """The threshold below which a sample is called unlike the training data.

    Parameters
    ----------
    log_likelihoods : numpy array or NDArray (N,)
        Of normal samples that were held out of the training.
    false_alarm_rate : float
        Share of normal samples that may fall below it, 0 to 1.

    Returns
    -------
    float
        The highest threshold that keeps to the rate on these samples.
    """
    values = np.sort(one_per_sample(log_likelihoods))
    if not len(values) or not 0 <= false_alarm_rate < 1 or not np.isfinite(values).all():
        raise ValueError(
            'calibration needs finite log-likelihoods and a rate of at least 0 and '
            f'below 1, got {len(values)} values and {false_alarm_rate}'
        )
    below = int(round(false_alarm_rate * len(values), 6))  # 0.29 * 100 < 29
    return float(values[min(below, len(values) - 1)])


def one_per_sample(values: Any) -> np.ndarray:
    """Float64 NumPy array (N,) of a sequence, NumPy array or NDArray of that shape."""
    values = np.asarray(values.asnumpy() if isinstance(values, nd.NDArray) else values, np.float64)
    if values.ndim != 1:
        raise ValueError(f'one value per sample is needed, of shape (N,), not {values.shape}')
    return values
