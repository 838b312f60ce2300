"""From the first epoch to the last: resume, train, evaluate, record, stop."""

import math
import time
from contextlib import nullcontext
from typing import Any

from mxnet import MXNetError

from training.data import datasets
from training.errors import UserError
from training.loop.epoch import StopRequest, average_statistics, train_epoch
from training.loop.feature_maps import FeatureMaps
from training.loop.job import Job
from training.loop.progress import Progress
from training.runs import checkpoint, plots, resumption, tables
from training.runs.background_plots import BackgroundPlots
from training.runs.run import read_run
from training.runs.summary import at_last_size, summarise
from training.runs.weights import load_weights, save_weights

# A run that has not begun, but for its history.
BLANK: dict[str, Any] = {'epoch': 0, 'step': 0, 'totals': [0.0, 0.0], 'seconds': 0.0}
PROGRESS = (
    'epoch {epoch:3d}  lr {lr:.4f}  margin {margin:.2f}  loss {train_loss:.4f}  '
    'train {train_acc:.4f}  val {val_acc:.4f}{at}  {images_per_second:.0f} images/s'
)


def fit(job: Job, resume: bool = False, tensorboard: bool = False) -> int:
    """Train to the recipe's last epoch, or until asked to stop; return the exit code.

    Raises
    ------
    UserError
        If the run cannot be resumed, the loss is no number, a file cannot be written, or memory runs out.
    """
    try:
        with _claim(job, resume):
            return _fit(job, resume, tensorboard)
    except MXNetError as error:
        if 'out of memory' not in str(error):
            raise
        message = f'device {job.device}: out of memory; stopped. A smaller --batch-size takes less'
        raise UserError(message) from None


def _claim(job: Job, resume: bool) -> Any:
    """Find or make the run folder; a context in which it is this run's alone."""
    if resume:
        resumption.check_resumable(job.folder, job.recipe)
    if not job.data.workers.is_rank_zero:
        return nullcontext()
    return job.folder.lock() if resume else job.folder.start(job.recipe)


def _fit(job: Job, resume: bool, tensorboard: bool) -> int:
    folder, workers, steps = job.folder, job.data.workers, job.data.steps_per_epoch
    workers.agree(job.data_digest, 'the workers of this run have different images or labels')
    state = _resumed(job) if resume else dict(BLANK, history=[])
    state['data'], history = job.data_digest, state['history']
    epochs = job.recipe.optimisation.epochs
    progress = Progress(job.work, quiet=not workers.is_rank_zero)
    with folder.writing():
        events = folder.event_writer(len(history)) if tensorboard and workers.is_rank_zero else nullcontext()
    names = datasets.facts(job.recipe.data).names
    maps = FeatureMaps(folder, job.validation, job.data, names, job.recipe.data.validation_split, epochs)
    with BackgroundPlots() as figures, StopRequest().listening() as stop, events as board:
        for epoch in range(state['epoch'], epochs):
            if epoch == job.restart_epoch and not state['step']:
                _restart(job)
            started = time.perf_counter() - state['seconds']
            result = _train_epoch(job, state, epoch, stop, progress)
            if result.steps < steps:  # asked to stop within the epoch
                seconds = time.perf_counter() - started
                state.update(epoch=epoch, step=result.steps, totals=result.totals, seconds=seconds)
                _save(job, state)
                print(f'stopped in epoch {epoch + 1}; continue with --resume')
                return 128 + stop.signal
            job.data.end_epoch()
            size = job.data.validation_size(epoch)
            row = {
                'epoch': epoch + 1,
                **job.rates.at((epoch + 1) * steps - 1),
                'train_loss': result.loss,
                'train_acc': result.accuracy,
                **job.validation(size),
                **({'val_image_size': size} if job.data.resolutions else {}),
                'images_per_second': result.images / result.seconds,
                'seconds': time.perf_counter() - started,
            }
            history.append(row)
            state.update(BLANK, epoch=epoch + 1, history=history)
            if workers.is_rank_zero:
                _record(job, state, figures, board, maps, size)
            at = f' at {size} pixels' if size != job.data.full_size else ''
            print(PROGRESS.format(**row, at=at), flush=True)
            if stop.agree(workers):
                print(f'stopped after epoch {epoch + 1}; continue with --resume')
                return 128 + stop.signal

        findings = {}
        if workers.is_rank_zero:
            findings = _draw_results(job, history, figures, maps)
            if board:
                maps.embed(board)
    if workers.is_rank_zero:
        with folder.writing():
            _conclude(job, history, findings)
    if job.plotting and workers.is_rank_zero:
        print(
            f'feature space: {folder.feature_page}'
            if folder.snapshots
            else 'feature space: not drawn, all epochs had been trained without --plotting'
        )
    return 0


def _resumed(job: Job) -> dict[str, Any]:
    """The state of the checkpoint, after its arrays have been loaded."""
    path, workers = job.folder.checkpoint, job.data.workers
    state = checkpoint.load_checkpoint(path, job.blocks, job.trainers, workers, job.arrays)
    workers.agree(
        f'{state["epoch"]}, {state["step"]}',
        f'{path}: not the same file for all workers; the run folder must be one that they share',
    )
    with job.folder.writing():
        resumption.resume(
            job.folder, job.recipe, state, job.data_digest, job.data.steps_per_epoch, workers.is_rank_zero
        )
    return state


def _restart(job: Job) -> None:
    """Go on from the best weights so far, with optimizers as at the start of a run."""
    load_weights(job.folder.best_weights, job.model.weights, job.data.contexts)
    for trainer in job.trainers:
        for updater in trainer._updaters:
            updater.states.clear()
    print(f'weights: {job.folder.best_weights}')


def _train_epoch(job: Job, state: dict[str, Any], epoch: int, stop: StopRequest, progress: Progress) -> Any:
    """Train on what is left of an epoch; UserError where the loss is no number."""
    data = job.data
    images, done = (steps * data.batch_size for steps in (data.steps_per_epoch, state['step']))
    with progress.epoch(epoch, images, done, data.work(data.image_size(epoch))) as update:
        result = train_epoch(
            job.model.graph,
            data,
            job.trainers,
            epoch,
            state['step'],
            state['totals'],
            job.rates.set,
            stop,
            job.scale,
            update,
            job.average,
            job.guard,
        )
    if not math.isfinite(result.loss):
        other = ', or --dtype float32' if job.device.dtype == 'float16' else ''
        raise UserError(
            f'epoch {epoch + 1}: the loss is {result.loss}; stopped. Begin anew with a lower --lr{other}'
        )
    job.data.workers.catch_up()
    if job.guard is not None and (skipped := job.guard.skipped_steps()):
        print(
            f'epoch {epoch + 1}: {skipped} steps skipped, whose gradients exceeded the range of '
            f'{job.device.dtype}'
        )
    for block in job.blocks.values():
        average_statistics(block, job.data)
    return result


def _save(job: Job, state: dict[str, Any]) -> None:
    if job.data.workers.is_rank_zero:
        with job.folder.writing():
            checkpoint.save_checkpoint(job.folder.checkpoint, job.blocks, job.trainers, state, job.arrays)


def _record(
    job: Job, state: dict[str, Any], figures: BackgroundPlots, board: Any, maps: FeatureMaps, size: int
) -> None:
    """Write what an epoch leaves behind."""
    *earlier, row = at_last_size(state['history'])
    with job.folder.writing():
        if all(row['val_acc'] > other['val_acc'] for other in earlier):
            save_weights(job.folder.best_weights, job.result)
        _save(job, state)
        job.folder.write_metrics(state['history'])
        if board:
            for name, value in row.items():
                board.add_scalar(name, value, row['epoch'])
    if job.plotting:
        _draw_curves(job, state['history'], figures)
        maps.draw(row, size, figures)


def _draw_curves(job: Job, history: list[dict], figures: BackgroundPlots) -> None:
    figures.submit(job.folder.write_figure, 'curves.png', plots.curves, history, job.folder.path.name)


def _draw_results(
    job: Job, history: list[dict], figures: BackgroundPlots, maps: FeatureMaps
) -> dict[str, Any]:
    """Draw what a whole run shows; return what the likelihoods add to its summary."""
    name = job.folder.path.name

    def draw_likelihoods(splits: list[tuple]) -> None:
        figures.submit(job.folder.write_figure, 'likelihood.png', plots.likelihoods, splits, name)

    _draw_curves(job, history, figures)
    if job.plotting:
        maps.draw_results(figures)
    with job.folder.writing():
        return {**job.report(figures), **job.validation.likelihoods(job.data, draw_likelihoods)}


def _conclude(job: Job, history: list[dict], findings: dict[str, Any]) -> None:
    """Write the results and print them."""
    folder = job.folder
    save_weights(folder.last_weights, job.result)
    folder.write_metrics(history)
    parameters = job.model.graph._collect_params_with_prefix().values()
    trained = sum(math.prod(p.shape) for p in parameters if p.grad_req != 'null')
    summary = summarise(job.recipe, job.device, history, job.validation.count, trained)
    summary.update(findings)
    folder.write_summary({**folder.found_since(len(history)), **summary})
    print(f'files in {folder.path}')
    print(tables.run_table([read_run(folder.path)]))
    print(tables.verdict(summary))
