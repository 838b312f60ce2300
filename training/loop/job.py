"""All that a training needs, put together."""

from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from training.data import batches
from training.loop.rates import Rates
from training.loop.validation import Validation
from training.machine.devices import Device
from training.model import Model
from training.optim.average import MovingAverage
from training.optim.overflow import LOSS_SCALE, OverflowGuard, loss_scale
from training.runs.background_plots import BackgroundPlots
from training.runs.folder import RunFolder

FORWARD_ALONE = 3  # times as fast as a training step, roughly


@dataclass
class Job:
    """What a script has put together, ready to be trained.

    Attributes
    ----------
    recipe, device, folder, model
        The recipe as it runs, where it runs, where its files go, and what it trains.
    trainers : list of gluon.Trainer
    data : training.data.batches.TrainingData
    data_digest : str
        Of its images and labels and the validation's, by training.data.datasets.digest.
    rates : training.loop.rates.Rates
    validation : training.loop.validation.Validation
    average : training.optim.average.MovingAverage or None
        Of the model's weights; with it, the average is the result of the run.
    plotting : bool
        Whether curves and feature maps are drawn after every epoch, not only curves at the end.
    restart_epoch : int or None
        The epoch, counted from 0, that begins with the best weights so far and new optimizers.
    report : callable
        Called at the end with a BackgroundPlots; returns further entries of the summary.
    """

    recipe: Any
    device: Device
    folder: RunFolder
    model: Model
    trainers: list[Any]
    data: batches.TrainingData
    data_digest: str
    rates: Rates
    validation: Validation
    average: Optional[MovingAverage] = None
    plotting: bool = False
    restart_epoch: Optional[int] = None
    report: Callable[[BackgroundPlots], dict[str, Any]] = lambda figures: {}
    guard: Optional[OverflowGuard] = field(init=False)

    def __post_init__(self) -> None:
        self.guard = OverflowGuard(self.trainers) if self.device.dtype in LOSS_SCALE else None

    @property
    def result(self) -> Any:
        """The block whose parameters are the run's result."""
        return (self.average or self).model.weights

    @property
    def blocks(self) -> dict[str, Any]:
        """The blocks whose parameters a checkpoint holds."""
        average = {'average': self.average.model.graph} if self.average else {}
        return {'graph': self.model.graph, **average}

    @property
    def arrays(self) -> dict[str, Any]:
        """What else a checkpoint holds: arrays."""
        return self.data.hard_examples.arrays if self.data.hard_examples else {}

    @property
    def scale(self) -> float:
        """What losses are multiplied by before they are added up."""
        parts = len(self.data.contexts) * self.data.workers.size
        return loss_scale(self.device.dtype, self.data.batch_size // parts)

    @property
    def work(self) -> list[float]:
        """What each epoch takes, its validation included, in images of full size."""
        images = self.data.steps_per_epoch * self.data.batch_size
        return [
            images * self.data.work(self.data.image_size(epoch))
            + self.validation.count / FORWARD_ALONE * self.data.work(self.data.validation_size(epoch))
            for epoch in range(self.recipe.optimisation.epochs)
        ]
