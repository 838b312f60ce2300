"""From the first epoch to the last: resume, train, evaluate, record, stop."""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Callable, Optional

from mxnet import MXNetError

from training.data import batches
from training.errors import UserError
from training.loop.epoch import StopRequest, average_statistics, train_epoch
from training.machine.devices import Device
from training.optim.average import MovingAverage
from training.runs import checkpoint, plots, tables
from training.runs.background_plots import BackgroundPlots
from training.runs.folder import RunFolder, summarise
from training.runs.weights import save_weights

# Of the mean loss over a device's images. Lifts small gradients over float16's underflow and leaves
# large ones room: those of v5's kernels come to 10,000 of the 65,504 there are. Of a step in which one
# passes that, all gradients are taken for zero.
LOSS_SCALE = {'float16': 128.0}


@dataclass
class Job:
    """What a script has put together, ready to be trained.

    Attributes
    ----------
    recipe, device, folder
        The recipe as it runs, the training.machine.devices.Device, the RunFolder.
    graph : block
        One of training.losses.graphs.
    trainers : list of gluon.Trainer
    data : training.data.batches.TrainingData
    set_rates : callable
        Global step to {'lr': ..., 'margin': ...}; sets them for that step.
    average : training.optim.average.MovingAverage or None
        Of the graph's weights; with it, the average is what is kept.
    evaluate : callable
        () to {'val_acc': ...} and whatever else is to be recorded.
    validation_images : int
        How many `evaluate` sees.
    after_epoch : callable or None
        Called with the history and a training.runs.background_plots.BackgroundPlots after every epoch.
    at_end : callable or None
        Called with a training.runs.background_plots.BackgroundPlots after the last epoch; returns what
        else the summary is to hold.
    """

    recipe: Any
    device: Device
    folder: RunFolder
    graph: Any
    trainers: list[Any]
    data: batches.TrainingData
    set_rates: Callable
    evaluate: Callable
    validation_images: int
    average: Optional[MovingAverage] = None
    after_epoch: Optional[Callable] = None
    at_end: Optional[Callable] = None

    @property
    def kept(self):
        """The block whose parameters are the run's result."""
        return (self.average or self).graph.weights


def fit(job, resume=False, tensorboard=False):
    """Train to the recipe's last epoch, or until asked to stop; return the exit code.

    Raises
    ------
    UserError
        If the run cannot be resumed, the loss is no number, a file cannot be written, or the device
        runs out of memory.
    """
    try:
        with _claim(job, resume):
            return _fit(job, resume, tensorboard)
    except OSError as error:
        raise UserError(
            f'{error.filename or job.folder.path}: {error.strerror or error}; stopped. '
            'With that put right, --resume goes on from the last checkpoint'
        ) from None
    except MXNetError as error:
        if 'out of memory' not in str(error):
            raise
        raise UserError(
            f'device {job.device}: out of memory; stopped. A smaller --batch-size takes less'
        ) from None


def loss_scale(dtype, batch_size):
    """What the losses of `batch_size` images on a device are multiplied by before they are added."""
    return LOSS_SCALE.get(dtype, batch_size) / batch_size


def _claim(job, resume):
    """Find or make the run folder; a context in which it is this run's alone."""
    if resume:
        job.folder.check_resumable(job.recipe)
    if not job.data.workers.is_chief:
        return nullcontext()
    return job.folder.lock() if resume else job.folder.start(job.recipe)


def _fit(job, resume, tensorboard):
    folder, epochs, workers = job.folder, job.recipe.optimisation.epochs, job.data.workers
    blocks = {'graph': job.graph, **({'average': job.average.graph} if job.average else {})}
    state = {'epoch': 0, 'step': 0, 'totals': [0.0, 0.0], 'seconds': 0.0, 'history': []}
    if resume:
        state = checkpoint.load_checkpoint(folder.checkpoint, blocks, job.trainers, state)
        workers.agree(
            f'{state["epoch"]}, {state["step"]}',
            f'{folder.checkpoint}: not the same '
            'file for all workers; the run folder must be one that they share',
        )
        print(f'resuming at epoch {state["epoch"] + 1}, step {state["step"]}')
    history = state['history']

    events = folder.event_writer(len(history)) if tensorboard and workers.is_chief else nullcontext()
    if job.device.dtype in LOSS_SCALE:
        for trainer in job.trainers:
            trainer.zero_overflows()
    scale = loss_scale(job.device.dtype, job.data.batch_size // (len(job.data.contexts) * workers.size))
    with BackgroundPlots() as figures, StopRequest().listening() as stop, events as board:
        for epoch in range(state['epoch'], epochs):
            started = time.perf_counter()
            result = train_epoch(
                job.graph,
                job.data,
                job.trainers,
                epoch,
                state['step'],
                state['totals'],
                job.set_rates,
                stop,
                scale,
                f'epoch {epoch + 1}/{epochs}',
                job.average,
            )
            if not math.isfinite(result.loss):
                raise UserError(
                    f'epoch {epoch + 1}: the loss is {result.loss}; stopped. Begin '
                    'anew with a lower --lr'
                    + (', or --dtype float32' if job.device.dtype == 'float16' else '')
                )
            for trainer in job.trainers:
                trainer.catch_up()
            zeroed = max(trainer.steps_zeroed() for trainer in job.trainers)
            if zeroed:
                print(
                    f'epoch {epoch + 1}: gradients of {zeroed} steps taken for zero, as some passed '
                    f'the range of {job.device.dtype}'
                )
            for block in blocks.values():
                average_statistics(block, job.data)
            if result.steps < job.data.steps_per_epoch:  # asked to stop within the epoch
                state.update(
                    epoch=epoch,
                    step=result.steps,
                    totals=result.totals,
                    seconds=state['seconds'] + time.perf_counter() - started,
                )
                if workers.is_chief:
                    checkpoint.save_checkpoint(folder.checkpoint, blocks, job.trainers, state)
                print(f'stopped in epoch {epoch + 1}; --resume goes on')
                return 128 + stop.signal

            rates = job.set_rates((epoch + 1) * job.data.steps_per_epoch - 1)
            row = {
                'epoch': epoch + 1,
                **rates,
                'train_loss': result.loss,
                'train_acc': result.accuracy,
                **job.evaluate(),
                'images_per_second': result.images / result.seconds,
                'seconds': state['seconds'] + time.perf_counter() - started,
            }
            is_best = all(row['val_acc'] > earlier['val_acc'] for earlier in history)
            history.append(row)
            state.update(epoch=epoch + 1, step=0, totals=[0.0, 0.0], seconds=0.0)
            if workers.is_chief:
                if is_best:
                    save_weights(folder.best_weights, job.kept)
                checkpoint.save_checkpoint(folder.checkpoint, blocks, job.trainers, state)
                folder.write_metrics(history)
                if board:
                    for name, value in row.items():
                        board.add_scalar(name, value, epoch + 1)
                if job.after_epoch:
                    job.after_epoch(history, figures)
            print(
                'epoch {epoch:3d}  lr {lr:.4f}  margin {margin:.2f}  loss {train_loss:.4f}  '
                'train {train_acc:.4f}  val {val_acc:.4f}  {images_per_second:.0f} images/s'.format(**row),
                flush=True,
            )
            if stop.agree(workers):
                print(f'stopped after epoch {epoch + 1}; --resume goes on')
                return 128 + stop.signal

        findings = {}
        if workers.is_chief:
            figures.submit(folder.write_figure, 'curves.png', plots.curves, history, folder.path.name)
            findings = job.at_end(figures) if job.at_end else {}
    if workers.is_chief:
        _conclude(job, history, findings)
    return 0


def _conclude(job, history, findings):
    """Write the results and print them."""
    folder = job.folder
    save_weights(folder.last_weights, job.kept)
    folder.write_metrics(history)
    trained = [
        parameter
        for parameter in job.graph._collect_params_with_prefix().values()
        if parameter.grad_req != 'null'
    ]
    summary = summarise(
        job.recipe, job.device, history, job.validation_images, sum(math.prod(p.shape) for p in trained)
    )
    summary.update(findings)
    folder.write_summary({**folder.found_since(len(history)), **summary})
    print(f'files in {folder.path}')
    print(tables.table([tables.read(folder.path)]))
    print(tables.verdict(summary))
