"""What the L-GM loss and the center loss are measured against.

To be imported after training.machine.devices.prepare, since it imports mxnet.
"""

import numpy as np
from mxnet import nd
from mxnet.gluon import Block, HybridBlock, nn

from gmloss import DiagonalMixture, FixedVolumeMixture, GaussianMixture, GaussianMixtureLoss


class BroadcastLoss(HybridBlock):
    """The same loss by broadcasting over an array of (B, C, D)."""

    def __init__(self, classes, size):
        super().__init__()
        self._classes = classes
        self.mean = self.params.get('mean', shape=(classes, size))

    def scale(self, F, distance, variance):
        return distance

    def squared(self, F, x, mean):
        gap = F.broadcast_sub(F.expand_dims(x, axis=1), F.expand_dims(mean, axis=0))
        return F.sum(F.square(gap), axis=2) / 2

    def hybrid_forward(self, F, x, label, mean, variance=None):
        squared = self.squared(F, x, mean)
        own = F.one_hot(label, depth=self._classes)
        logits = -self.scale(F, squared, variance) * (1 + 0.1 * own)
        return -F.pick(F.log_softmax(logits), label) + 0.1 * F.sum(squared * own, axis=1)


class BroadcastV6Loss(BroadcastLoss):
    """The published v6 form by broadcasting: another such array for the variances."""

    def __init__(self, classes, size):
        super().__init__(classes, size)
        self.variance = self.params.get('variance', shape=(classes, size), init='ones')

    def scale(self, F, distance, variance):
        return F.broadcast_mul(distance, F.sum(1 / (variance + 1e-8), axis=1).expand_dims(0))

    def logits(self, x):
        """What it classifies by: (B, C), without the margin."""
        return -self.scale(nd, self.squared(nd, x, self.mean.data()), self.variance.data())


def ours(kind, **settings):
    """From classes and features to our loss with that mixture."""
    return lambda classes, size: GaussianMixtureLoss(kind(classes, size, **settings))


LOSSES = {
    'identity': ours(GaussianMixture),
    'diagonal': ours(DiagonalMixture),
    'diagonal, shared': ours(DiagonalMixture, shared=True),
    'isotropic': ours(DiagonalMixture, isotropic=True),
    'isotropic, shared': ours(DiagonalMixture, isotropic=True, shared=True),
    'fixed volume': ours(FixedVolumeMixture),
    'fixed volume, shared': ours(FixedVolumeMixture, shared=True),
    'fixed volume, isotropic': ours(FixedVolumeMixture, isotropic=True),
    '(B, C, D) form': BroadcastLoss,
    '(B, C, D) form of v6': BroadcastV6Loss,
}


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
