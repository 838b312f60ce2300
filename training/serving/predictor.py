"""A finished run as a function of images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from mxnet import nd
from mxnet.context import Context

from gmloss import GaussianMixture
from training.data import datasets
from training.machine.devices import Device
from training.metrics.likelihood import log_likelihoods
from training.runs import restore
from training.runs.folder import RunFolder


@dataclass
class Predictions:
    """What a run says of N images.

    Attributes
    ----------
    posterior : array (N, C)
    features : array (N, D)
    log_likelihood : array (N,) or None
        Under L-GM.
    unlike_training : array (N,) of bool, or None
        Whether the log-likelihood is below the threshold, where the run has one.
    """

    posterior: np.ndarray
    features: np.ndarray
    log_likelihood: Optional[np.ndarray] = None
    unlike_training: Optional[np.ndarray] = None


class Predictor:
    """A run's net with its class names and its threshold.

    Parameters
    ----------
    path : Path
        The run folder.
    device : training.machine.devices.Device
    context : Context
        Of `device`.
    false_alarm_rate : str, default '0.05'
        Share of ordinary images that may be called unlike the training data; one of
        training.config.schema.FALSE_ALARM_RATES.

    Raises
    ------
    UserError
        If there is no such run, or its files are damaged.
    """

    def __init__(
        self, path: Union[str, Path], device: Device, context: Context, false_alarm_rate: str = '0.05'
    ) -> None:
        self.folder = RunFolder(path)
        self.name = self.folder.path.name
        self._context = context
        self._net, self.recipe = restore.pixel_classifier(self.folder, device, [context], features=True)
        facts = datasets.facts(self.recipe.data)
        self.title, self.shape, self.class_names = facts.title, facts.shape, facts.names
        self.short_side = self.recipe.data.short_side
        summary = self.folder.read_summary() if self.folder.summary.exists() else {}
        self.accuracy = summary.get('val_acc')  # on the validation images, after the last epoch
        self.spread, thresholds = self.folder.read_calibration()
        self.threshold = thresholds.get(false_alarm_rate) if self.mixture is not None else None

    @property
    def feature_size(self) -> int:
        """Feature dimension D."""
        return self._net.classifier.net.feature_size

    @property
    def mixture(self) -> Optional[GaussianMixture]:
        """The mixture of a run under L-GM."""
        return getattr(self._net.classifier, 'mixture', None)

    @property
    def centers(self) -> Optional[np.ndarray]:
        """Class means or centers, (C, D), where the loss has them."""
        if self.mixture is not None:
            return self.mixture.means().asnumpy()
        heads = self._net.classifier.heads
        return heads[0].weight.data(self._context).asnumpy() if heads else None

    def likelihood_of_means(self) -> np.ndarray:
        """The log-likelihood at each class mean, (C,), of a run under L-GM."""
        distance = self.mixture(self.mixture.means())[0].asnumpy()
        return log_likelihoods(self.mixture, distance, self.spread)

    @property
    def likeliest(self) -> Optional[float]:
        """The highest of them; None where it is no number or there is no mixture."""
        return None if self.mixture is None else _rounded(self.likelihood_of_means().max(), 4)

    def __call__(self, images: np.ndarray) -> Predictions:
        """Predictions for uint8 images (N, channels, height, width)."""
        outputs = self._net(nd.array(images, ctx=self._context, dtype='uint8'))
        arrays = {name: output.asnumpy() for name, output in zip(self._net.outputs, outputs)}
        likelihood = arrays.get('log_likelihood')
        unlike = None
        if likelihood is not None and self.threshold is not None:
            unlike = ~(likelihood >= self.threshold)
        return Predictions(
            nd.array(arrays['logits']).softmax().asnumpy(), arrays['features'], likelihood, unlike
        )

    def describe(self, predictions: Predictions, number: int) -> dict[str, Any]:
        """One image's class, probability, log-likelihood and flag, as scripts and the server give them."""
        best = int(predictions.posterior[number].argmax())
        likelihood, unlike = predictions.log_likelihood, predictions.unlike_training
        return {
            'class': self.class_names[best],
            'probability': _rounded(predictions.posterior[number, best], 6),
            'log_likelihood': None if likelihood is None else _rounded(likelihood[number], 4),
            'unlike_training': None if unlike is None else bool(unlike[number]),
        }


def _rounded(value: float, digits: int) -> Optional[float]:
    """None where the value is no number, which JSON has no way to say."""
    return round(float(value), digits) if np.isfinite(value) else None
