"""How likely a trained mixture finds the images of both splits."""

import math
from typing import Any, Callable

import numpy as np
from mxnet import nd
from mxnet.gluon import HybridBlock

from gmloss import GaussianMixture, MixtureClassifier, calibrate, fit_spread, log_likelihood
from training.config.schema import FALSE_ALARM_RATES
from training.data.batches import DeviceData
from training.metrics.accuracy import extract_features
from training.nets.rewrite import for_inference

SAMPLE = 10000  # images of each split


def report(
    classifier: MixtureClassifier,
    normalise: HybridBlock,
    train_data: DeviceData,
    val_data: DeviceData,
    draw: Callable,
) -> dict[str, Any]:
    """Draw the likelihoods and return what summary.json is to say of them.

    Whatever the training's precision, they are those of the net that predict.py and the exports run:
    in float32, with BatchNorms merged.

    Parameters
    ----------
    classifier : gmloss.MixtureClassifier
    normalise : HybridBlock
    train_data, val_data : training.data.batches.DeviceData
    draw : callable
        Called with the splits that training.runs.plots.likelihoods takes.

    Returns
    -------
    dict
        - likelihood_spread: of the first training images, by gmloss.fit_spread; 1 where it has none.
        - likelihood_thresholds: for each false-alarm rate the log-likelihood, with that spread,
          below which so many of the validation images lie.

        Nothing where likelihoods are no numbers.
    """
    mixture = classifier.mixture
    classifier = MixtureClassifier(for_inference(classifier.net, train_data.contexts), mixture)
    samples = [distances(classifier, normalise, data, SAMPLE) for data in (train_data, val_data)]
    own = [distance[np.arange(len(labels)), labels] for distance, labels in samples]
    try:
        spread = fit_spread(own[0], mixture.feature_size)
    except ValueError:  # features that all are their class's mean, or no numbers
        spread = 1.0
    likelihoods = [log_likelihoods(mixture, distance, spread) for distance, _ in samples]
    draw(list(zip(('training set', 'validation set'), own, likelihoods)))
    if not np.isfinite(likelihoods[1]).all():
        return {}
    return {
        'likelihood_spread': spread,
        'likelihood_thresholds': {
            # Rounded down: at the threshold itself lies an image that is not to be below it.
            str(rate): math.floor(calibrate(likelihoods[1], rate) * 1e4) / 1e4
            for rate in FALSE_ALARM_RATES
        },
    }


def distances(
    classifier: MixtureClassifier, normalise: HybridBlock, data: DeviceData, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Half squared distances of the first `count` images to every class.

    Parameters
    ----------
    classifier : gmloss.MixtureClassifier
    normalise, data, count
        As in training.metrics.accuracy.extract_features.

    Returns
    -------
    (array (N, C), array (N,))
        Distances, labels.
    """
    distance, labels = extract_features(
        lambda images: classifier.mixture(classifier.net(images))[0], normalise, data, count
    )
    return distance, labels


def log_likelihoods(mixture: GaussianMixture, distance: np.ndarray, spread: float) -> np.ndarray:
    """log p(x), array (N,), of images at distances (N, C) from the classes of a mixture."""
    context = mixture.mean.list_ctx()[0]
    _, log_det = mixture(nd.zeros((1, mixture.feature_size), ctx=context))[:2]
    return log_likelihood(
        nd, nd.array(distance, ctx=context), log_det, mixture.feature_size, spread
    ).asnumpy()
