"""One epoch of training, one pass of evaluation."""

import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Optional

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, nd
from mxnet.gluon import Block, HybridBlock, nn

from training.data.batches import TrainingData
from training.machine.cluster import Workers
from training.optim.average import MovingAverage
from training.optim.overflow import OverflowGuard
from training.optim.trainer import take_step

STEPS_IN_FLIGHT = 4  # bounds memory and keeps the bar honest, without idling the engine


@dataclass
class EpochResult:
    """What `train_epoch` did.

    Attributes
    ----------
    steps : int
        Steps of the epoch done by now, those before a resumption included.
    totals : list of float
        Summed loss and right predictions over those steps.
    loss, accuracy : float
        Their means over the images.
    images : int
        Images of this call.
    seconds : float
        Wall time of this call.
    """

    steps: int
    totals: Sequence[float]
    loss: float
    accuracy: float
    images: int
    seconds: float


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; a second one acts as usual."""

    def __init__(self) -> None:
        self.signal: Optional[int] = None

    def agree(self, workers: Workers) -> bool:
        """Whether any worker is to stop; all must ask, and all get the same answer."""
        wanted = bool(workers.sum([self.signal is not None])[0])
        if wanted and self.signal is None:
            self.signal = signal.SIGINT
        return wanted  # and not what a signal has just set here, which the others did not hear of

    @contextmanager
    def listening(self) -> Iterator['StopRequest']:
        def request(number: int, _: Any) -> None:
            self.signal = number
            for previous_number, handler in previous.items():
                signal.signal(previous_number, handler)

        previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def train_epoch(
    graph: HybridBlock,
    data: TrainingData,
    trainers: list[gluon.Trainer],
    epoch: int,
    first_step: int,
    totals: Sequence[float],
    on_step: Callable[[int], Any],
    stop: StopRequest,
    loss_scale: float = 1.0,
    progress: Callable[[int], Any] = lambda images: None,
    average: Optional[MovingAverage] = None,
    guard: Optional[OverflowGuard] = None,
) -> EpochResult:
    """Train on what is left of one epoch; return an EpochResult.

    Parameters
    ----------
    graph : block
        What a batch holds to (loss per sample, statistics), one of training.losses.graphs.
    data : TrainingData
    trainers : list of gluon.Trainer
    epoch, first_step : int
        Where to start.
    totals : (float, float)
        Summed loss and right predictions of the epoch's earlier steps, over all workers.
    on_step : callable
        Called with the global step before it runs; sets learning rate and margin.
    stop : StopRequest
        Ends the epoch after the current step; with several workers, all at the same one.
    loss_scale : float
        The loss is multiplied by it before backward, the gradients divided by it.
    progress : callable
        Called after each step with its number of images.
    average : training.optim.average.MovingAverage or None
        Takes in the weights after every step.
    guard : training.optim.overflow.OverflowGuard or None
        Of these trainers.
    """
    started = time.perf_counter()
    workers = data.workers
    sums = [nd.zeros((2,), ctx=ctx) for ctx in data.contexts]
    if workers.is_rank_zero:
        sums[0][:] = nd.array(totals)
    in_flight: deque = deque()
    seen = []
    step = first_step
    draws = has_dropout(graph)
    for batch in data.batches(epoch, first_step):
        on_step(epoch * data.steps_per_epoch + step)
        if draws:  # from seed and step alone, so that a resumed run draws the same
            mx.random.seed(
                int(np.random.SeedSequence([data.seed, epoch, step, workers.rank]).generate_state(1)[0] // 2)
            )
        with autograd.record():
            outputs = [graph(*part) for part in batch]
            losses = [loss * loss_scale if loss_scale != 1 else loss for loss, _ in outputs]
        autograd.backward(losses)
        take_step(trainers, data.batch_size * loss_scale, guard)
        if average is not None:
            average.update(epoch * data.steps_per_epoch + step)
        for total, (_, statistics) in zip(sums, outputs):
            total += statistics
        step += 1
        if data.hard_examples:
            seen.append([loss for loss, _ in outputs])
        in_flight.append(outputs[-1][0])
        if len(in_flight) > STEPS_IN_FLIGHT:
            in_flight.popleft().wait_to_read()
        progress(data.batch_size)
        if workers.stop_requested(stop.signal is not None):
            break
    workers.end_steps()
    stop.agree(workers)
    totals = np.sum([total.asnumpy() for total in sums], axis=0)
    # Asynchronous workers may have stopped at different steps: rank 0's counts.
    *totals, step = workers.sum([*totals, step * workers.is_rank_zero]).tolist()
    step = int(step)
    nd.waitall()
    data.record_losses(first_step, seen)
    images = step * data.batch_size
    return EpochResult(
        step,
        totals,
        totals[0] / images,
        totals[1] / images,
        (step - first_step) * data.batch_size,
        time.perf_counter() - started,
    )


def has_dropout(block: Block) -> bool:
    """Whether there is dropout in a block."""
    return isinstance(block, nn.Dropout) or any(map(has_dropout, block._children.values()))


def average_statistics(graph: Block, data: TrainingData) -> None:
    """Give every device of every worker the mean of their BatchNorm statistics.

    Each device has seen other images of the same steps. Running means and variances are sums, so
    they may be averaged at any time without changing what they come to in the end.
    """
    running = [
        parameter
        for name, parameter in graph._collect_params_with_prefix().items()
        if name.endswith(('running_mean', 'running_var'))
    ]
    devices = len(data.contexts) * data.workers.size
    if devices == 1 or not running:
        return
    here = np.sum(
        [
            np.concatenate([array.asnumpy() for array in arrays])
            for arrays in zip(*(parameter.list_data() for parameter in running))
        ],
        axis=0,
    )
    ends = np.cumsum([parameter.shape[0] for parameter in running])[:-1]
    for parameter, mean in zip(running, np.split(data.workers.sum(here) / devices, ends)):
        parameter.set_data(nd.array(mean))
