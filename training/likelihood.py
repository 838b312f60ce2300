"""How likely a trained mixture finds the images of both splits."""
import numpy as np
from mxnet import nd

from gmloss import calibrate, log_likelihood

from . import loop

SAMPLE = 10000  # images of each split
FALSE_ALARM_RATES = 0.01, 0.05, 0.1


def report(classifier, normalise, train_data, val_data, folder, figures):
    """Draw likelihood.png and return what summary.json is to say of it.

    Parameters
    ----------
    classifier : gmloss.MixtureClassifier
    normalise : block
    train_data, val_data : training.batches.DeviceData
    folder : training.run_folder.RunFolder
    figures : training.plots.BackgroundPlots

    Returns
    -------
    dict
        likelihood_thresholds: for each false-alarm rate the log-likelihood below which so many of
        the validation images lie.
    """
    samples = [(name, *likelihoods(classifier, normalise, data, SAMPLE))
               for name, data in (('training set', train_data), ('validation set', val_data))]
    figures.submit(folder.draw_likelihoods, samples)
    values = samples[1][2]
    if not np.isfinite(values).all():
        return {}
    return {'likelihood_thresholds': {str(rate): round(calibrate(values, rate), 4)
                                      for rate in FALSE_ALARM_RATES}}


def likelihoods(classifier, normalise, data, count):
    """Half squared distances to the own class and log-likelihoods of the first `count` images.

    Parameters
    ----------
    classifier : gmloss.MixtureClassifier
    normalise, data, count
        As in training.loop.extract.

    Returns
    -------
    (array (N,), array (N,))
    """
    mixture = classifier.mixture

    def distances_and_likelihood(images):
        distance, log_det = mixture(classifier.net(images))[:2]
        likelihood = log_likelihood(nd, distance, log_det, mixture.feature_size)
        return nd.concat(distance, likelihood.expand_dims(axis=1), dim=1)

    values, labels = loop.extract(distances_and_likelihood, normalise, data, count)
    return values[np.arange(len(labels)), labels], values[:, -1]
