"""What is validated while images grow, and which epoch is then the best."""

import numpy as np
import pytest
from mxnet import cpu, nd

from tests.small_runs import FAST, SMALL, run_fields
from training.data import augment, batches
from training.data.datasets import Split
from training.loop.validation import Validation
from training.runs.folder import RunFolder
from training.runs.run import read_run
from training.runs.summary import at_last_size, totals


class Brightness:
    """A model that tells an image's size and which of its quarters is the brightest."""

    methods, mixture = ('brightest',), None

    def __init__(self):
        self.sizes = []

    def classifier(self, images):
        self.sizes.append(images.shape[2])
        half = images.shape[2] // 2
        quarters = images.sum(axis=1).reshape((0, 2, half, 2, half))
        return quarters.mean(axis=(2, 4)).reshape((0, 4))


@pytest.mark.parametrize('size', [16, 24, 32])
@pytest.mark.parametrize('contexts', [[cpu(0)], [cpu(1), cpu(2)]], ids=['one device', 'two'])
def test_validates_reduced_images(cifar, size, contexts):
    images = cifar[1].images[:40]
    quarters = images.astype(np.float64).reshape(40, 3, 2, 16, 2, 16).sum(axis=(1, 3, 5)).reshape(40, 4)
    labels = np.where(np.arange(40) < 10, 9, quarters.argmax(axis=1))
    normalise = augment.Normalize(**augment.NORMALISATIONS['symmetric'])
    normalise.initialize(ctx=contexts)
    model = Brightness()
    validation = Validation(model, normalise, batches.DeviceData(Split(images, labels), contexts))
    assert validation(size) == {'val_acc': pytest.approx(0.75)}
    assert set(model.sizes) == {size}
    image = nd.array(images[:1], ctx=contexts[0], dtype='uint8')
    assert validation.normalise_to(size)(image).shape == (1, 3, size, size)


def rows(sizes, accuracies):
    return [
        {
            'epoch': epoch,
            'val_acc': accuracy,
            'val_image_size': size,
            'images_per_second': 9.0,
            'seconds': 60.0,
        }
        for epoch, (size, accuracy) in enumerate(zip(sizes, accuracies), 1)
    ]


@pytest.mark.parametrize(
    'sizes, best',
    [([32] * 4, 1), ([16, 16, 32, 32], 3), ([32, 16, 16, 32], 4), ([16, 24, 24, 24], 3), ([16] * 4, 1)],
)
def test_best_epoch_is_one_at_the_last_size(sizes, best):
    history = rows(sizes, [0.9, 0.6, 0.8, 0.7])
    assert totals(history)['best_epoch'] == best
    assert totals([{**row, 'val_image_size': None} for row in history])['best_epoch'] == 1


def test_run_with_growing_images_records_at_which_size_it_validated(run_here, tmp_path, capsys, no_figures):
    folder = RunFolder(tmp_path / 'run')
    assert run_here('train_cifar', *SMALL, *FAST, '--output-dir', folder.path) == 0
    output = capsys.readouterr().out
    assert [row['val_image_size'] for row in run_fields(folder.path)] == ['16', '24', '32']
    assert [f' at {size} pixels  ' in output for size in (16, 24, 32)] == [True, True, False]
    run = read_run(folder.path)
    assert run.summary['best_epoch'] == 3 and at_last_size(run.metrics) == run.metrics[2:]
    assert run.minutes_to(0.0) == pytest.approx(run.summary['seconds'] / 60, abs=0.02)
    assert folder.best_weights.read_bytes() == folder.last_weights.read_bytes()
    assert run_here('train_cifar', '--test', '--output-dir', folder.path) == 0
    assert f'accuracy {run.metrics[2]["val_acc"]:.4f} by lgm on 64' in capsys.readouterr().out
