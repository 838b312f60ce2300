"""Distances of features to means, without a (B, C, D) array.

Rows are summed and repeated by products with ones, which MXNet does several times faster, backward
above all, than by its reductions and broadcasts. `elemwise_add` and `elemwise_sub` refuse features
of another size, where + would repeat those of size 1.
"""

from typing import Any, Optional


def half_squared_distance(
    F: Any,
    x: Any,
    mean: Any,
    num_classes: int,
    precision: Optional[Any] = None,
    isotropic: bool = False,
    log_det: Optional[Any] = None,
) -> Any:
    """Half the squared distance of every row of x (B, D) to every row of mean (C, D): (B, C).

    `precision` weights the dimensions: (C, D), or (C, 1) where `isotropic`. The distance to the
    likeliest class, by the log-determinants (C,), is computed directly, the others as in
    `expanded_distance`.
    """
    distance = F.relu(expanded_distance(F, x, mean, num_classes, precision, isotropic))
    if log_det is None:
        index = F.argmin(F.stop_gradient(distance), axis=1)
    else:
        index = F.argmax(F.stop_gradient(label_free_logits(F, distance, log_det)), axis=1)
    nearest = None if precision is None else F.take(precision, index)
    own = direct_distance(F, x, F.take(mean, index), nearest, isotropic)
    row = F.ones_like(F.slice_axis(distance, axis=0, begin=0, end=1))
    own = F.dot(F.expand_dims(own, axis=1), row)
    return F.where(F.one_hot(index, depth=num_classes), own, distance)


def distances_with_own(
    F: Any, x: Any, mean: Any, num_classes: int, precision: Optional[Any], isotropic: bool, index: Any
) -> tuple[Any, Any]:
    """As in `half_squared_distance`, (B, C), and the distance to the class of `index` (B,), (B,).

    Only the latter is computed directly. So is its gradient where there are variances, whose gradients
    would be lost otherwise; those of features and means are accurate in the expanded form, and cost less.
    """
    distance = expanded_distance(F, x, mean, num_classes, precision, isotropic)
    if precision is None:
        expanded = F.pick(distance, index)
        direct = direct_distance(F, F.stop_gradient(x), F.stop_gradient(F.take(mean, index)), None)
        own = F.elemwise_add(direct, F.elemwise_sub(expanded, F.stop_gradient(expanded)))
    else:
        own = direct_distance(F, x, F.take(mean, index), F.take(precision, index), isotropic)
    return F.relu(distance), own


def label_free_logits(F: Any, distance: Any, log_det: Optional[Any]) -> Any:
    """``-distance - log_det / 2`` for distance (B, C) and log_det (C,), or None for zeros; shape (B, C)."""
    if log_det is None:
        return -distance
    return F.elemwise_sub(
        F.dot(first_column_of_ones(F, distance), F.expand_dims(log_det / -2, axis=0)), distance
    )


def direct_distance(F: Any, x: Any, mean: Any, precision: Any, isotropic: bool = False) -> Any:
    """Half the squared distance of each row of x (B, D) to that of mean (B, D), (B,)."""
    squares = F.square(F.elemwise_sub(x, mean))
    if precision is not None and not isotropic:
        squares = F.elemwise_mul(squares, precision)
    own = F.reshape(row_sums(F, squares), (-1,)) / 2
    return F.elemwise_mul(own, F.reshape(precision, (-1,))) if isotropic else own


def expanded_distance(F: Any, x: Any, mean: Any, num_classes: int, precision: Any, isotropic: bool) -> Any:
    """Half squared distances (B, C) by products of matrices.

    Expanding the square cancels digits, below 0 too: that leaves an error of about 1e-7 times precision
    times the squared distance of features and means from the mean of the first 64 means, to which
    everything is shifted.
    """
    batch_ones, class_ones = (first_column_of_ones(F, a) for a in (x, mean))
    # The distance does not depend on the shift, so no gradient is sent through it.
    count = min(num_classes, 64)
    first = mean if count == num_classes else F.slice_axis(mean, axis=0, begin=0, end=count)
    total = F.dot(first_column_of_ones(F, first), first, transpose_a=True)
    to_origin = F.stop_gradient(total * (-1 / count))
    x = F.elemwise_add(x, F.dot(batch_ones, to_origin))
    mean = F.elemwise_add(mean, F.dot(class_ones, to_origin))
    per_class = class_ones
    if precision is None:
        weighted = mean
    elif isotropic:
        per_class, weighted = precision, F.elemwise_mul(mean, F.dot(precision, F.ones_like(to_origin)))
    else:
        weighted = F.elemwise_mul(mean, precision)
    mean_squares = F.square(mean) if precision is None else F.elemwise_mul(mean, weighted)
    mean_squares = row_sums(F, mean_squares) / 2
    if precision is None or isotropic:
        squares = F.dot(
            F.concat(row_sums(F, F.square(x)) / 2, batch_ones, dim=1),
            F.concat(per_class, mean_squares, dim=1),
            transpose_b=True,
        )
    else:
        squares = F.dot(F.square(x) / 2, precision, transpose_b=True) + F.dot(
            batch_ones, mean_squares, transpose_b=True
        )
    return F.elemwise_sub(squares, F.dot(x, weighted, transpose_b=True))


def row_sums(F: Any, values: Any) -> Any:
    """Sums of the rows of (N, D), as (N, 1)."""
    row = F.slice_axis(values, axis=0, begin=0, end=1)
    return F.dot(values, F.reshape(F.ones_like(row), (-1, 1)))


def first_column_of_ones(F: Any, values: Any) -> Any:
    """Ones (N, 1) for `values` (N, D)."""
    return F.ones_like(F.slice_axis(values, axis=1, begin=0, end=1))
