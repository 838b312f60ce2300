"""What one training step computes: net, losses and metrics as one graph, one launch.

Each graph maps augmented images (B, channels, H, W) and labels (B,) to

- **loss**: per sample, (B,);
- **statistics**: the sum of the losses and the number of right predictions, (2,).
"""
from mxnet import nd
from mxnet.gluon import HybridBlock

from gmloss import MixtureClassifier, label_free_logits, margin_logits, one_hot

from . import losses


class LGMGraph(HybridBlock):
    """The L-GM loss; predictions are label-free.

    Parameters
    ----------
    classifier : gmloss.MixtureClassifier
    loss_fn : gmloss.LGMLoss
    """

    def __init__(self, classifier, loss_fn, **kwargs):
        super().__init__(**kwargs)
        self.classifier = classifier
        self.loss_fn = loss_fn

    def hybrid_forward(self, F, images, label):
        distance, log_det, *rest = self.classifier.mixture(self.classifier.net(images))
        loss = self.loss_fn(distance, log_det, label, *rest)
        return loss, statistics(F, loss, label_free_logits(F, distance, log_det), label)


def build_lgm(net, loss, num_classes):
    """An LGMGraph of a feature net under a training.recipe.Loss, not yet initialised."""
    mixture = losses.build_mixture(loss, num_classes, net.feature_size)
    return LGMGraph(MixtureClassifier(net, mixture), losses.build_loss(loss))


class LabelledClassifier(HybridBlock):
    """Logits with the margin on the true class, whose label it is told.

    What gluon_GMLoss v1 and L-GM-Loss-For-Gluon validate with. It is no prediction; it is kept to
    show what their published way of validating measures.

    Parameters
    ----------
    classifier : gmloss.MixtureClassifier
    loss_fn : gmloss.LGMLoss
        Whose current margin to use.
    """

    def __init__(self, classifier, loss_fn):
        super().__init__()
        self.classifier = classifier
        self.loss_fn = loss_fn  # so that its margin is found among the parameters
        self.margin = loss_fn.margin

    def hybrid_forward(self, F, images, label, margin):
        distance, log_det = self.classifier.mixture(self.classifier.net(images))[:2]
        target = one_hot(F, F.cast(label, 'float32'), distance)
        return margin_logits(F, distance, log_det, target, margin)


class SoftmaxCenterGraph(HybridBlock):
    """Softmax cross entropy, plus center loss on the features.

    Parameters
    ----------
    net : block
        Gives features (B, D) and logits (B, C).
    center_loss : center_loss.CenterLoss or None
    """

    def __init__(self, net, center_loss=None, **kwargs):
        super().__init__(**kwargs)
        self.net = net
        self.center_loss = center_loss
        with self.name_scope():
            self.softmax_weight = self.params.get('softmax_weight', shape=(1,), init='ones',
                                                  grad_req='null', differentiable=False)

    def set_softmax_weight(self, weight):
        """1 for the sum of both losses, 0 for center loss alone; no retrace, no host read."""
        self.softmax_weight.set_data(nd.array([weight]))

    def hybrid_forward(self, F, images, label, softmax_weight):
        features, logits = self.net(images)
        logits = F.cast(logits, 'float32')
        loss = F.broadcast_mul(-F.pick(F.log_softmax(logits), label), softmax_weight)
        if self.center_loss is not None:
            loss = loss + self.center_loss(features, label)
        return loss, statistics(F, loss, logits, label)


class HeadsClassifier(HybridBlock):
    """All the ways to classify the features of a net that has an output layer, in one pass.

    Parameters
    ----------
    net : block
        Gives features (B, D) and logits (B, C).
    heads : sequence of block
        Each maps features to logits.

    Inputs:
        - **images**: (B, channels, H, W).

    Outputs:
        - the net's own logits, then those of each head; each (B, C).
    """

    def __init__(self, net, heads=(), **kwargs):
        super().__init__(**kwargs)
        self.net = net
        self._heads = list(heads)
        for head in heads:
            self.register_child(head)

    def hybrid_forward(self, F, images):
        features, logits = self.net(images)
        return (logits, *(head(features) for head in self._heads))


def statistics(F, loss, logits, label):
    """Sum of the losses and number of right predictions, (2,), without a gradient."""
    right = F.sum(F.argmax(logits, axis=1) == F.cast(label, 'float32'))
    return F.stop_gradient(F.concat(F.reshape(F.sum(loss), (1,)), F.reshape(right, (1,)), dim=0))
