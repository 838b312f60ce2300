"""What is measured. Each function sets one thing up and returns it as a callable without result.

Run as `python -m benchmarks.subjects NAME`: prints 'ready', then for each line on standard input
calls it and prints seconds and the MiB that the peak memory has grown since 'ready'.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

from benchmarks import baselines
from training.machine import devices

LOSS_SHAPE = 128, 1000, 512  # batch, classes, features
BATCH, STEPS = 128, 20
EPOCH_STEPS = 40
EPOCH_IMAGES = EPOCH_STEPS * BATCH
TEST_IMAGES = 10000


def loss(make, repeats=1, shape=LOSS_SHAPE):
    """Forward and backward of a loss, repeated where one is too short to time."""
    import numpy as np
    from mxnet import autograd, nd

    batch, classes, size = shape
    rng = np.random.default_rng(0)
    block = make(classes, size)
    block.initialize()
    block.hybridize(static_alloc=True, static_shape=True)
    x = nd.array(rng.normal(size=(batch, size)))
    label = nd.array(rng.integers(0, classes, batch))
    x.attach_grad()

    def run():
        for _ in range(repeats):
            with autograd.record():
                value = block(x, label)
            value.backward()
        nd.waitall()

    run.repeats = repeats
    return run


def loss_ours():
    devices.prepare('cpu')
    from benchmarks.blocks import MatrixLoss

    return loss(MatrixLoss, repeats=50)


def loss_of_shape():
    """At the shape B,C,D that BENCHMARK_SHAPE in the environment gives."""
    devices.prepare('cpu')
    from benchmarks.blocks import MatrixLoss

    shape = tuple(map(int, os.environ['BENCHMARK_SHAPE'].split(',')))
    batch, classes, size = shape
    return loss(MatrixLoss, max(1, round(2e9 / (batch * classes * size + 3e7))), shape)


def loss_broadcast():
    devices.prepare('cpu')
    from benchmarks.blocks import BroadcastLoss

    return loss(BroadcastLoss)


def loss_broadcast_v6():
    devices.prepare('cpu')
    from benchmarks.blocks import BroadcastV6Loss

    return loss(BroadcastV6Loss)


def center(make, classes, size, update=False):
    """Forward and backward of a center loss, with the update of the centers if asked for."""
    import numpy as np
    from mxnet import autograd, gluon, nd

    rng = np.random.default_rng(0)
    block = make(classes, size)
    block.initialize()
    x = nd.array(rng.normal(size=(BATCH, size)))
    label = nd.array(rng.integers(0, classes, BATCH))
    x.attach_grad()
    trainer = gluon.Trainer(block.collect_params(), 'sgd', {'learning_rate': 0.5})

    def run():
        for _ in range(run.repeats):
            with autograd.record():
                value = block(x, label)
            value.backward()
            if update:
                trainer.step(BATCH)
        nd.waitall()

    run.repeats = 300
    return run


def center_ours(classes=10, size=2, sparse=False, update=False):
    from center_loss import CenterLoss

    def make(classes, size):
        block = CenterLoss(classes, size, sparse_grad=sparse)
        block.hybridize(static_alloc=True, static_shape=True)
        return block

    return center(make, classes, size, update)


def center_small():
    devices.prepare('cpu')
    return center_ours()


def center_host_counted():
    devices.prepare('cpu')
    from benchmarks.blocks import HostCountedCenterLoss

    return center(HostCountedCenterLoss, 10, 2)


def center_sparse_ten():
    devices.prepare('cpu')
    return center_ours(10, 128, sparse=True, update=True)


def center_sparse_million():
    devices.prepare('cpu')
    return center_ours(1000000, 128, sparse=True, update=True)


def ours(device, augmentation='none', steps=STEPS, whole=False, version='baseline', guarded=False, **fields):
    """The project's own pieces, as train_cifar.py puts them together; the recipe's batch in all.

    guarded: the trainer looks for overflows as under float16, whatever the precision is.
    """
    from training.config import recipe as recipes
    from training.data import augment, batches, datasets
    from training.loop.epoch import StopRequest, autograd, nd, train_epoch
    from training.model import build_model, initialize
    from training.optim.average import build_moving_average
    from training.optim.overflow import OverflowGuard
    from training.optim.trainer import build_trainer, take_step
    from training.runs.teacher import load_teacher
    from training.runs.weights import named_parameters

    contexts = device.contexts()
    settings = recipes.load_recipe(
        recipes.version_path('cifar', version), recipes.CifarRecipe, {'augmentation': augmentation, **fields}
    )
    batch_size = settings.optimisation.batch_size
    train, _ = datasets.load_cifar10(num_samples=steps * batch_size)
    block = augment.build(settings.data)
    block.initialize(ctx=contexts)
    block.hybridize(static_alloc=True)
    refinement = settings.refinement
    teacher_net = refinement.teacher and load_teacher(refinement.teacher, 'cifar10', device, contexts)
    train_data = batches.TrainingData(
        train, contexts, block, settings.data.flip, batch_size, 0, refinement.mixup, teacher_net
    )
    model = build_model(settings, device)
    initialize(model, settings, contexts)
    graph = model.graph
    parameters = named_parameters({'graph': graph}).values()
    trainer = build_trainer(parameters, settings.optimisation)
    guard = OverflowGuard([trainer]) if guarded else None
    if whole:
        moving_average = build_moving_average(model, settings, device, contexts)
        return lambda: train_epoch(
            graph,
            train_data,
            [trainer],
            0,
            0,
            (0, 0),
            lambda step: None,
            StopRequest(),
            average=moving_average,
            guard=guard,
        )
    batch = next(iter(train_data.batches(0)))

    def run():
        for _ in range(STEPS):
            with autograd.record():
                values = [graph(*part)[0] for part in batch]
            autograd.backward(values)
            take_step([trainer], batch_size, guard)
        nd.waitall()

    return run


def step_ours():
    return ours(devices.prepare('cpu', 'float32'))


def step_ours_on_two():
    return ours(devices.prepare('cpu:0,1', 'float32'))


def step_ours_bfloat16():
    return ours(devices.prepare('cpu', 'bfloat16'))


def step_fast():
    return ours(devices.prepare('cpu', 'auto'), version='fast')


def epoch_fast():
    return ours(devices.prepare('cpu', 'auto'), 'pad-crop', whole=True, version='fast')


def step_stock():
    devices.prepare('cpu')
    return baselines.stock_step(BATCH, STEPS)


def epoch_ours(**settings):
    return ours(devices.prepare('cpu', 'float32'), 'pad-crop', EPOCH_STEPS, whole=True, **settings)


def epoch_ours_bfloat16():
    return ours(devices.prepare('cpu', 'bfloat16'), 'pad-crop', EPOCH_STEPS, whole=True)


def epoch_ours_bfloat16_v6():
    return ours(devices.prepare('cpu', 'bfloat16'), 'resized-crop', EPOCH_STEPS, whole=True)


def epoch_ours_v6():
    return ours(devices.prepare('cpu', 'float32'), 'resized-crop', EPOCH_STEPS, whole=True)


def epoch_of_fields():
    """With the fields of the recipe that BENCHMARK_FIELDS in the environment gives as JSON."""
    return ours(
        devices.prepare('cpu', 'auto'),
        'pad-crop',
        EPOCH_STEPS,
        whole=True,
        **json.loads(os.environ['BENCHMARK_FIELDS']),
    )


def epoch_stock():
    """The environment decides the threads, as for a user who just starts a script."""
    devices.make_importable()
    return baselines.stock_epoch(BATCH, EPOCH_IMAGES)


def predict(device, frozen=True):
    """Top-1 accuracy of a kept run over the whole test set, from memory."""
    from training.config import recipe as recipes
    from training.data import batches, datasets
    from training.metrics.accuracy import accuracies
    from training.model import build_model, initialize, normaliser
    from training.runs.folder import RunFolder
    from training.runs.restore import restore_model
    from training.runs.weights import load_weights

    contexts, folder = device.contexts(), RunFolder('output/record/cifar-fast-seed0')
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


def predict_ours():
    return predict(devices.prepare('cpu', 'float32'))


def predict_ours_fastest():
    return predict(devices.prepare('cpu', 'auto'))


def predict_as_trained():
    return predict(devices.prepare('cpu', 'auto'), frozen=False)


def predict_files():
    """The command, its start included, on the test set as PNG files."""
    from PIL import Image

    devices.prepare('cpu')
    from training.data import datasets

    folder = tempfile.TemporaryDirectory()
    for number, image in enumerate(datasets.load_cifar10(num_samples=TEST_IMAGES)[1].images):
        Image.fromarray(image.transpose(1, 2, 0)).save(f'{folder.name}/{number:05d}.png')

    def run():
        subprocess.run(
            [
                sys.executable,
                '-W',
                'ignore',
                'predict.py',
                'output/record/cifar-fast-seed0',
                folder.name,
                '--dtype',
                'auto',
                '--output',
                f'{folder.name}/predictions.csv',
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    return run


def step_torch():
    return baselines.torch_step(BATCH, STEPS, devices.usable_cores(), low_precision=False)


def step_torch_bfloat16():
    return baselines.torch_step(BATCH, STEPS, devices.usable_cores(), low_precision=True)


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == '__main__':
    subject = globals()[sys.argv[1]]()
    before = peak_memory()
    print('ready', flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        subject()
        seconds = (time.perf_counter() - started) / getattr(subject, 'repeats', 1)
        print(seconds, peak_memory() - before, flush=True)
