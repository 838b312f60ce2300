"""Center loss and classification by the nearest center."""

from collections.abc import Iterable
from typing import Any, Optional

import numpy as np
from mxnet import init
from mxnet.gluon import nn
from mxnet.gluon.loss import Loss

from gmloss.blocks import CheckedBlock
from gmloss.distance import half_squared_distance
from gmloss.labels import class_index, exact, is_trained, refused, rows_of, same_class
from gmloss.loss import weighted
from gmloss.margin import not_negative


class CenterLoss(CheckedBlock, Loss):
    r"""Pulls every feature towards the trained center of its class.

    .. math::
        L_i = \frac{\lambda}{2} \, \frac{\|x_i - c_{y_i}\|^2}{n_{y_i}}

    with :math:`n_k` the number of samples of class k in the batch, so that frequent classes do
    not outweigh rare ones. The counts come from comparing the labels with each other on the
    device: no host read, and a cost that depends on the batch, not on the number of classes.
    Source: Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition"
    (ECCV 2016), in the form of Center_Loss_in_MXNet, which keeps the centers in an embedding. The
    paper's loss has no :math:`n`: its lambda is about lmbd C / B for batches of B. As a Trainer
    divides by B too, a learning rate of alpha moves a center by lmbd alpha / B of its gap; the
    paper's alpha moves it by nearly alpha.

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

    def hybrid_forward(self, F, x, label, sample_weight=None, count=None):
        trained = is_trained(F, label, self._ignore_label, sample_weight)
        possible, index = class_index(F, label, self._num_classes - 1)
        if count is None:
            everyone = exact(F, label)
            count = same_class(F, everyone, everyone, self._ignore_label)
        count = F.maximum(F.cast(count, self._compute_dtype), 1)
        x = rows_of(F, trained, F.cast(x, self._compute_dtype))
        gap = rows_of(F, trained, F.elemwise_sub(x, self.centers(index)))
        loss = F.elemwise_mul(F.sum(F.square(gap), axis=1), F.stop_gradient(self._lmbd / 2 / count))
        loss = rows_of(F, trained, weighted(F, loss, self._weight, sample_weight, self._compute_dtype))
        if self._ignore_label is not None:
            possible = F.broadcast_maximum(possible, exact(F, label) == self._ignore_label)
        return refused(F, loss, possible)


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

    def hybrid_forward(self, F, x, weight):
        return -half_squared_distance(F, F.cast(x, self._center_loss._compute_dtype), weight)
