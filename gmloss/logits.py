"""Logits with a margin."""

from typing import Any

from .distance import label_free_logits


def margin_logits(
    F: Any, distance: Any, log_det: Any, target: Any, margin: Any, margin_add: float = 0.0
) -> Any:
    """Logits (B, C) with the margin shared out by the target (B, C), which gets no gradient; from
    distance (B, C), log_det (C,) and the multiplicative margin (1,)."""
    stretch = F.stop_gradient(F.broadcast_mul(target, margin) + 1)
    logits = label_free_logits(F, F.elemwise_mul(distance, stretch), log_det)
    return logits - F.stop_gradient(target * margin_add) if margin_add else logits


def one_hot(F: Any, label: Any, like: Any) -> Any:
    """The one-hot form (B, C) of class indices (B,) of the same dtype as `like` (B, C)."""
    classes = F.contrib.arange_like(like, axis=1)
    return F.broadcast_equal(F.expand_dims(label, axis=1), F.expand_dims(classes, axis=0))


def replaced(F: Any, values: Any, index: Any, new: Any, num_classes: Any) -> Any:
    """`values` (B, C) with `new` (B,) in the columns `index` (B,), by one pass over (B, C) each way."""
    row = F.contrib.arange_like(index)
    start = row * num_classes if isinstance(num_classes, int) else F.broadcast_mul(row, num_classes)
    flat = F.contrib.index_copy(F.reshape(values, (-1,)), F.elemwise_add(start, index), new)
    return F.reshape_like(flat, values)


def columns(F: Any, values: Any) -> Any:
    """C for `values` (B, C), as float64 (1,), whose integers are exact."""
    return F.cast(F.slice_axis(F.shape_array(values), axis=0, begin=1, end=2), 'float64')
