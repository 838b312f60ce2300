"""Ways to classify with a net, beside gmloss.MixtureClassifier."""

from collections.abc import Sequence
from typing import Any

from mxnet.gluon import HybridBlock

from gmloss import LGMLoss, MixtureClassifier, label_free_logits, log_likelihood, margin_logits, one_hot

OUTPUTS = 'logits', 'distance', 'log_likelihood', 'features'  # of PixelClassifier, in this order


class LabelledClassifier(HybridBlock):
    """Logits without the label, and with the margin on the true class, whose label it is told.

    The latter are what gluon_GMLoss v1 and L-GM-Loss-For-Gluon validate with. That is no prediction;
    it is kept to show what their published way of validating measures.

    Parameters
    ----------
    classifier : gmloss.MixtureClassifier
    loss_fn : gmloss.LGMLoss
        Whose current margin to use.

    Inputs:
        - **images**: whatever the classifier's net takes.
        - **label**: shape (B,).

    Outputs:
        - **logits**: label-free, (B, C).
        - **labelled**: those with the margin, (B, C).
    """

    def __init__(self, classifier: HybridBlock, loss_fn: LGMLoss) -> None:
        super().__init__()
        self.classifier = classifier
        self.loss_fn = loss_fn  # registers its margin among the parameters
        self.margin = loss_fn.margin
        self._margin_add = loss_fn._margin_add

    def hybrid_forward(self, F: Any, images: Any, label: Any, margin: Any) -> Any:
        distance, log_det = self.classifier.mixture(self.classifier.net(images))[:2]
        target = one_hot(F, F.cast(label, 'float32'), distance)
        return (
            label_free_logits(F, distance, log_det),
            margin_logits(F, distance, log_det, target, margin, self._margin_add),
        )


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
        - the net's own logits, then those of each head, as far as there are any; each (B, C).
    """

    def __init__(self, net: HybridBlock, heads: Sequence[HybridBlock] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.net = net
        self.heads = list(heads)
        for head in heads:
            self.register_child(head)

    def hybrid_forward(self, F: Any, images: Any) -> Any:
        features, logits = self.net(images)
        return (logits, *(head(features) for head in self.heads)) if self.heads else logits


class PixelClassifier(HybridBlock):
    """All that a finished run says of an image, as one graph from pixel values on.

    Parameters
    ----------
    normalise : training.data.augment.Normalize
    classifier : gmloss.MixtureClassifier or HeadsClassifier
        From normalised images to logits. The head of a HeadsClassifier, if there is one, is taken for
        minus half the squared distance to each center.
    spread : float, default 1
        As in gmloss.MixtureInference.
    features : bool, default False
        Whether to give the features too.

    Inputs:
        - **pixels**: (B, channels, H, W), any type, 0 to 255.

    Outputs (a tuple, in this order, as far as there are any):
        - **logits**: label-free, (B, C).
        - **distance**: half squared distance to every class, (B, C), under L-GM and center loss.
        - **log_likelihood**: (B,), under L-GM.
        - **features**: (B, D), if asked for.
    """

    def __init__(
        self,
        normalise: HybridBlock,
        classifier: HybridBlock,
        spread: float = 1.0,
        features: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.normalise = normalise
        self.classifier = classifier
        self._spread, self._features = spread, features

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs there are."""
        mixture = isinstance(self.classifier, MixtureClassifier)
        given = True, mixture or bool(self.classifier.heads), mixture, self._features
        return tuple(name for name, is_given in zip(OUTPUTS, given) if is_given)

    def hybrid_forward(self, F: Any, pixels: Any) -> Any:
        images = self.normalise(pixels)
        if isinstance(self.classifier, MixtureClassifier):
            mixture = self.classifier.mixture
            features = self.classifier.net(images)
            distance, log_det = mixture(features)[:2]
            outputs = [
                label_free_logits(F, distance, log_det),
                distance,
                log_likelihood(F, distance, log_det, mixture.feature_size, self._spread),
            ]
        else:
            features, logits = self.classifier.net(images)
            outputs = [logits, *(-head(features) for head in self.classifier.heads)]
        outputs += [F.cast(features, 'float32')] * self._features
        return tuple(F.identity(output, name=name) for output, name in zip(outputs, self.outputs))
