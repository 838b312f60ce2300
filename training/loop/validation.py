"""What is recorded of the validation images after every epoch."""

from typing import Any, Callable, Optional

from mxnet.gluon import HybridBlock

from gmloss import LGMLoss
from training.data.batches import DeviceData
from training.losses.build import variance_statistics
from training.losses.classifiers import LabelledClassifier
from training.metrics import likelihood
from training.metrics.accuracy import accuracies
from training.model import NEAREST_CENTER, Model


class Validation:
    """Accuracies of a model and the state of its covariance, as columns of metrics.csv.

    Parameters
    ----------
    model : training.model.Model
    normalise : HybridBlock
    data : training.data.batches.DeviceData
    loss_fn : gmloss.LGMLoss or None
        Whose current margin `with_label` uses.
    with_label : bool
        Also record the accuracy with the margin on the true class, as gluon_GMLoss v1 does.
    """

    def __init__(
        self,
        model: Model,
        normalise: HybridBlock,
        data: DeviceData,
        loss_fn: Optional[LGMLoss] = None,
        with_label: bool = False,
    ) -> None:
        self.count = data.count
        self.model, self.normalise, self.data, self._with_label = model, normalise, data, with_label
        self._classifier = model.classifier
        self._columns = ['val_acc'] + ['knn_acc'] * (NEAREST_CENTER in model.methods)
        if with_label:
            self._classifier = LabelledClassifier(model.classifier, loss_fn)
            self._classifier.hybridize(static_alloc=True)
            self._columns.append('val_acc_with_label')

    def likelihoods(self, train_data: DeviceData, draw: Callable) -> dict[str, Any]:
        """What the summary is to say of the likelihoods of both splits; {} without a mixture.

        `draw` as in training.metrics.likelihood.report.
        """
        if not self.model.mixture:
            return {}
        return likelihood.report(self.model.classifier, self.normalise, train_data, self.data, draw)

    def normalise_to(self, size: int) -> Callable:
        """What makes the net's inputs of a size from uint8 images of full size."""
        if size == self.data.full_size:
            return self.normalise
        downscale = self.data.downscale(size)
        return lambda images: downscale(self.normalise(images))

    def __call__(self, size: int) -> dict[str, float]:
        """{'val_acc': ..., ...} of the weights as they are now, on images reduced to a size."""
        values = accuracies(self._classifier, self.normalise_to(size), self.data, self._with_label)
        row = dict(zip(self._columns, values))
        return {**row, **variance_statistics(self.model.mixture)} if self.model.mixture else row
