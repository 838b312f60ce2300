"""How well a score tells test images from out-of-distribution ones. Knows nothing of mxnet.

A score is higher for what looks like the training data. Test images are the positive class throughout.
"""

from typing import Optional

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

TPR_WANTED = 0.95


def scores(
    logits: np.ndarray, distance: Optional[np.ndarray] = None, log_likelihood: Optional[np.ndarray] = None
) -> dict[str, np.ndarray]:
    """What a net's outputs say of how likely each image is.

    Parameters
    ----------
    logits : array (N, C)
    distance : array (N, C) or None
        Half squared distances to every class.
    log_likelihood : array (N,) or None

    Returns
    -------
    dict of str to array (N,)
        - max_softmax: the log-odds of the predicted class. They order images as its probability
          does, but do not round to one number where that is near 1.
        - own_class_distance: minus the distance to the predicted class.
        - log_likelihood, and log_likelihood_as_trained: under the mixture with a spread of 1, but
          for a constant.
    """
    logits = np.asarray(logits, np.float64)
    predicted = logits.argmax(axis=1)[:, None]
    others = logits.copy()
    np.put_along_axis(others, predicted, -np.inf, axis=1)
    result = {}
    if log_likelihood is not None:
        result['log_likelihood'] = log_likelihood
        result['log_likelihood_as_trained'] = np.logaddexp.reduce(logits, axis=1)
    if distance is not None:
        result['own_class_distance'] = -np.take_along_axis(distance, predicted, axis=1)[:, 0]
    result['max_softmax'] = logits.max(axis=1) - np.logaddexp.reduce(others, axis=1)
    return result


def labelled_ranks(in_distribution: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and ranks of scores, for scikit-learn, which takes no infinite ones.

    Parameters
    ----------
    in_distribution, others : array (N,), array (M,)
        Scores; may be infinite, not NaN.

    Returns
    -------
    (bool array (N + M,), int array (N + M,))
        Equal scores have equal ranks.
    """
    values = np.concatenate([in_distribution, others])
    if not len(in_distribution) or not len(others) or np.isnan(values).any():
        raise ValueError('a ROC curve needs scores of test images and of others, none of them NaN')
    return np.arange(len(values)) < len(in_distribution), np.unique(values, return_inverse=True)[1]


def roc(in_distribution: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-positive rates, (K,) each, as the threshold falls; see :func:`labelled_ranks`."""
    return roc_curve(*labelled_ranks(in_distribution, others), drop_intermediate=False)[:2]


def measures(in_distribution: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """AUROC, AUPR and FPR at 95 % TPR of a score; parameters as in :func:`labelled_ranks`.

    Returns
    -------
    dict
        - auroc: the chance that a test image has a higher score than another one; a tie counts half.
        - aupr: average precision.
        - fpr_at_95_tpr: share of the others that pass at the highest threshold that 95 % of the test
          images pass.
    """
    labels, ranks = labelled_ranks(in_distribution, others)
    false_positives, true_positives = roc(in_distribution, others)
    return {
        'auroc': float(roc_auc_score(labels, ranks)),
        'aupr': float(average_precision_score(labels, ranks)),
        'fpr_at_95_tpr': float(false_positives[np.argmax(true_positives >= TPR_WANTED)]),
    }
