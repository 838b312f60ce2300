"""Center loss and classification by the nearest center."""

import numpy as np
from mxnet import init
from mxnet.gluon import HybridBlock, nn
from mxnet.gluon.loss import Loss

from gmloss.loss import weighted
from gmloss.margin import not_negative
from gmloss.mixture import check_sizes, half_squared_distance


class CenterLoss(Loss):
    r"""Pulls every feature towards the trained center of its class.

    .. math::
        L_i = \frac{\lambda}{2} \, \frac{\|x_i - c_{y_i}\|^2}{n_{y_i}}

    with :math:`n_k` the number of samples of class k in the batch, so that frequent classes do
    not outweigh rare ones. The counts come from comparing the labels with each other on the
    device: no host read, and a cost that hangs on the batch, not on the number of classes.
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

    Inputs:
        - **x**: features, shape (B, D), any float type; computed in float32.
        - **label**: class indices from 0 to C - 1 (not checked), shape (B,) or (B, 1), integer or
          float.
        - **sample_weight** (optional): shape (B,) or (B, 1), multiplies the losses, as in every
          Gluon loss.
        - **count** (optional): :math:`n_{y_i}` of each sample, shape (B,), for a batch of which
          other devices have other parts; counted among `label` if not given.

    Outputs:
        - **loss**: shape (B,).
    """

    def __init__(
        self,
        num_classes,
        feature_size,
        lmbd=1.0,
        center_initializer=None,
        sparse_grad=False,
        weight=None,
        **kwargs,
    ):
        super().__init__(weight, batch_axis=0, **kwargs)
        check_sizes(num_classes, feature_size)
        self._lmbd = not_negative('lmbd', lmbd)
        self._compute_dtype = 'float32'
        with self.name_scope():
            self.centers = nn.Embedding(
                num_classes,
                feature_size,
                sparse_grad=sparse_grad,
                weight_initializer=center_initializer or init.Xavier(magnitude=2.24),
            )

    def cast(self, dtype):
        """Cast to float32 or float64; for lower precisions the loss stays in float32."""
        self._compute_dtype = 'float64' if np.dtype(dtype) == np.float64 else 'float32'
        super().cast(self._compute_dtype)
        self.centers._kwargs['dtype'] = self._compute_dtype

    def hybrid_forward(self, F, x, label, sample_weight=None, count=None):
        label = F.reshape(F.cast(label, self._compute_dtype), (-1,))
        if count is None:
            same = F.broadcast_equal(F.expand_dims(label, axis=1), F.expand_dims(label, axis=0))
            count = F.dot(same, F.ones_like(label))  # sums rows faster than F.sum
        count = F.cast(count, self._compute_dtype)
        gap = F.elemwise_sub(F.cast(x, self._compute_dtype), self.centers(label))
        loss = F.elemwise_mul(F.sum(F.square(gap), axis=1), F.stop_gradient(self._lmbd / 2 / count))
        return weighted(F, loss, self._weight, sample_weight, self._compute_dtype)


class NearestCenter(HybridBlock):
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

    def __init__(self, center_loss, **kwargs):
        super().__init__(params=center_loss.centers.params, **kwargs)
        self.weight = self.params.get('weight')
        self._center_loss = lambda: center_loss  # as an attribute it would be a child

    def cast(self, dtype):
        self._center_loss().cast(dtype)
        super().cast(self._center_loss()._compute_dtype)

    def hybrid_forward(self, F, x, weight):
        return -half_squared_distance(F, F.cast(x, self._center_loss()._compute_dtype), weight)
