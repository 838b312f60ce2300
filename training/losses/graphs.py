"""What one training step computes: net, losses and metrics as one graph, one launch.

Each graph maps augmented images (B, channels, H, W), labels (B,) and what `Graph` lists to

- **loss**: per sample, (B,);
- **statistics**: the sum of the losses and the number of correct predictions, (2,).
"""

from typing import Any, Optional

import numpy as np
from mxnet.gluon import HybridBlock

from center_loss import CenterLoss
from gmloss import LGMLoss, MixtureClassifier, label_free_logits
from training.data.mixup import mix


def soft_labels(label_smoothing: float = 0.0, mixup: bool = False, **_: Any) -> bool:
    """Whether labels become distributions (B, C) under the settings of a Graph."""
    return label_smoothing > 0 or mixup


class Graph(HybridBlock):
    """Label smoothing, mixup and distillation around a loss: base class of the graphs below.

    Parameters
    ----------
    num_classes : int
    label_smoothing : float, default 0
        Share e of each label that goes evenly to the other classes, e / (C - 1) each (He et al.,
        arXiv 1812.01187, section 5.2). Szegedy et al. spread it over all C classes: the same as
        e (C - 1) / C here.
    mixup : bool, default False
        Whether images come mixed.
    temperature : float or None
        Of the distillation; None for none.
    class_weights : array (C,) or None
        Factors of the losses of each class's samples; of a mixed one, their mean by its label. They
        leave out the center loss, in which each class of a batch counts the same anyway.

    Inputs beside images and labels, as far as the settings ask for them and in this order: how many
    samples of the batch have the same class, (B,), for a center loss; the weight of the mixed images,
    (1,); the teacher's logits, (B, C).
    """

    takes_counts = False

    def __init__(
        self,
        num_classes: int,
        label_smoothing: float = 0.0,
        mixup: bool = False,
        temperature: Optional[float] = None,
        class_weights: Optional[np.ndarray] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.constants = []  # to be initialised
        if class_weights is not None:
            with self.name_scope():
                self.class_weights = self.params.get_constant('class_weights', class_weights)
            self.constants.append(self.class_weights)
        self._num_classes = num_classes
        self._label_smoothing, self._mixup = label_smoothing, mixup
        self._temperature = temperature
        self.soft = soft_labels(label_smoothing, mixup)

    def hybrid_forward(self, F: Any, images: Any, label: Any, *extra: Any, **parameters: Any) -> Any:
        target, inputs = label, list(extra)
        weights = parameters.pop('class_weights', None)
        if self.takes_counts:
            parameters['count'] = inputs.pop(0)
        if self.soft:
            rest = self._label_smoothing / max(1, self._num_classes - 1)
            target = F.one_hot(
                label, depth=self._num_classes, off_value=rest, on_value=1 - self._label_smoothing
            )
            if self._mixup:
                target = mix(F, target, F.reshape(inputs.pop(0), (1, 1)))
                label = F.argmax(target, axis=1)  # of the image that weighs more
        loss, logits, *unweighted = self.classify(F, images, label, target, **parameters)
        if weights is not None:
            loss = loss * (F.dot(target, weights) if self.soft else F.take(weights, target))
        if self._temperature:
            loss = loss + distillation(F, logits, inputs.pop(0), self._temperature)
        for part in unweighted:
            loss = loss + part
        return loss, statistics(F, loss, logits, label)


def class_weights(counts: np.ndarray, power: float) -> np.ndarray:
    """Weights (C,) in proportion to counts ** -power, of mean 1 over the counted samples."""
    weights = np.asarray(counts, float) ** -power
    return weights * np.sum(counts) / np.dot(weights, counts)


class LGMGraph(Graph):
    """The L-GM loss; predictions, and what is compared with a teacher, are label-free.

    Parameters
    ----------
    classifier : gmloss.MixtureClassifier
    loss_fn : gmloss.LGMLoss
        With `sparse_label` off where the graph is `soft`.
    settings
        As in :class:`Graph`.
    """

    def __init__(self, classifier: MixtureClassifier, loss_fn: LGMLoss, **settings: Any) -> None:
        super().__init__(**settings)
        self.classifier = classifier
        self.loss_fn = loss_fn

    def classify(self, F: Any, images: Any, label: Any, target: Any) -> tuple[Any, ...]:
        own = None if self.soft else target
        distance, log_det, *rest = self.classifier.mixture(self.classifier.net(images), own)
        loss = self.loss_fn(distance, log_det, target, None, *rest)
        return loss, label_free_logits(F, distance, log_det)


class SoftmaxGraph(Graph):
    """Softmax cross entropy, and center loss on the features where one is given.

    Parameters
    ----------
    net : block
        Gives features (B, D) and logits (B, C), these from its `output`, if the graph is weighted.
    center_loss : center_loss.CenterLoss or None
    weighted : bool, default False
        Whether the cross entropy has a weight, 1 at first, that `set_softmax_weight` changes.
    settings
        As in :class:`Graph`.
    """

    def __init__(
        self,
        net: HybridBlock,
        center_loss: Optional[CenterLoss] = None,
        weighted: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.net = net
        self.center_loss = center_loss
        self.takes_counts = center_loss is not None
        if weighted:
            with self.name_scope():
                self.softmax_weight = self.params.get(
                    'softmax_weight', shape=(1,), init='ones', grad_req='null', differentiable=False
                )

    def set_softmax_weight(self, weight: float) -> None:
        """1 for the sum of both losses, 0 for center loss alone; no retrace, no host read.

        Without cross entropy the output layer gets no gradient and, as in Center_Loss_in_MXNet, no
        weight decay either: its learning rate is 0.
        """
        for array in self.softmax_weight.list_data():
            array[:] = weight
        for parameter in self.net.output.collect_params().values():
            parameter.lr_mult = weight

    def classify(
        self, F: Any, images: Any, label: Any, target: Any, count: Any = None, softmax_weight: Any = None
    ) -> tuple[Any, ...]:
        features, logits = self.net(images)
        logits = F.cast(logits, 'float32')
        log_posterior = F.log_softmax(logits)
        loss = -F.sum(log_posterior * target, axis=1) if self.soft else -F.pick(log_posterior, target)
        if softmax_weight is not None:
            loss = F.broadcast_mul(loss, softmax_weight)
        if self.center_loss is None:
            return loss, logits
        return loss, logits, self.center_loss(features, label, None, count)


def distillation(F: Any, logits: Any, teacher_logits: Any, temperature: float) -> Any:
    """T^2 times the cross entropy of both posteriors at temperature T, (B,), from logits (B, C).

    The teacher gets no gradient. Source: Hinton et al., as in He et al., arXiv 1812.01187, section
    5.3.
    """
    target = F.stop_gradient(F.softmax(F.cast(teacher_logits, 'float32') / temperature))
    return -(temperature**2) * F.sum(target * F.log_softmax(logits / temperature), axis=1)


def statistics(F: Any, loss: Any, logits: Any, label: Any) -> Any:
    """Sum of the losses and number of correct predictions, (2,), without a gradient."""
    correct = F.sum(F.argmax(logits, axis=1) == F.cast(label, 'float32'))
    return F.stop_gradient(F.concat(F.reshape(F.sum(loss), (1,)), F.reshape(correct, (1,)), dim=0))
