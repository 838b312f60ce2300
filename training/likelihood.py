"""How likely a trained mixture finds the images of both splits."""
import numpy as np
from mxnet import nd

from gmloss import calibrate, fit_spread, log_likelihood

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
        - likelihood_spread: of the training images, as gmloss.fit_spread has it.
        - likelihood_thresholds: for each false-alarm rate the log-likelihood, with that spread,
          below which so many of the validation images lie.

        Nothing where distances are no numbers, or negative, as those of variances that are.
    """
    dimensions = classifier.mixture.feature_size
    samples = [distances(classifier, normalise, data, SAMPLE) for data in (train_data, val_data)]
    own = [distance[np.arange(len(labels)), labels] for distance, _, labels in samples]
    usable = all(np.isfinite(values).all() and values.min() >= 0 for values in own)
    spread = fit_spread(own[0], dimensions) if usable else 1.0
    found = [log_likelihood(nd, nd.array(distance), nd.array(log_det), dimensions,
                            spread).asnumpy() for distance, log_det, _ in samples]
    figures.submit(folder.draw_likelihoods,
                   list(zip(('training set', 'validation set'), own, found)))
    if not usable:
        return {}
    return {'likelihood_spread': spread, 'likelihood_thresholds': {
        str(rate): round(calibrate(found[1], rate), 4) for rate in FALSE_ALARM_RATES}}


def distances(classifier, normalise, data, count):
    """Half squared distances of the first `count` images to every class.

    Parameters
    ----------
    classifier : gmloss.MixtureClassifier
    normalise, data, count
        As in training.loop.extract.

    Returns
    -------
    (array (N, C), array (C,), array (N,))
        Distances, log-determinants, labels.
    """
    def distances_and_log_det(images):
        distance, log_det = classifier.mixture(classifier.net(images))[:2]
        return nd.concat(distance, nd.broadcast_like(log_det.expand_dims(axis=0), distance), dim=1)

    values, labels = loop.extract(distances_and_log_det, normalise, data, count)
    distance, log_det = np.split(values, 2, axis=1)
    return distance, log_det[0], labels
