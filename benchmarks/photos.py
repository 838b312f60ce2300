"""What benchmarks.images measures: readers of photographs, and nets that train on them.

The photographs are mosaics of CIFAR-10's images, with as many bytes a pixel as the packed photographs of
clothing-dataset-small, and as long to decode.
"""

import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Callable

import numpy as np

from benchmarks import baselines
from training.machine import devices

IMAGES, BATCH, SIZE, CLASSES = 128, 16, 224, 1000
PHOTO, TILE = (533, 400), 64  # height and width; sides of a mosaic's stones
STEP_BATCH = 8


def packed_photos(folder: Path) -> tuple[Any, Any]:
    """Settings of a data set with IMAGES training images and its training part, packed."""
    import cv2

    from training.config.inputs import ImagesData
    from training.data import datasets

    stones = datasets.load_cifar10(num_samples=1000)[0].images.transpose(0, 2, 3, 1)
    rng = np.random.default_rng(0)
    rows, columns = (1 + side // TILE for side in PHOTO)
    for number in range(IMAGES + 2):  # one of each class is held out
        chosen = [cv2.resize(stone, (TILE, TILE)) for stone in stones[rng.integers(0, 1000, rows * columns)]]
        photo = cv2.vconcat([cv2.hconcat(chosen[row::rows]) for row in range(rows)])
        path = folder / str(number % 2) / f'{number}.jpg'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), photo[: PHOTO[0], : PHOTO[1]])
    settings = ImagesData(data_dir=str(folder), image_size=SIZE, holdout=2)
    with redirect_stdout(None):
        return settings, datasets.load_splits(settings)[0]


def reader() -> Callable[[], None]:
    """An epoch of our batches, augmented and on the device."""
    devices.prepare('cpu')
    import mxnet as mx

    from training.data import augment, batches

    folder = tempfile.TemporaryDirectory()
    settings, train = packed_photos(Path(folder.name))
    block = augment.build(settings)
    block.initialize()
    block.hybridize(static_alloc=True)
    data = batches.TrainingData(train, [mx.cpu()], block, settings.flip, BATCH, 0)

    def run(folder=folder):
        for ((images, _),) in data.batches(0):
            images.wait_to_read()

    return run


def loader() -> Callable[[], None]:
    """An epoch of a DataLoader with the same transforms on the same packed file."""
    devices.prepare('cpu')
    from mxnet import gluon
    from mxnet.gluon.data.vision import ImageRecordDataset, transforms

    from training.data import augment

    folder = tempfile.TemporaryDirectory()
    settings, train = packed_photos(Path(folder.name))
    jitter = (settings.jitter,) * 3
    transform = transforms.Compose([
        transforms.RandomResizedCrop(SIZE, (settings.smallest_area, 1)),
        transforms.RandomFlipLeftRight(),
        transforms.RandomColorJitter(*jitter),
        transforms.RandomLighting(settings.lighting),
        transforms.ToTensor(),
        transforms.Normalize(*augment.NORMALISATIONS['imagenet'].values()),
    ])  # fmt: skip
    dataset = ImageRecordDataset(str(train.images.path)).transform_first(transform)
    cores = devices.usable_cores()
    batches = gluon.data.DataLoader(
        dataset, BATCH, shuffle=True, last_batch='discard', num_workers=cores if cores > 1 else 0
    )

    def run(folder=folder):
        for images, _ in batches:
            images.wait_to_read()

    return run


def net_step(model: str) -> Callable[[], None]:
    """A training step of a net under its recipe, on images that are there."""
    chosen = devices.prepare('cpu')
    from mxnet import autograd, nd

    from training.config import recipe as recipes
    from training.model import build_model, initialize
    from training.optim.trainer import build_trainer, take_step
    from training.runs.weights import named_parameters

    recipe = recipes.load_recipe(
        recipes.version_path('images', model), recipes.ImagesRecipe, {'image_size': SIZE}
    )
    recipe.data.classes = [str(number) for number in range(CLASSES)]
    built = build_model(recipe, chosen)
    initialize(built, recipe, chosen.contexts())
    trainers = [build_trainer(named_parameters({'graph': built.graph}).values(), recipe.optimisation)]
    images = nd.random.normal(shape=(STEP_BATCH, 3, SIZE, SIZE))
    labels = nd.array(np.arange(STEP_BATCH), dtype='int32')

    def run():
        with autograd.record():
            loss = built.graph(images, labels)[0]
        loss.backward()
        take_step(trainers, STEP_BATCH)
        nd.waitall()

    return run


def stock_net_step(model: str) -> Callable[[], None]:
    """A training step of the untouched GluonCV net."""
    devices.prepare('cpu')
    return baselines.stock_step(STEP_BATCH, 1, model, CLASSES, SIZE)
