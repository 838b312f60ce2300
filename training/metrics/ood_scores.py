"""How well a score tells normal images from abnormal ones. Knows nothing of mxnet.

A score is higher for what looks normal. Normal images are the positive class throughout.
"""

import numpy as np

TPR_WANTED = 0.95


def scores(logits, distance=None, log_likelihood=None):
    """What a net's outputs say of how normal each image is.

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


def roc(normal, abnormal):
    """The ROC curve of a score.

    Parameters
    ----------
    normal, abnormal : array (N,), array (M,)
        Scores; may be infinite, not NaN.

    Returns
    -------
    (array (K,), array (K,), array (K,))
        False-positive rate, true-positive rate and precision as the threshold falls from one
        distinct score to the next. Before the first, no image is taken for normal.
    """
    values = np.concatenate([normal, abnormal])
    if not len(normal) or not len(abnormal) or np.isnan(values).any():
        raise ValueError('a ROC curve needs normal and abnormal scores, none of them NaN')
    order = np.argsort(-values, kind='stable')
    values, is_normal = values[order], order < len(normal)
    last_of_equals = np.append(values[1:] != values[:-1], True)
    kept = np.cumsum(is_normal)[last_of_equals]
    passed = np.cumsum(~is_normal)[last_of_equals]
    return passed / len(abnormal), kept / len(normal), kept / (kept + passed)


def measures(normal, abnormal):
    """AUROC, AUPR and FPR at 95 % TPR of a score; parameters as in :func:`roc`.

    Returns
    -------
    dict
        - auroc: the chance that a normal image has a higher score than an abnormal one; a tie
          counts half.
        - aupr: average precision.
        - fpr_at_95_tpr: share of abnormal images that pass at the highest threshold that 95 % of
          the normal ones pass.
    """
    false_positives, true_positives, precision = roc(normal, abnormal)
    heights = (true_positives + np.append(0, true_positives[:-1])) / 2
    return {
        'auroc': float(np.sum(np.diff(false_positives, prepend=0) * heights)),
        'aupr': float(np.sum(np.diff(true_positives, prepend=0) * precision)),
        'fpr_at_95_tpr': float(false_positives[np.argmax(true_positives >= TPR_WANTED)]),
    }
