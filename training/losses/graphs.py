"""What one training step computes: net, losses and metrics as one graph, one launch.

Each graph maps augmented images (B, channels, H, W) and labels (B,) to

- **loss**: per sample, (B,);
- **statistics**: the sum of the losses and the number of right predictions, (2,).

And each has

- `net` and `heads`: the feature net, and what else is to be initialised, on its own;
- `weights`: the block whose parameters are a run's result;
- `classifier`: a block from normalised images to label-free logits, or to several of them;
- but for SoftmaxGraph, `methods`, the names of these, and `features`, a function from normalised
  images to features (B, D).
"""

from mxnet.gluon import HybridBlock

from center_loss import NearestCenter
from gmloss import label_free_logits
from training.data.augment import mix
from training.losses.classifiers import HeadsClassifier


def soft_labels(label_smoothing=0.0, mixup=False, **_):
    """Whether labels become distributions (B, C) under the settings of a RefinedGraph."""
    return label_smoothing > 0 or mixup


class RefinedGraph(HybridBlock):
    """Label smoothing, mixup and distillation around a loss: base class of the graphs below.

    Parameters
    ----------
    num_classes : int
    label_smoothing : float, default 0
        Share e of each label that goes evenly to the other classes, e / (C - 1) each (He et al.,
        arXiv 1812.01187, section 5.2). Szegedy et al. spread it over all C classes: the same as
        e (C - 1) / C here.
    mixup : bool, default False
        Whether images come mixed; a third input then gives the weight, shape (1,).
    temperature : float or None
        Of the distillation; None for none. With it, the last input is the teacher's logits (B, C).
    """

    def __init__(self, num_classes, label_smoothing=0.0, mixup=False, temperature=None, **kwargs):
        super().__init__(**kwargs)
        self._num_classes = num_classes
        self._label_smoothing, self._mixup = label_smoothing, mixup
        self._temperature = temperature
        self.soft = soft_labels(label_smoothing, mixup)

    def hybrid_forward(self, F, images, label, *extra):
        target, extra = label, list(extra)
        if self.soft:
            rest = self._label_smoothing / max(1, self._num_classes - 1)
            target = F.one_hot(
                label, depth=self._num_classes, off_value=rest, on_value=1 - self._label_smoothing
            )
            if self._mixup:
                target = mix(F, target, F.reshape(extra.pop(0), (1, 1)))
        loss, logits = self.classify(F, images, target)
        if self._temperature:
            loss = loss + distillation(F, logits, extra.pop(0), self._temperature)
        return loss, statistics(F, loss, logits, label)


class LGMGraph(RefinedGraph):
    """The L-GM loss; predictions, and what is compared with a teacher, are label-free.

    Parameters
    ----------
    classifier : gmloss.MixtureClassifier
    loss_fn : gmloss.LGMLoss
        With `sparse_label` off where the graph is `soft`.
    settings
        As in :class:`RefinedGraph`.
    """

    def __init__(self, classifier, loss_fn, **settings):
        super().__init__(**settings)
        self.classifier = classifier
        self.loss_fn = loss_fn

    methods = ('lgm',)

    @property
    def net(self):
        return self.classifier.net

    @property
    def heads(self):
        return [self.classifier.mixture, self.loss_fn]

    @property
    def weights(self):
        return self.classifier

    def features(self, images):
        return self.net(images)

    def classify(self, F, images, target):
        distance, log_det, *rest = self.classifier.mixture(self.classifier.net(images))
        return (self.loss_fn(distance, log_det, target, None, *rest), label_free_logits(F, distance, log_det))


class SoftmaxGraph(RefinedGraph):
    """Softmax cross entropy on a net whose features are the logits.

    Parameters
    ----------
    net : block
    settings
        As in :class:`RefinedGraph`.
    """

    heads = ()

    def __init__(self, net, **settings):
        super().__init__(**settings)
        self.net = net

    @property
    def classifier(self):
        return self.net

    @property
    def weights(self):
        return self.net

    def classify(self, F, images, target):
        logits = F.cast(self.net(images), 'float32')
        log_posterior = F.log_softmax(logits)
        return -F.sum(log_posterior * target, axis=1) if self.soft else -F.pick(log_posterior, target), logits


class SoftmaxCenterGraph(HybridBlock):
    """Softmax cross entropy, plus center loss on the features.

    Parameters
    ----------
    net : block
        Gives features (B, D) and logits (B, C).
    center_loss : center_loss.CenterLoss or None
        With it, a third input gives the size of each sample's class in the batch, (B,).
    """

    def __init__(self, net, center_loss=None, **kwargs):
        super().__init__(**kwargs)
        self.net = net
        self.center_loss = center_loss
        with self.name_scope():
            self.softmax_weight = self.params.get(
                'softmax_weight', shape=(1,), init='ones', grad_req='null', differentiable=False
            )
        centers = [] if center_loss is None else [NearestCenter(center_loss)]
        classifier = HeadsClassifier(net, centers)
        self._classifier = lambda: classifier  # as an attribute it would be a child
        self.methods = ('softmax', 'knn')[: 1 + len(centers)]

    @property
    def heads(self):
        return [part for part in (self.center_loss, self.softmax_weight) if part is not None]

    @property
    def classifier(self):
        return self._classifier()

    @property
    def weights(self):
        return self

    def features(self, images):
        return self.net(images)[0]

    def set_softmax_weight(self, weight):
        """1 for the sum of both losses, 0 for center loss alone; no retrace, no host read."""
        for array in self.softmax_weight.list_data():
            array[:] = weight

    def hybrid_forward(self, F, images, label, count=None, softmax_weight=None):
        features, logits = self.net(images)
        logits = F.cast(logits, 'float32')
        loss = F.broadcast_mul(-F.pick(F.log_softmax(logits), label), softmax_weight)
        if self.center_loss is not None:
            loss = loss + self.center_loss(features, label, None, count)
        return loss, statistics(F, loss, logits, label)


def distillation(F, logits, teacher_logits, temperature):
    """T^2 times the cross entropy of both posteriors at temperature T, (B,), from logits (B, C).

    The teacher gets no gradient. Source: Hinton et al., as in He et al., arXiv 1812.01187, section
    5.3.
    """
    target = F.stop_gradient(F.softmax(F.cast(teacher_logits, 'float32') / temperature))
    return -(temperature**2) * F.sum(target * F.log_softmax(logits / temperature), axis=1)


def statistics(F, loss, logits, label):
    """Sum of the losses and number of right predictions, (2,), without a gradient."""
    right = F.sum(F.argmax(logits, axis=1) == F.cast(label, 'float32'))
    return F.stop_gradient(F.concat(F.reshape(F.sum(loss), (1,)), F.reshape(right, (1,)), dim=0))
