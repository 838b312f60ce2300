"""Metrics of features, for Gluon's loops and Estimator; the host reads them only when asked for a value."""

import copy
from collections.abc import Sequence
from typing import Any, Optional, Union

from mxnet import autograd, nd
from mxnet.metric import EvalMetric
from mxnet.ndarray import NDArray

from .distance import label_free_logits
from .inference import log_likelihood
from .labels import exact
from .mixture import GaussianMixture

Parts = Union[NDArray, Sequence[NDArray]]


class FeatureMetric(EvalMetric):
    """Mean over samples of a number that a block finds in features and labels: base class.

    `update` takes features where other metrics take predictions, as arrays or lists of them. A copy
    shares the block, so that Estimator's validation metrics see its current parameters.

    Parameters
    ----------
    block : HybridBlock
        A mixture, or a nearest-center classifier.
    name : str
    ignore_label : int or None
        Label of samples that do not count.
    """

    def __init__(self, block: Any, name: str, ignore_label: Optional[int] = None) -> None:
        self._block, self._ignore_label = block, ignore_label
        super().__init__(name)

    def of_samples(self, features: NDArray, label: NDArray) -> NDArray:
        """The number of each sample, (B,), from features (B, D) and labels (B,) in float64."""
        raise NotImplementedError

    def update(self, labels: Parts, preds: Parts) -> None:
        """Add the samples of a batch, or of its parts on several contexts."""
        if isinstance(labels, NDArray):
            labels, preds = [labels], [preds]
        with autograd.pause():
            for label, features in zip(labels, preds):
                label = exact(nd, label)
                used = nd.ones_like(label) if self._ignore_label is None else label != self._ignore_label
                values = nd.cast(self.of_samples(features, label), 'float64')
                values = nd.where(used, values, nd.zeros_like(values))
                sums = nd.stack(values.sum(), used.sum())
                known = self._sums.get(label.ctx)
                self._sums[label.ctx] = sums if known is None else known + sums

    def reset(self) -> None:
        """Forget all samples."""
        self._sums: dict = {}

    reset_local = reset

    def get(self) -> tuple[str, float]:
        """Name and mean; NaN without samples. The host waits here."""
        parts = [sums.asnumpy() for sums in self._sums.values()]
        total, count = (sum(part[k] for part in parts) for k in (0, 1))
        return self.name, float(total / count) if count else float('nan')

    def __deepcopy__(self, memo: dict) -> 'FeatureMetric':
        twin = copy.copy(self)
        twin.reset()
        return twin


class MixtureAccuracy(FeatureMetric):
    """Share of samples that a mixture classifies correctly, without label or margin.

    Parameters
    ----------
    mixture : GaussianMixture
    name, ignore_label
        As in :class:`FeatureMetric`.
    """

    def __init__(
        self, mixture: GaussianMixture, name: str = 'accuracy', ignore_label: Optional[int] = None
    ) -> None:
        super().__init__(mixture, name, ignore_label)

    def of_samples(self, features: NDArray, label: NDArray) -> NDArray:
        distance, log_det = self._block(features)[:2]
        return nd.argmax(label_free_logits(nd, distance, log_det), axis=1).astype('float64') == label


class OwnDistance(FeatureMetric):
    """Half the squared Mahalanobis distance of samples to the mean of their class.

    Parameters
    ----------
    mixture : GaussianMixture
    name, ignore_label
        As in :class:`FeatureMetric`.
    """

    def __init__(
        self, mixture: GaussianMixture, name: str = 'own-distance', ignore_label: Optional[int] = None
    ) -> None:
        super().__init__(mixture, name, ignore_label)

    def of_samples(self, features: NDArray, label: NDArray) -> NDArray:
        return self._block(features, label)[3]


class LogLikelihood(FeatureMetric):
    """log p(x) of samples under a mixture, whatever their labels are.

    Parameters
    ----------
    mixture : GaussianMixture
    spread : float, default 1
        As in :class:`MixtureInference`.
    name, ignore_label
        As in :class:`FeatureMetric`.
    """

    def __init__(
        self,
        mixture: GaussianMixture,
        spread: float = 1.0,
        name: str = 'log-likelihood',
        ignore_label: Optional[int] = None,
    ) -> None:
        self._spread = spread
        super().__init__(mixture, name, ignore_label)

    def of_samples(self, features: NDArray, label: NDArray) -> NDArray:
        distance, log_det = self._block(features)[:2]
        return log_likelihood(nd, distance, log_det, self._block.feature_size, self._spread)
