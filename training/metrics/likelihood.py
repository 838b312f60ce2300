"""How likely a trained mixture finds the images of both splits."""

import math

import numpy as np
from mxnet import nd

from gmloss import calibrate, fit_spread, log_likelihood
from training.config.schema import FALSE_ALARM_RATES
from training.metrics.accuracy import extract_features

SAMPLE = 10000  # images of each split


def report(classifier, normalise, train_data, val_data, draw):
    """Draw the likelihoods and return what summary.json is to say of it.

    Parameters
    ----------
    classifier : gmloss.MixtureClassifier
    normalise : block
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
    samples = [distances(classifier, normalise, data, SAMPLE) for data in (train_data, val_data)]
    own = [distance[np.arange(len(labels)), labels] for distance, labels in samples]
    try:
        spread = fit_spread(own[0], mixture.feature_size)
    except ValueError:  # features that all are their class's mean, or no numbers
        spread = 1.0
    found = [log_likelihoods(mixture, distance, spread) for distance, _ in samples]
    draw(list(zip(('training set', 'validation set'), own, found)))
    if not np.isfinite(found[1]).all():
        return {}
    return {
        'likelihood_spread': spread,
        'likelihood_thresholds': {
            # Rounded down: at the threshold itself lies an image that is not to be below it.
            str(rate): math.floor(calibrate(found[1], rate) * 1e4) / 1e4
            for rate in FALSE_ALARM_RATES
        },
    }


def distances(classifier, normalise, data, count):
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
    return extract_features(
        lambda images: classifier.mixture(classifier.net(images))[0], normalise, data, count
    )


def log_likelihoods(mixture, distance, spread):
    """log p(x), array (N,), of images at distances (N, C) from the classes of a mixture."""
    context = mixture.mean.list_ctx()[0]
    _, log_det = mixture(nd.zeros((1, mixture.feature_size), ctx=context))[:2]
    return log_likelihood(
        nd, nd.array(distance, ctx=context), log_det, mixture.feature_size, spread
    ).asnumpy()
