"""train_images.py from a folder of images to a run that every other command takes."""

import json

import mxnet as mx
import numpy as np
import pytest
import yaml
from conftest import run_fields, same_weights
from photos import NAMES, write_photos, write_set

from training.config import recipe as recipes
from training.nets import zoo
from training.runs.run import read_run

SMALL = (
    *('--version', 'scratch-small', '--model', 'mobilenet0.25', '--image-size', 32, '--batch-size', 9),
    *('--epochs', 2, '--lr', 0.02, '--dtype', 'float32'),
)


@pytest.fixture(scope='module')
def photos(tmp_path_factory, cifar):
    folder = write_set(tmp_path_factory.mktemp('photos'), cifar)
    write_photos(folder / 'test', cifar[1], 5, first=60)
    return folder


@pytest.fixture(scope='module')
def train(run_here, photos):
    def run(folder, *words, code=0):
        words = (*SMALL, '--data-dir', photos, '--output-dir', folder, *words)
        assert run_here('train_images', *words) == code

    return run


@pytest.fixture(scope='module')
def runs(train, tmp_path_factory):
    """A run of each loss, with an embedding."""
    folder = tmp_path_factory.mktemp('runs')
    for loss in ('lgm', 'softmax', 'softmax-center'):
        train(folder / loss, '--loss', loss, '--feature-size', 8)
    return folder


@pytest.mark.parametrize('loss', ['lgm', 'softmax', 'softmax-center'])
def test_run_of_each_loss_has_its_files_and_classes(runs, loss):
    run = read_run(runs / loss)
    assert run.finished and run.data.startswith('Images in photos') and run.images == 18
    config = yaml.safe_load((runs / loss / 'config.yaml').read_text())
    assert config['data']['classes'] == sorted(NAMES) and config['data']['image_size'] == 32
    assert run.summary['validated_on'] == 'the 18 val images'
    assert ('knn_acc' in run.metrics[0]) == (loss == 'softmax-center')
    weights = mx.nd.load(str(runs / loss / 'last.params'))
    assert any(
        name.endswith('embedding.weight') and array.shape == (8, 256) for name, array in weights.items()
    )


def test_resumed_run_is_the_whole_one(train, tmp_path, run_here, photos):
    fields = '--loss', 'softmax-center', '--feature-size', 8, '--schedule', 'step', '--warmup', 'none'
    train(tmp_path / 'run', *fields, '--epochs', 1)
    train(tmp_path / 'whole', *fields)
    words = '--output-dir', tmp_path / 'run', '--data-dir', photos, '--resume', '--epochs', 2
    assert run_here('train_images', *words) == 0
    assert run_fields(tmp_path / 'run') == run_fields(tmp_path / 'whole')
    assert same_weights(tmp_path / 'run', tmp_path / 'whole')


def test_resumption_with_other_images_is_refused(runs, run_here, tmp_path, cifar, capsys):
    folder = write_set(tmp_path, cifar, train=11)
    words = (
        '--output-dir',
        runs / 'lgm',
        '--data-dir',
        folder,
        '--resume',
        '--schedule',
        'step',
        '--epochs',
        3,
    )
    assert run_here('train_images', *words) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and ('other' in error or 'schedule' in error)


def test_test_takes_the_test_set(runs, run_here, photos, capsys):
    for words in (
        ('--output-dir', runs / 'softmax-center'),
        ('--weights', runs / 'softmax-center' / 'last.params'),
    ):
        assert run_here('train_images', '--test', '--data-dir', photos, *words) == 0
        out = capsys.readouterr().out
        assert 'by softmax' in out and 'by knn on 15 test images' in out


def test_backbone_of_gluoncv_and_of_another_run_is_loaded(runs, train, tmp_path, capsys):
    mx.random.seed(1)
    stock = zoo.zoo_model('mobilenet0.25', 7)
    stock.initialize(mx.init.Xavier())
    stock(mx.nd.zeros((1, 3, 32, 32)))
    stock.save_parameters(str(tmp_path / 'stock.params'))
    train(tmp_path / 'run', '--backbone', tmp_path / 'stock.params', '--freeze-backbone', '--epochs', 1)
    out = capsys.readouterr().out
    assert 'stock.params: 135 of 135 arrays of the net loaded' in out
    assert 'of the file left out: output.weight, output.bias' in out
    loaded = mx.nd.load(str(tmp_path / 'run' / 'last.params'))
    for name, parameter in stock.features._collect_params_with_prefix().items():
        np.testing.assert_array_equal(loaded[f'net.features.{name}'].asnumpy(), parameter.data().asnumpy())
    for loss in ('lgm', 'softmax', 'softmax-center'):
        train(
            tmp_path / 'next', '--backbone', runs / loss / 'last.params', '--feature-size', 8, '--epochs', 1
        )
        assert 'last.params: 136 of 137 arrays' in capsys.readouterr().out or loss
    train(tmp_path / 'none', '--backbone', tmp_path / 'stock.params', '--model', 'squeezenet1.1', code=2)
    assert 'arrays fits this net; choose the --model' in capsys.readouterr().err


def test_priors_and_weights_of_classes_follow_the_counts(train, tmp_path, cifar, run_here):
    folder = write_set(tmp_path, cifar)
    write_photos(folder / 'train', cifar[0], 24, names=NAMES[:1], first=12)
    words = ('--data-dir', folder, '--output-dir', tmp_path / 'run', '--class-prior', 'counts',
             '--class-weight-power', 1)  # fmt: skip
    assert run_here('train_images', *SMALL, *words) == 0
    prior = np.exp(mx.nd.load(str(tmp_path / 'run' / 'last.params'))['mixture.log_prior'].asnumpy()) / 3
    order = [sorted(NAMES).index(name) for name in NAMES]
    np.testing.assert_allclose(prior[order], [0.6, 0.2, 0.2], rtol=1e-5)


@pytest.mark.parametrize(
    'words, message',
    [
        ((), 'data-dir: name the folder'),
        (('--data-dir', 'nowhere'), 'nowhere: there is no such folder'),
        (('--mixup', '0.2', '--loss', 'softmax-center'), 'mixup: the center loss needs images of one class'),
        (('--image-size', '-1'), 'image-size'),
        (('--validate-on', 'all'), 'validate-on'),
    ],
)
def test_mistakes_are_one_line(words, message, run_here, capsys, tmp_path):
    assert run_here('train_images', *words, '--output-dir', tmp_path / 'run') == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    'path', sorted((recipes.CONFIGS / 'images').glob('*.yaml')), ids=lambda path: path.stem
)
def test_recipes_are_valid(path):
    recipe = recipes.load_recipe(path, recipes.ImagesRecipe, {})
    assert recipe.optimisation.epochs and recipe.model.model in path.read_text()
    assert not recipes.without_effect(recipe, set(yaml.safe_load(path.read_text())['data']))


def test_summary_is_json(runs):
    json.loads((runs / 'lgm' / 'summary.json').read_text())
