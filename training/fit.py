"""From the first epoch to the last: resume, train, evaluate, record, stop."""
import math
import time
from dataclasses import dataclass
from typing import Any, Callable, List, Optional

from . import checkpoint, comparison, loop
from .plots import BackgroundPlots
from .run_folder import RunFolder, summarise
from .runtime import Device, UserError

LOSS_SCALE = {'float16': 128.0}  # lifts small gradients over float16's underflow


@dataclass
class Job:
    """What a script has put together, ready to be trained.

    Attributes
    ----------
    recipe, device, folder
        The recipe as it runs, the training.runtime.Device, the RunFolder.
    graph : block
        One of training.graphs.
    trainers : list of gluon.Trainer
    data : training.loop.TrainingData
    set_rates : callable
        Global step to {'lr': ..., 'margin': ...}; sets them for that step.
    evaluate : callable
        () to {'val_acc': ...} and whatever else is to be recorded.
    after_epoch : callable or None
        Called with the history and a training.plots.BackgroundPlots after every epoch.
    at_end : callable or None
        Called with a training.plots.BackgroundPlots after the last epoch; returns what else the
        summary is to hold.
    """
    recipe: Any
    device: Device
    folder: RunFolder
    graph: Any
    trainers: List[Any]
    data: loop.TrainingData
    set_rates: Callable
    evaluate: Callable
    after_epoch: Optional[Callable] = None
    at_end: Optional[Callable] = None


def fit(job, resume=False, tensorboard=False):
    """Train to the recipe's last epoch, or until asked to stop; return the exit code.

    Raises
    ------
    UserError
        If the run cannot be resumed, the loss is no number, or a file cannot be written.
    """
    try:
        return _fit(job, resume, tensorboard)
    except OSError as error:
        raise UserError(f'{error.filename or job.folder.path}: {error.strerror or error}; stopped. '
                        'With that put right, --resume goes on from the last checkpoint') from None


def _fit(job, resume, tensorboard):
    folder, epochs = job.folder, job.recipe.optimisation.epochs
    blocks = {'graph': job.graph}
    state = {'epoch': 0, 'step': 0, 'totals': [0.0, 0.0], 'seconds': 0.0, 'history': []}
    if resume:
        folder.check_resumable(job.recipe)
        state = checkpoint.load_checkpoint(folder.checkpoint, blocks, job.trainers, state)
        print(f'resuming at epoch {state["epoch"] + 1}, step {state["step"]}')
    else:
        folder.start(job.recipe)
    history = state['history']
    board = folder.event_writer(len(history)) if tensorboard else None

    with BackgroundPlots() as figures, loop.StopRequest().listening() as stop:
        for epoch in range(state['epoch'], epochs):
            started = time.perf_counter()
            result = loop.train_epoch(
                job.graph, job.data, job.trainers, epoch, state['step'], state['totals'],
                job.set_rates, stop, LOSS_SCALE.get(job.device.dtype, 1.0),
                f'epoch {epoch + 1}/{epochs}')
            if not math.isfinite(result.loss):
                raise UserError(f'epoch {epoch + 1}: the loss is {result.loss}; stopped. '
                                f'{folder.checkpoint} holds the epoch before, if there was one; '
                                'try a lower --lr')
            if result.steps < job.data.steps_per_epoch:  # asked to stop within the epoch
                state.update(epoch=epoch, step=result.steps, totals=result.totals,
                             seconds=state['seconds'] + time.perf_counter() - started)
                checkpoint.save_checkpoint(folder.checkpoint, blocks, job.trainers, state)
                print(f'stopped in epoch {epoch + 1}; --resume goes on')
                return 128 + stop.signal

            rates = job.set_rates((epoch + 1) * job.data.steps_per_epoch - 1)
            row = {'epoch': epoch + 1, **rates, 'train_loss': result.loss,
                   'train_acc': result.accuracy, **job.evaluate(),
                   'images_per_second': result.images / result.seconds,
                   'seconds': state['seconds'] + time.perf_counter() - started}
            if all(row['val_acc'] > earlier['val_acc'] for earlier in history):
                checkpoint.save_weights(folder.best_weights, job.graph.weights)
            history.append(row)
            state.update(epoch=epoch + 1, step=0, totals=[0.0, 0.0], seconds=0.0)
            checkpoint.save_checkpoint(folder.checkpoint, blocks, job.trainers, state)
            folder.write_metrics(history)
            if board:
                for name, value in row.items():
                    board.add_scalar(name, value, epoch + 1)
            if job.after_epoch:
                job.after_epoch(history, figures)
            print('epoch {epoch:3d}  lr {lr:.4f}  margin {margin:.2f}  loss {train_loss:.4f}  '
                  'train {train_acc:.4f}  val {val_acc:.4f}  {images_per_second:.0f} images/s'
                  .format(**row), flush=True)
            if stop.signal:
                print(f'stopped after epoch {epoch + 1}; --resume goes on')
                return 128 + stop.signal

        figures.submit(folder.draw_curves, history, folder.path.name)
        findings = job.at_end(figures) if job.at_end else {}
        checkpoint.save_weights(folder.last_weights, job.graph.weights)
    folder.write_metrics(history)
    trained = [p for p in checkpoint.named_parameters(blocks).values() if p.grad_req != 'null']
    summary = summarise(job.recipe, job.device, history,
                        job.data.steps_per_epoch * job.data.batch_size,
                        sum(math.prod(p.shape) for p in trained))
    summary.update(findings)
    folder.write_summary(summary)
    print(f'files in {folder.path}')
    print(comparison.table([comparison.read(folder.path)]))
    print(comparison.verdict(summary))
    return 0
