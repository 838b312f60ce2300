"""Features of a trained net: extracted, averaged by class."""
import numpy as np

from .loop import EVALUATION_BATCH


def extract(net, normalise, data, count=None):
    """Features and labels of the first `count` images of a DeviceData, as NumPy arrays.

    Parameters
    ----------
    net : callable
        Normalised images to features (B, D).
    normalise : block
    data : training.loop.DeviceData
    count : int or None
        None takes all.

    Returns
    -------
    (array (N, D), array (N,))
    """
    count = min(count or data.count, data.count)
    parts = [net(normalise(data.images[0][start:min(start + EVALUATION_BATCH, count)]))
             for start in range(0, count, EVALUATION_BATCH)]
    return np.concatenate([part.asnumpy() for part in parts]), data.labels[0][:count].asnumpy()


def class_means(features, labels, num_classes):
    """Mean feature of each class, (C, D); NaN for a class without samples."""
    member = np.equal(labels, np.arange(num_classes)[:, None]).astype(features.dtype)
    with np.errstate(invalid='ignore'):
        return member @ features / member.sum(axis=1, keepdims=True)
