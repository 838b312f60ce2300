"""The L-GM loss as one block, and what it and the center loss are measured against.

To be imported after training.machine.devices.prepare, since it imports mxnet.
"""

import numpy as np
from mxnet import nd
from mxnet.gluon import Block, HybridBlock, nn

from gmloss import GaussianMixture, LGMLoss


class MatrixLoss(HybridBlock):
    """gmloss, as one block: features and label to loss."""

    def __init__(self, classes, size):
        super().__init__()
        self.mixture, self.loss_fn = GaussianMixture(classes, size), LGMLoss()

    def hybrid_forward(self, F, x, label):
        distance, log_det = self.mixture(x)
        return self.loss_fn(distance, log_det, label)


class BroadcastLoss(HybridBlock):
    """The same loss by broadcasting over an array of (B, C, D)."""

    def __init__(self, classes, size):
        super().__init__()
        self._classes = classes
        self.mean = self.params.get('mean', shape=(classes, size))

    def scale(self, F, distance, variance):
        return distance

    def hybrid_forward(self, F, x, label, mean, variance=None):
        gap = F.broadcast_sub(F.expand_dims(x, axis=1), F.expand_dims(mean, axis=0))
        squared = F.sum(F.square(gap), axis=2) / 2
        distance = self.scale(F, squared, variance)
        own = F.one_hot(label, depth=self._classes)
        logits = -distance * (1 + 0.1 * own)
        return -F.pick(F.log_softmax(logits), label) + 0.1 * F.sum(squared * own, axis=1)


class BroadcastV6Loss(BroadcastLoss):
    """The published v6 form by broadcasting: another such array for the variances."""

    def __init__(self, classes, size):
        super().__init__(classes, size)
        self.variance = self.params.get('variance', shape=(classes, size), init='ones')

    def scale(self, F, distance, variance):
        return F.broadcast_mul(distance, F.sum(1 / (variance + 1e-8), axis=1).expand_dims(0))


class HostCountedCenterLoss(Block):
    """Center loss whose labels are counted on the host, as in both public implementations."""

    def __init__(self, classes, size):
        super().__init__()
        self._classes = classes
        self.centers = nn.Embedding(classes, size)

    def forward(self, x, label):
        counts = np.bincount(label.asnumpy().astype('int64'), minlength=self._classes)
        own_count = nd.take(nd.array(counts), label)
        gap = x - self.centers(label)
        return nd.sum(gap * gap, axis=1) / own_count / 2
