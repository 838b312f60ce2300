"""Readers of files under damage of any kind: what they were given whole, or one clear line."""

import signal

import mxnet as mx
import numpy as np
import pytest
from conftest import write_cifar100, write_fashion
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mxnet import gluon
from PIL import Image

from training.config import recipe as recipes
from training.config.schema import CifarRecipe, Optimisation
from training.data import datasets, download
from training.data.pictures import PictureError, read_picture
from training.errors import UserError
from training.optim.trainer import build_trainer
from training.runs import checkpoint, tables
from training.runs.features import Snapshot
from training.runs.folder import RunFolder
from training.runs.run import read_run
from training.runs.weights import load_weights, named_parameters, save_weights

EXAMPLES = 60  # for each kind of file
SECONDS = 5  # of computing: a reader that takes more hangs


@st.composite
def damages(draw):
    """A function from bytes to bytes: some bytes changed, some cut off, removed or put in."""
    share = st.floats(0, 1, exclude_max=True)
    changed = draw(st.lists(st.tuples(share, st.integers(0, 255)), max_size=4))
    kept = draw(st.one_of(st.just(1.0), share))
    inserted = draw(st.tuples(share, st.binary(max_size=8)))

    def damage(content):
        content = bytearray(content[: round(kept * len(content))])
        for where, value in changed if content else ():
            content[int(where * len(content))] = value
        where = int(inserted[0] * len(content))
        return bytes(content[:where] + inserted[1] + content[where:])

    return damage


def small_net():
    net = gluon.nn.HybridSequential()
    net.add(
        gluon.nn.Conv2D(2, 3, in_channels=1), gluon.nn.BatchNorm(in_channels=2), gluon.nn.Dense(2, in_units=8)
    )
    net.initialize()
    trainer = build_trainer(named_parameters({'net': net}).values(), Optimisation())
    with mx.autograd.record():
        loss = (net(mx.nd.ones((2, 1, 4, 4))) ** 2).sum()
    loss.backward()
    trainer.step(2)
    return net, trainer


def values(net):
    return [parameter.data().asnumpy() for parameter in net._collect_params_with_prefix().values()]


def checkpoints(folder):
    net, trainer = small_net()
    path, kept = folder / 'c.npz', values(net)
    state = {'epoch': 1, 'step': 0, 'totals': [0.0, 0.0], 'seconds': 0.0, 'history': []}
    checkpoint.save_checkpoint(path, {'net': net}, [trainer], state)

    def read():  # zip files have a sum of each part: what is read is what was written
        try:
            assert checkpoint.load_checkpoint(path, {'net': net}, [trainer])
        finally:
            assert all(map(np.array_equal, values(net), kept))

    return path, read


def weights(folder):
    net, _ = small_net()
    save_weights(folder / 'w.params', net)
    return folder / 'w.params', lambda: load_weights(folder / 'w.params', net, [mx.cpu()])


def idx_files(folder, ending, name):
    write_fashion(folder, 5)
    path = folder / f'{name}.gz'
    if not ending:
        path = folder / name
        path.write_bytes(download.read(folder, name))

    def read():
        for split in datasets.load_mnist('fashion', folder):
            assert split.images.shape == (len(split), 1, 28, 28) and split.labels.max() < 10

    return path, read


def cifar_files(folder):
    write_cifar100(folder, 4, 4)

    def read():
        for split in datasets.load_cifar100(folder):
            assert split.images.shape == (len(split), 3, 32, 32) and split.labels.max() < 100

    return folder / 'train.bin', read


def pictures(folder, ending):
    path = folder / f'picture.{ending}'
    Image.fromarray(np.arange(48 * 40 * 3, dtype=np.uint8).reshape(40, 48, 3)).save(path)

    def read():
        try:
            image = read_picture(path, (3, 32, 32))
        except PictureError as error:  # predict.py names the file
            raise UserError(f'{path}: {error}') from None
        assert image.shape == (3, 32, 32) and image.dtype == np.uint8

    return path, read


def snapshots(folder):
    path = folder / 'features.npz'
    with open(path, 'wb') as file:
        Snapshot(*[np.zeros((3, 2)), np.arange(3)] * 2).save(file)
    return path, lambda: Snapshot.load(path)


def run_files(folder, name):
    run = RunFolder(folder / 'run')
    run.start(recipes.load_recipe(recipes.version_path('cifar', 'fast'), CifarRecipe, {}))
    rows = [{'epoch': epoch, 'val_acc': 0.5, 'seconds': 1.0, 'images_per_second': 9.0} for epoch in (1, 2)]
    run.write_metrics(rows)
    run.write_summary(
        {
            'version': 'fast',
            'epochs': 2,
            'val_acc': 0.5,
            'best_val_acc': 0.5,
            'best_epoch': 1,
            'reported_val_acc': None,
            'images_per_second': 9.0,
            'seconds': 2.0,
            'dtype': 'float32',
            'seed': 0,
        }
    )

    def read():
        recipes.load_run(run.config)
        tables.run_table([read_run(run.path)])
        run.read_summary()

    return run.path / name, read


KINDS = {
    'checkpoint': checkpoints,
    'weights': weights,
    'gzipped images': lambda folder: idx_files(folder, '.gz', 'train-images-idx3-ubyte'),
    'images': lambda folder: idx_files(folder, '', 't10k-images-idx3-ubyte'),
    'labels': lambda folder: idx_files(folder, '', 'train-labels-idx1-ubyte'),
    'CIFAR rows': cifar_files,
    'PNG': lambda folder: pictures(folder, 'png'),
    'JPEG': lambda folder: pictures(folder, 'jpg'),
    'WebP': lambda folder: pictures(folder, 'webp'),
    'GIF': lambda folder: pictures(folder, 'gif'),
    'features': snapshots,
    'config.yaml': lambda folder: run_files(folder, 'config.yaml'),
    'metrics.csv': lambda folder: run_files(folder, 'metrics.csv'),
    'summary.json': lambda folder: run_files(folder, 'summary.json'),
}


@pytest.fixture
def bounded():
    """Ends a reader that computes without end; a busy machine costs it nothing."""

    def stop(*_):
        pytest.fail(f'no answer in {SECONDS} s of computing')

    kept = signal.signal(signal.SIGPROF, stop)
    yield lambda seconds: signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, kept)


@pytest.mark.parametrize('kind', KINDS)
def test_damaged_file_is_read_whole_or_refused_in_one_line(kind, tmp_path, bounded):
    path, read = KINDS[kind](tmp_path)
    content = path.read_bytes()
    read()
    refused = 0

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damages())
    def check(damage):
        nonlocal refused
        path.write_bytes(damage(content))
        bounded(SECONDS)
        try:
            read()
        except UserError as error:
            refused += 1
            assert '\n' not in str(error) and str(tmp_path) in str(error)
        bounded(0)

    check()
    assert refused
