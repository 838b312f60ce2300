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
    precision: Optional[Any] = None,
    isotropic: bool = False,
    log_det: Optional[Any] = None,
) -> Any:
    """Half the squared distance of every row of x (B, D) to every row of mean (C, D): (B, C).

    `precision` weights the dimensions: (C, D), or (C, 1) where `isotropic`. The distance to the
    likeliest class, by the log-determinants (C,), is computed directly, the others as in
    `expanded_distance`.
    """
    distance = expanded_distance(F, x, mean, precision, isotropic)
    logits = -distance if log_det is None else label_free_logits(F, distance, log_det)
    index = F.stop_gradient(F.argmax(logits, axis=1))
    own = direct_distance(F, x, mean, precision, index, isotropic)
    classes = F.contrib.arange_like(distance, axis=1)  # these operators can be exported to ONNX
    likeliest = F.broadcast_equal(F.expand_dims(index, axis=1), F.expand_dims(classes, axis=0))
    return F.elemwise_add(distance, F.elemwise_mul(likeliest, F.broadcast_sub(own, distance)))


def distances_with_own(
    F: Any, x: Any, mean: Any, precision: Optional[Any], isotropic: bool, index: Any
) -> tuple[Any, Any]:
    """As in `half_squared_distance`, (B, C), and the distance to the class of `index` (B,), (B,).

    Only the latter is computed directly. Features that are no numbers, or too large to be squared,
    make it NaN; they get no gradient, nor do the means from them, if the loss leaves them out.
    """
    zero = F.stop_gradient(F.square(x) * 0)  # NaN where there is no square
    x = F.where(zero == 0, x, F.zeros_like(x))
    own = direct_distance(F, x, mean, precision, index, isotropic)
    own = F.reshape(F.elemwise_add(own, row_sums(F, zero)), (-1,))
    return expanded_distance(F, x, mean, precision, isotropic), own


def label_free_logits(F: Any, distance: Any, log_det: Any) -> Any:
    """``-distance - log_det / 2`` for distance (B, C) and log_det (C,); shape (B, C)."""
    return F.elemwise_sub(
        F.dot(first_column_of_ones(F, distance), F.expand_dims(log_det / -2, axis=0)), distance
    )


def direct_distance(F, x, mean, precision, index, isotropic):
    """Half the squared distance of each row to the mean of its class `index`, (B, 1)."""
    squares = F.square(F.elemwise_sub(x, F.take(mean, index)))
    if precision is not None and not isotropic:
        squares = F.elemwise_mul(squares, F.take(precision, index))
    own = row_sums(F, squares) / 2
    return F.elemwise_mul(own, F.take(precision, index)) if precision is not None and isotropic else own


def expanded_distance(F, x, mean, precision, isotropic):
    """Half squared distances (B, C) by products of matrices.

    Expanding the square cancels digits: that leaves an error of about 1e-7 times precision times the
    squared distance of features and means from the mean of all means, to which everything is shifted.
    """
    batch_ones, class_ones = (first_column_of_ones(F, a) for a in (x, mean))
    # The distance does not depend on the shift, so no gradient is sent through it.
    to_origin = F.stop_gradient(
        F.broadcast_div(
            F.dot(class_ones, mean, transpose_a=True), -F.dot(class_ones, class_ones, transpose_a=True)
        )
    )
    x = F.elemwise_add(x, F.stop_gradient(F.dot(batch_ones, to_origin)))
    mean = F.elemwise_add(mean, F.stop_gradient(F.dot(class_ones, to_origin)))
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
    return clipped(F, squares - F.dot(x, weighted, transpose_b=True))


def replaced(F, values, index, new):
    """`values` (B, C) with `new` (B,) in the columns `index` (B,), by one pass over (B, C) each way."""
    position = F.broadcast_mul(F.contrib.arange_like(index), last_class(F, values) + 1) + index
    flat = F.contrib.index_copy(F.reshape(values, (-1,)), F.stop_gradient(position), new)
    return F.reshape_like(flat, values)


def last_class(F, values):
    """C - 1 for `values` (B, C), as float64 (1,), whose integers are exact."""
    row = F.cast(F.slice_axis(values, axis=0, begin=0, end=1), 'float64')
    return F.stop_gradient(F.slice_axis(F.contrib.arange_like(row, axis=1), axis=0, begin=-1, end=None))


def row_sums(F, values):
    """Sums of the rows of (N, D), as (N, 1)."""
    row = F.slice_axis(values, axis=0, begin=0, end=1)
    return F.dot(values, F.reshape(F.ones_like(row), (-1, 1)))


def first_column_of_ones(F, values):
    """Ones (N, 1) for `values` (N, D)."""
    return F.ones_like(F.slice_axis(values, axis=1, begin=0, end=1))


def clipped(F, distance):
    """Rounding errors below 0 as 0, with the gradient as it is, which is correct there too."""
    return distance + F.stop_gradient(F.relu(-distance))
