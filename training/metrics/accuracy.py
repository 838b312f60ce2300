"""Accuracy and features over a whole split."""

from collections import deque
from typing import Callable, Optional

import numpy as np
from mxnet import nd
from mxnet.gluon import HybridBlock

from training.data.batches import DeviceData

STEPS_IN_FLIGHT = 4  # bounds memory, without idling the engine


def accuracies(
    classifier: HybridBlock, normalise: Callable, data: DeviceData, tell_label: bool = False
) -> list[float]:
    """Top-1 accuracy over a DeviceData; one host read, at the end.

    Parameters
    ----------
    classifier : block
        Normalised images to logits, or to several of them.
    normalise : callable
        uint8 images to inputs.
    data : DeviceData
    tell_label : bool
        Give the classifier the labels too: for training.losses.classifiers.LabelledClassifier.

    Returns
    -------
    list of float
        One accuracy for each of the classifier's outputs.
    """
    right = [0.0] * len(data.contexts)
    in_flight: deque = deque()
    share = data.workers.share(data.count)
    for number, start in enumerate(range(share.start, share.stop, data.images.batch)):
        device = number % len(data.contexts)
        here = slice(start, min(start + data.images.batch, share.stop))
        labels = data.labels[device][here].astype('float32')
        told = (labels,) if tell_label else ()
        outputs = classifier(normalise(data.images.part(device, here)), *told)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        hits = [(logits.argmax(axis=1) == labels).sum() for logits in outputs]
        right[device] = right[device] + nd.concat(*hits, dim=0)
        in_flight.append(outputs[0])
        if len(in_flight) > STEPS_IN_FLIGHT:
            in_flight.popleft().wait_to_read()
    totals = sum(count.asnumpy() for count in right if isinstance(count, nd.NDArray))
    return [float(total) / data.count for total in data.workers.sum(totals)]


def extract_features(
    net: Callable, normalise: Callable, data: DeviceData, count: Optional[int] = None
) -> tuple[np.ndarray, ...]:
    """Features and labels of the first `count` images of a DeviceData, as NumPy arrays.

    Parameters
    ----------
    net : callable
        Normalised images to features (B, D), or to several such arrays.
    normalise : callable
        uint8 images to inputs.
    data : DeviceData
    count : int or None
        None takes all.

    Returns
    -------
    (array (N, D), ..., array (N,))
        What the net gives, and the labels.
    """
    count = min(count or data.count, data.count)
    parts = [
        net(normalise(data.images.part(0, slice(start, min(start + data.images.batch, count)))))
        for start in range(0, count, data.images.batch)
    ]
    columns = zip(*(part if isinstance(part, (list, tuple)) else [part] for part in parts))
    arrays = [np.concatenate([part.asnumpy() for part in column]) for column in columns]
    return (*arrays, data.labels[0][:count].asnumpy())
