"""A run with recorded features as tests write it, without any training."""

import numpy as np

from training.runs.features import Snapshot
from training.runs.folder import RunFolder
from training.runs.sample import write_sample

CLASSES = ['zero', 'one', 'two']
SPLITS = 40, 30  # training and test images
COUNT = sum(SPLITS)
EPOCHS = 3


def images(channels=1, count=COUNT, seed=0):
    """Random small images (count, channels, 28, 28)."""
    return np.random.default_rng(seed).integers(0, 256, (count, channels, 28, 28)).astype(np.uint8)


def labels(count=COUNT):
    return np.arange(count) % len(CLASSES)


def snapshot(epoch, dimensions=2, mixture=True, seed=0, splits=SPLITS):
    """Clusters that part from epoch to epoch; a sixth of the samples is taken for the next class."""
    rng = np.random.default_rng([seed, dimensions])
    count, own = sum(splits), labels(sum(splits))
    means = rng.normal(size=(len(CLASSES), dimensions)) * 4
    noise = rng.normal(size=(count, dimensions))
    features = (epoch * means[own] + noise).astype(np.float32)
    random = np.random.default_rng([seed, epoch])
    of_mixture = {
        'deviations': 0.5 + random.random(means.shape),
        'log_likelihood': -10 * random.random(count),
        'spread': 1.3,
        'priors': np.array([0.5, 0.3, 0.2]),
    }
    return Snapshot(
        *(features[: splits[0]], own[: splits[0]], features[splits[0] :], own[splits[0] :]),
        centers=epoch * means,
        epoch=epoch,
        predicted=np.where(random.random(count) < 1 / 6, (own + 1) % len(CLASSES), own),
        probability=random.random(count),
        **(of_mixture if mixture else {}),
    )


def record_run(path, dimensions=2, mixture=True, seed=0, image_seed=0):
    """Write the snapshots of EPOCHS epochs and their images into a run folder; returns its path."""
    (path / 'features').mkdir(parents=True)
    folder = RunFolder(path)
    about = images(seed=image_seed), labels(), CLASSES, 'test'
    folder.write_figure('features/sample.npz', write_sample, *about)
    for epoch in range(1, EPOCHS + 1):
        drawn = snapshot(epoch, dimensions, mixture, seed)
        folder.write_figure(f'features/epoch-{epoch:03d}.npz', drawn.halved().save)
    return path
