"""Center loss and classification by the nearest center."""

from collections.abc import Iterable, Sequence
from typing import Any, Optional, Union

import numpy as np
from mxnet import autograd, init, nd
from mxnet.gluon import nn
from mxnet.gluon.loss import Loss

from gmloss.blocks import CheckedBlock
from gmloss.distance import half_squared_distance
from gmloss.labels import class_index, exact, is_trained, refused, rows_of, same_class
from gmloss.loss import weighted
from gmloss.margin import not_negative
from gmloss.metrics import FeatureMetric

FEW = 256  # classes, up to which a batch is counted by class rather than by pairs of samples
Parts = Union[nd.NDArray, Sequence[nd.NDArray]]


class CenterLoss(CheckedBlock, Loss):
    r"""Pulls every feature towards the trained center of its class.

    .. math::
        L_i = \frac{\lambda}{2} \, \frac{\|x_i - c_{y_i}\|^2}{n_{y_i}}

    with :math:`n_k` the number of samples of class k in the batch, so that frequent classes do
    not outweigh rare ones. The counts come from comparing the labels with each other on the
    device: no host read, and a cost that depends on the batch, not on the number of classes.
    Source: Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition"
    (ECCV 2016), in the form of Center_Loss_in_MXNet, which keeps the centers in an embedding. The
    paper's loss has no :math:`n`: its lambda is about lmbd C / B for batches of B.

    A Trainer divides by B, so a learning rate of alpha moves a center by only lmbd alpha / B of its
    gap in a step: with lmbd 0.003, alpha 0.5 and B 64 by 2.3 % in 1,000 steps. Take alpha = 0.5 B / lmbd
    to close half the gap in each, or `move_centers`, which does not depend on lmbd and B. An lmbd
    whose gradient outweighs that of the classifier (100, say) makes the features diverge: start
    at 1, and go down by factors of 10 if the loss is NaN.

    Parameters
    ----------
    num_classes : int
        Number of classes C.
    feature_size : int
        Feature dimension D.
    lmbd : float, default 1
        Weight :math:`\lambda`, at least 0.
    center_initializer : str or Initializer, default Xavier(magnitude=2.24)
        Initialises the centers, shape (C, D).
    sparse_grad : bool, default False
        Gradients of the centers as row_sparse arrays, for very many classes; the optimizer must
        support them (SGD, AdaGrad, Adam).
    lr_mult, wd_mult : float, default 1
        Multipliers of the trainer's learning rate and weight decay for the centers. Decay shrinks the
        centers of classes that are absent from a batch too: give 0 where the trainer has any.
    weight : float or None
        Scales the loss, as in every Gluon loss.
    ignore_label : int or None
        Samples of this label have loss 0, send no gradient, whatever their features are, and do not
        count in :math:`n`.

    Inputs:
        - **x**: features, shape (B, D), any float type; computed in float32.
        - **label**: class indices from 0 to C - 1, shape (B,) or (B, 1), integer or float; the loss of
          any other is NaN (`gmloss.check_labels` finds it).
        - **sample_weight** (optional): shape (B,) or (B, 1), multiplies the losses, as in every
          Gluon loss; a sample with weight 0 has no part in the gradient, whatever its features are.
        - **count** (optional): :math:`n_{y_i}` of each sample in the whole batch, shape (B,). Without
          it each call counts among its own labels alone, so that the parts of a batch that is split
          over devices, workers or micro-batches weigh more than the whole would: give them
          `class_counts` of their labels.

    Outputs:
        - **loss**: shape (B,).
    """

    def __init__(
        self,
        num_classes: int,
        feature_size: int,
        lmbd: float = 1.0,
        center_initializer: Any = None,
        sparse_grad: bool = False,
        lr_mult: float = 1.0,
        wd_mult: float = 1.0,
        weight: Optional[float] = None,
        ignore_label: Optional[int] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(weight, batch_axis=0, **kwargs)
        if num_classes < 1 or feature_size < 1:
            raise ValueError(
                f'num_classes and feature_size must be at least 1, got {num_classes} and {feature_size}'
            )
        self._num_classes, self._feature_size, self._ignore_label = num_classes, feature_size, ignore_label
        self._lmbd = not_negative('lmbd', lmbd)
        self._compute_dtype = 'float32'
        with self.name_scope():
            self.centers = nn.Embedding(
                num_classes,
                feature_size,
                sparse_grad=sparse_grad,
                weight_initializer=center_initializer or init.Xavier(magnitude=2.24),
            )
        self.centers.weight.lr_mult, self.centers.weight.wd_mult = lr_mult, wd_mult

    def cast(self, dtype: Any) -> None:
        """Cast to float32 or float64; for lower precisions the loss stays in float32."""
        self._compute_dtype = 'float64' if np.dtype(dtype) == np.float64 else 'float32'
        super().cast(self._compute_dtype)
        self.centers._kwargs['dtype'] = self._compute_dtype

    def expected_shapes(
        self, x: Any, label: Any, sample_weight: Any = None, count: Any = None
    ) -> Iterable[tuple]:
        one_each = [x.shape[:1], (*x.shape[:1], 1)]
        yield 'features', x, [(None, self._feature_size)]
        yield 'label', label, one_each
        yield 'sample_weight', sample_weight, one_each
        yield 'count', count, one_each[:1]

    def __repr__(self) -> str:
        return f'CenterLoss({self._feature_size} -> {self._num_classes}, lmbd={self._lmbd})'

    def move_centers(self, features: Parts, labels: Parts, alpha: float = 0.5) -> None:
        r"""Move the centers as the paper does, without an optimizer, a gradient or a host read.

        .. math:: c_k \leftarrow c_k - \alpha \, \frac{\sum_{y_i = k} (c_k - x_i)}{1 + n_k}

        Call it after the backward pass, and give the centers to no Trainer. Source: Wen et al.
        (ECCV 2016), equation 4 and algorithm 1.

        Parameters
        ----------
        features : NDArray (B, D), or list of them
            Of the whole batch, or of its parts on several contexts.
        labels : NDArray (B,), or list of them
        alpha : float, default 0.5
            From 0 to 1.
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f'alpha must be 0 to 1, got {alpha}')
        if isinstance(labels, nd.NDArray):
            features, labels = [features], [labels]
        with autograd.pause():
            for centers in self.centers.weight.list_data():
                x, label = (
                    nd.concat(*(part.as_in_context(centers.ctx).astype(dtype) for part in parts), dim=0)
                    for parts, dtype in (
                        (features, self._compute_dtype),
                        ([exact(nd, part) for part in labels], 'float64'),
                    )
                )
                used, index = class_index(nd, label, self._num_classes - 1)
                if self._ignore_label is not None:
                    used = used * (label != self._ignore_label)
                # Of samples that are left out, too, each row is its class's new center: none differ.
                same = nd.broadcast_equal(index.expand_dims(1), index.expand_dims(0))
                same = nd.broadcast_mul(same, used.expand_dims(0)).astype(self._compute_dtype)
                count = nd.sum(same, axis=1, keepdims=True)
                own = nd.take(centers, index)
                gaps = nd.broadcast_mul(own, count) - nd.dot(same, rows_of(nd, used, x))
                new = own - alpha * nd.broadcast_div(gaps, count + 1)
                nd._internal._scatter_set_nd(
                    lhs=centers, rhs=new, indices=index.expand_dims(0), shape=centers.shape, out=centers
                )

    def hybrid_forward(self, F: Any, x: Any, label: Any, sample_weight: Any = None, count: Any = None) -> Any:
        # float32 holds the classes exactly up to 2^24, and takes half the time.
        dtype = 'float64' if self._num_classes > 2**24 else self._compute_dtype
        trained = is_trained(F, label, self._ignore_label, sample_weight)
        possible, index = class_index(F, label, self._num_classes - 1, dtype)
        ignored = None if self._ignore_label is None else exact(F, label, dtype) == self._ignore_label
        if count is None:
            used = possible if ignored is None else F.elemwise_mul(possible, 1 - ignored)
            if self._num_classes <= FEW:
                classes = F.one_hot(index, depth=self._num_classes, dtype=dtype)
                count = F.dot(classes, F.dot(classes, used, transpose_a=True))
            else:
                count = same_class(F, index, index, used)
        count = F.maximum(F.cast(count, self._compute_dtype), 1)
        x = rows_of(F, trained, F.cast(x, self._compute_dtype))
        gap = rows_of(F, trained, F.elemwise_sub(x, self.centers(index)))
        loss = F.elemwise_mul(F.sum(F.square(gap), axis=1), F.stop_gradient(self._lmbd / 2 / count))
        loss = rows_of(F, trained, weighted(F, loss, self._weight, sample_weight, self._compute_dtype))
        return refused(F, loss, possible if ignored is None else F.broadcast_maximum(possible, ignored))


class NearestCenter(CheckedBlock):
    """Classifies features by their nearest center (Center_Loss_in_MXNet's "KNN search").

    Parameters
    ----------
    center_loss : CenterLoss
        Whose centers to share, and with whose parameters they are saved. Cast this block, not the
        loss, once it has run hybridised; both are cast together.

    Inputs:
        - **x**: features, shape (B, D).

    Outputs:
        - **logits**: minus half the squared distance to each center, shape (B, C); argmax is the
          nearest one.
    """

    def __init__(self, center_loss: CenterLoss, **kwargs: Any) -> None:
        super().__init__(params=center_loss.centers.params, **kwargs)
        self.weight = self.params.get('weight')
        self.__dict__['_center_loss'] = center_loss  # set as usual, it would be a child

    def cast(self, dtype: Any) -> None:
        self._center_loss.cast(dtype)
        super().cast(self._center_loss._compute_dtype)

    def expected_shapes(self, x: Any) -> Iterable[tuple]:
        yield 'features', x, [(None, self._center_loss._feature_size)]

    def __repr__(self) -> str:
        return f'NearestCenter({self._center_loss})'

    def hybrid_forward(self, F: Any, x: Any, weight: Any) -> Any:
        x = F.cast(x, self._center_loss._compute_dtype)
        return -half_squared_distance(F, x, weight, self._center_loss._num_classes)


class NearestCenterAccuracy(FeatureMetric):
    """Share of samples whose features lie nearest to the center of their class.

    Parameters
    ----------
    center_loss : CenterLoss
        Whose centers to use.
    name : str
    ignore_label : int or None
        Label of samples that do not count.
    """

    def __init__(
        self, center_loss: CenterLoss, name: str = 'nearest-center', ignore_label: Optional[int] = None
    ) -> None:
        super().__init__(NearestCenter(center_loss), name, ignore_label)

    def of_samples(self, features: nd.NDArray, label: nd.NDArray) -> nd.NDArray:
        return nd.argmax(self._block(features), axis=1).astype('float64') == label
