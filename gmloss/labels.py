"""Class indices: exact, ignored or impossible, without a read by the host."""

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
from mxnet import nd
from mxnet.ndarray import NDArray


def exact(F: Any, label: Any, dtype: str = 'float64') -> Any:
    """Labels (B,) or (B, 1) of any type as `dtype` (B,); float64 holds integers up to 2^53 exactly."""
    return F.reshape(F.cast(label, dtype), (-1,))


def class_index(F: Any, label: Any, last: Any, dtype: str = 'float64') -> tuple[Any, Any]:
    """Which labels are one of the classes 0 to `last`, a number or (1,); and those, or 0: both (B,)."""
    label = exact(F, label, dtype)
    if isinstance(last, int) and last <= 2**24:  # F.clip rounds its limits to float32
        nearest = F.clip(F.floor(label), 0, last)
    else:
        whole = F.relu(F.floor(label))
        nearest = F.minimum(whole, last) if isinstance(last, int) else F.broadcast_minimum(whole, last)
    possible = nearest == label
    return possible, F.where(possible, label, possible)


def is_trained(F: Any, label: Any, ignore_label: Optional[int], sample_weight: Any) -> Any:
    """1 where a sample counts, 0 where its label is ignored or its weight 0; (B,), or None for all."""
    conditions = [] if ignore_label is None else [exact(F, label) != ignore_label]
    if sample_weight is not None:
        conditions.append(F.cast(F.reshape(sample_weight, (-1,)), 'float64') != 0)
    if not conditions:
        return None
    return conditions[0] if len(conditions) == 1 else F.elemwise_mul(*conditions)


def rows_of(F: Any, trained: Any, values: Any) -> Any:
    """`values` (B,) or (B, N) with 0, and no gradient, in rows that are not trained; see `is_trained`."""
    return values if trained is None else F.where(trained, values, F.zeros_like(values))


def refused(F: Any, loss: Any, possible: Any) -> Any:
    """A loss (B,) with NaN, and no gradient, where the label is not `possible` (B,)."""
    return F.where(possible, loss, F.zeros_like(loss) / 0)


def check_labels(labels: Any, num_classes: int, ignore_label: Optional[int] = None) -> None:
    """ValueError that names the first label that is no class; for debugging, as the host reads the labels.

    The losses themselves give NaN for such a sample, since a check would make every step wait.

    Parameters
    ----------
    labels : NDArray or array
        Class indices, of any shape.
    num_classes : int
    ignore_label : int or None
        A label that is allowed besides.
    """
    values = labels.asnumpy() if isinstance(labels, NDArray) else np.asarray(labels)
    values = values.reshape(-1)
    with np.errstate(invalid='ignore'):
        wrong = ~((values >= 0) & (values < num_classes) & (np.floor(values) == values))
    if ignore_label is not None:
        wrong &= values != ignore_label
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            f'label {values[first]} of sample {first} is not a class from 0 to {num_classes - 1}'
            + ('' if ignore_label is None else f', nor the ignored label {ignore_label}')
        )


def class_counts(labels: Sequence[NDArray], ignore_label: Optional[int] = None) -> list[NDArray]:
    """How many samples of a whole batch have the class of each sample, for every part of the batch.

    What :class:`center_loss.CenterLoss` needs as its input `count` where a batch is split over
    devices or over micro-batches whose gradients are added up. Computed on the devices: no host read.

    Parameters
    ----------
    labels : sequence of NDArray
        Class indices of each part, (B_i,) or (B_i, 1), on any contexts; the parts may be of any sizes.
    ignore_label : int or None
        Label of samples that do not count.

    Returns
    -------
    list of NDArray
        Counts (B_i,) in float32, each on the context of its labels.
    """
    indices = [exact(nd, part) for part in labels]
    counts = []
    for own in indices:
        everyone = nd.concat(*(part.as_in_context(own.ctx) for part in indices), dim=0)
        used = nd.ones_like(everyone) if ignore_label is None else everyone != ignore_label
        counts.append(nd.maximum(nd.cast(same_class(nd, own, everyone, used), 'float32'), 1))
    return counts


def same_class(F: Any, own: Any, everyone: Any, used: Any) -> Any:
    """How many of `everyone` (N,), where `used` (N,) is 1, have the class of each of `own` (B,); (B,)."""
    same = F.broadcast_equal(F.expand_dims(own, axis=1), F.expand_dims(everyone, axis=0))
    return F.dot(same, used)  # sums rows faster than F.sum does
