"""What one training step computes: net, losses and metrics as one graph, one launch.

Each graph maps augmented images (B, channels, H, W) and labels (B,) to

- **loss**: per sample, (B,);
- **statistics**: the sum of the losses and the number of right predictions, (2,).
"""
from dataclasses import replace

from mxnet import nd
from mxnet.gluon import HybridBlock

from gmloss import MixtureClassifier, label_free_logits, margin_logits, one_hot

from . import losses, nets
from .augment import mix


def build(recipe, num_classes, device):
    """The graph of a training.recipe.CifarRecipe, not yet initialised.

    Its `net`, `heads` (what else has parameters) and `classifier` (normalised images to label-free
    logits) are blocks of their own.
    """
    settings = {'num_classes': num_classes, 'label_smoothing': recipe.refinement.label_smoothing,
                'mixup': recipe.refinement.mixup > 0,
                'temperature': recipe.refinement.temperature if recipe.refinement.teacher else None}
    if recipe.loss.loss == 'softmax':
        return SoftmaxGraph(nets.FeatureNet(
            replace(recipe.model, features='output', feature_size=num_classes), device), **settings)
    return build_lgm(nets.FeatureNet(recipe.model, device), recipe.loss, **settings)


def build_lgm(net, loss, num_classes, **settings):
    """An LGMGraph of a feature net under a training.recipe.Loss, not yet initialised."""
    mixture = losses.build_mixture(loss, num_classes, net.feature_size)
    soft = settings.get('label_smoothing', 0) > 0 or settings.get('mixup', False)
    return LGMGraph(MixtureClassifier(net, mixture), losses.build_loss(loss, not soft),
                    num_classes=num_classes, **settings)


class RefinedGraph(HybridBlock):
    """Label smoothing, mixup and distillation around a loss: base class of the graphs below.

    Parameters
    ----------
    num_classes : int
    label_smoothing : float, default 0
        Share of each label that goes evenly to the other classes (Szegedy et al., as in He et al.,
        arXiv 1812.01187, section 5.2).
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

    @property
    def soft(self):
        """Whether labels become distributions (B, C)."""
        return self._label_smoothing > 0 or self._mixup

    def hybrid_forward(self, F, images, label, *extra):
        target, extra = label, list(extra)
        if self.soft:
            rest = self._label_smoothing / max(1, self._num_classes - 1)
            target = F.one_hot(label, depth=self._num_classes, off_value=rest,
                               on_value=1 - self._label_smoothing)
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

    @property
    def net(self):
        return self.classifier.net

    @property
    def heads(self):
        return [self.classifier.mixture, self.loss_fn]

    def classify(self, F, images, target):
        distance, log_det, *rest = self.classifier.mixture(self.classifier.net(images))
        return (self.loss_fn(distance, log_det, target, *rest),
                label_free_logits(F, distance, log_det))


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

    def classify(self, F, images, target):
        logits = F.cast(self.net(images), 'float32')
        log_posterior = F.log_softmax(logits)
        return -F.sum(log_posterior * target, axis=1) if self.soft else \
            -F.pick(log_posterior, target), logits


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


def distillation(F, logits, teacher_logits, temperature):
    """T^2 times the cross entropy of both posteriors at temperature T, (B,), from logits (B, C).

    The teacher gets no gradient. Source: Hinton et al., as in He et al., arXiv 1812.01187, section
    5.3.
    """
    target = F.stop_gradient(F.softmax(F.cast(teacher_logits, 'float32') / temperature))
    return -temperature ** 2 * F.sum(target * F.log_softmax(logits / temperature), axis=1)


def statistics(F, loss, logits, label):
    """Sum of the losses and number of right predictions, (2,), without a gradient."""
    right = F.sum(F.argmax(logits, axis=1) == F.cast(label, 'float32'))
    return F.stop_gradient(F.concat(F.reshape(F.sum(loss), (1,)), F.reshape(right, (1,)), dim=0))
