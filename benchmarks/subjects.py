"""What is measured. Each function sets one thing up and returns it as a callable without result.

Run as `python -m benchmarks.subjects NAME ARGUMENTS`, one of SUBJECTS and its keywords as JSON: prints
'ready', then for each line on standard input calls it and prints seconds and the MiB that the peak
memory has grown since 'ready'.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable

from benchmarks import baselines, photos
from training.machine import devices

LOSS_SHAPE = 128, 1000, 512  # batch, classes, features
BATCH, STEPS = 128, 20
EPOCH_STEPS = 40
EPOCH_IMAGES = EPOCH_STEPS * BATCH
TEST_IMAGES = 10000
RUN = 'output/record/cifar-fast-seed0'


def loss(block: str, shape: tuple = LOSS_SHAPE, repeats: int = 1) -> Callable[[], None]:
    """Forward and backward of one of benchmarks.blocks.LOSSES, repeated where one is too short to time."""
    devices.prepare('cpu')
    import numpy as np
    from mxnet import autograd, nd

    from benchmarks.blocks import LOSSES

    batch, classes, size = shape
    rng = np.random.default_rng(0)
    loss_fn = LOSSES[block](classes, size)
    loss_fn.initialize()
    loss_fn.hybridize(static_alloc=True, static_shape=True)
    x = nd.array(rng.normal(size=(batch, size)))
    label = nd.array(rng.integers(0, classes, batch))
    x.attach_grad()

    def run():
        for _ in range(repeats):
            with autograd.record():
                value = loss_fn(x, label)
            value.backward()
        nd.waitall()

    return run


def center(
    classes: int = 10,
    size: int = 2,
    sparse: bool = False,
    update: bool = False,
    on_host: bool = False,
    repeats: int = 1,
) -> Callable[[], None]:
    """Forward and backward of a center loss, with the update of the centers if asked for."""
    devices.prepare('cpu')
    import numpy as np
    from mxnet import autograd, gluon, nd

    from benchmarks.blocks import HostCountedCenterLoss
    from center_loss import CenterLoss

    rng = np.random.default_rng(0)
    if on_host:
        loss_fn = HostCountedCenterLoss(classes, size)
    else:
        loss_fn = CenterLoss(classes, size, sparse_grad=sparse)
        loss_fn.hybridize(static_alloc=True, static_shape=True)
    loss_fn.initialize()
    x = nd.array(rng.normal(size=(BATCH, size)))
    label = nd.array(rng.integers(0, classes, BATCH))
    x.attach_grad()
    trainer = gluon.Trainer(loss_fn.collect_params(), 'sgd', {'learning_rate': 0.5})

    def run():
        for _ in range(repeats):
            with autograd.record():
                value = loss_fn(x, label)
            value.backward()
            if update:
                trainer.step(BATCH)
        nd.waitall()

    return run


def train(
    device: str = 'cpu',
    dtype: str = 'float32',
    version: str = 'baseline',
    augmentation: str = 'pad-crop',
    whole: bool = True,
    guarded: bool = False,
    **fields: Any,
) -> Callable[[], None]:
    """An epoch of EPOCH_STEPS steps, as train_cifar.py does it, or without `whole` STEPS steps on a batch.

    Parameters
    ----------
    device, dtype, version, augmentation : str
    whole : bool
        Whether batches, bookkeeping and the moving average are measured too.
    guarded : bool
        Whether steps that overflow are skipped, as under float16.
    fields
        Fields of the recipe.
    """
    chosen = devices.prepare(device, dtype)
    from mxnet import autograd, nd

    from training.config import recipe as recipes
    from training.data import datasets
    from training.loop.epoch import StopRequest, train_epoch
    from training.optim.average import build_moving_average
    from training.optim.overflow import OverflowGuard
    from training.optim.trainer import take_step
    from training.runs.teacher import load_teacher

    contexts = chosen.contexts()
    settings = recipes.load_recipe(
        recipes.version_path('cifar', version), recipes.CifarRecipe, {'augmentation': augmentation, **fields}
    )
    batch_size, refinement = settings.optimisation.batch_size, settings.refinement
    images, _ = datasets.load_cifar10(num_samples=EPOCH_STEPS * batch_size)
    teacher_net = refinement.teacher and load_teacher(refinement.teacher, settings.data, chosen, contexts)
    model, data, trainers = put_together(settings, chosen, images, teacher_net)
    graph = model.graph
    guard = OverflowGuard(trainers) if guarded else None
    if whole:
        average = build_moving_average(model, settings, chosen, contexts)
        stop = StopRequest()
        return lambda: train_epoch(
            graph, data, trainers, 0, 0, (0, 0), lambda step: None, stop, average=average, guard=guard
        )
    batch = next(iter(data.batches(0)))

    def run():
        for _ in range(STEPS):
            with autograd.record():
                values = [graph(*part)[0] for part in batch]
            autograd.backward(values)
            take_step(trainers, batch_size, guard)
        nd.waitall()

    return run


def put_together(settings: Any, device: Any, images: Any, teacher_net: Any = None) -> tuple[Any, Any, list]:
    """What a training takes: the initialised model of a recipe, a split as its batches, the trainers."""
    from training.data import augment, batches
    from training.model import build_model, initialize
    from training.optim.trainer import build_trainer
    from training.runs.weights import named_parameters

    contexts = device.contexts()
    block = augment.build(settings.data)
    block.initialize(ctx=contexts)
    block.hybridize(static_alloc=True)
    data = batches.TrainingData(
        images,
        contexts,
        block,
        settings.data.flip,
        settings.optimisation.batch_size,
        settings.run.seed,
        settings.refinement.mixup,
        teacher_net,
        resolutions=settings.data.resolutions,
    )
    model = build_model(settings, device)
    initialize(model, settings, contexts)
    trainers = [build_trainer(named_parameters({'graph': model.graph}).values(), settings.optimisation)]
    return model, data, trainers


def stock_step() -> Callable[[], None]:
    """Training steps of the untouched GluonCV net."""
    devices.prepare('cpu')
    return baselines.stock_step(BATCH, STEPS)


def stock_epoch(default_threads: bool = False) -> Callable[[], None]:
    """An epoch of the usual script, with all cores or the threads that mxnet takes by itself."""
    if default_threads:
        del os.environ['OMP_NUM_THREADS']
    devices.import_mxnet()
    return baselines.stock_epoch(BATCH, EPOCH_IMAGES)


def torch_step(low_precision: bool) -> Callable[[], None]:
    """Training steps of the same net in PyTorch."""
    return baselines.torch_step(BATCH, STEPS, devices.usable_cores(), low_precision)


def predict(dtype: str = 'auto', frozen: bool = True) -> Callable[[], None]:
    """Top-1 accuracy of a kept run over the whole test set, from memory."""
    device = devices.prepare('cpu', dtype)
    from training.config import recipe as recipes
    from training.data import batches, datasets
    from training.metrics.accuracy import accuracies
    from training.model import build_model, initialize, normaliser
    from training.runs.folder import RunFolder
    from training.runs.restore import restore_model
    from training.runs.weights import load_weights

    contexts, folder = device.contexts(), RunFolder(RUN)
    if frozen:
        model, settings = restore_model(folder, device, contexts)
    else:
        settings = recipes.load_recipe(folder.config, recipes.CifarRecipe, {})
        model = build_model(settings, device)
        initialize(model, settings, contexts)
        load_weights(folder.last_weights, model.weights, contexts)
    normalise = normaliser(settings, contexts)
    test = batches.DeviceData(datasets.load_cifar10(num_samples=TEST_IMAGES)[1], contexts)
    return lambda: accuracies(model.classifier, normalise, test)


def predict_files() -> Callable[[], None]:
    """The command, its start included, on the test set as PNG files."""
    from PIL import Image

    devices.prepare('cpu')
    from training.data import datasets

    folder = tempfile.TemporaryDirectory()
    for number, image in enumerate(datasets.load_cifar10(num_samples=TEST_IMAGES)[1].images):
        Image.fromarray(image.transpose(1, 2, 0)).save(f'{folder.name}/{number:05d}.png')

    def run():
        subprocess.run(
            [sys.executable, '-W', 'ignore', 'predict.py', RUN, folder.name]
            + ['--dtype', 'auto', '--output', f'{folder.name}/predictions.csv'],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    return run


SUBJECTS = {
    subject.__name__: subject
    for subject in (
        *(loss, center, train, stock_step, stock_epoch, torch_step, predict, predict_files),
        *(photos.reader, photos.loader, photos.net_step, photos.stock_net_step),
    )
}


def peak_memory() -> float:
    """Of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == '__main__':
    arguments = json.loads(sys.argv[2])
    subject = SUBJECTS[sys.argv[1]](**arguments)
    before = peak_memory()
    print('ready', flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        subject()
        seconds = (time.perf_counter() - started) / arguments.get('repeats', 1)
        print(seconds, peak_memory() - before, flush=True)
