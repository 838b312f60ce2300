"""train_images.py from a folder of images to a run that every other command takes."""

import csv
import json
import re
import shutil
from pathlib import Path

import mxnet as mx
import numpy as np
import onnx
import pytest
import yaml
from photos import NAMES, write_photos, write_set
from small_runs import run_fields, same_weights

from training.config import recipe as recipes
from training.nets import zoo
from training.runs import tables
from training.runs.run import by_recipe, read_run

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
    assert run.summary['validated_on'] == '18 val images'
    assert ('knn_acc' in run.metrics[0]) == (loss == 'softmax-center')
    weights = mx.nd.load(str(runs / loss / 'last.params'))
    assert any(
        name.endswith('embedding.weight') and array.shape == (8, 256) for name, array in weights.items()
    )


def test_resumed_run_is_the_whole_one(train, tmp_path, run_here, photos, no_figures):
    fields = '--loss', 'softmax-center', '--feature-size', 8, '--schedule', 'step', '--warmup', 'none'
    train(tmp_path / 'run', *fields, '--epochs', 1)
    train(tmp_path / 'whole', *fields)
    words = '--output-dir', tmp_path / 'run', '--data-dir', photos, '--resume', '--epochs', 2
    assert run_here('train_images', *words) == 0
    assert run_fields(tmp_path / 'run') == run_fields(tmp_path / 'whole')
    assert same_weights(tmp_path / 'run', tmp_path / 'whole')


def test_run_may_begin_on_small_images(train, tmp_path):
    fields = '--resolutions', '16:1', '32:1', '--schedule', 'step', '--warmup', 'none'
    train(tmp_path / 'run', *fields, '--epochs', 2)
    row, _ = run_fields(tmp_path / 'run')
    train(tmp_path / 'half', '--schedule', 'step', '--warmup', 'none', '--epochs', 1)
    assert row['train_loss'] != run_fields(tmp_path / 'half')[0]['train_loss']
    assert read_run(tmp_path / 'run').finished


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
    run = read_run(runs / 'softmax-center')
    top1 = re.search(r'^top-1 (\S+),', out, re.M)[1]
    assert run.summary['test']['images'] == 15 and f'{run.summary["test"]["top1_acc"]:.4f}' == top1
    assert f'| {top1} | - |' in tables.photograph_table(by_recipe([run]))


def test_unfinished_run_is_tested_too(runs, run_here, photos, tmp_path, capsys):
    for name in ('config.yaml', 'best.params'):
        shutil.copy(runs / 'lgm' / name, tmp_path)
    assert run_here('train_images', '--test', '--data-dir', photos, '--output-dir', tmp_path) == 0
    assert 'by lgm on 15 test images' in capsys.readouterr().out
    assert not (tmp_path / 'summary.json').exists()


def test_backbone_of_gluoncv_and_of_another_run_is_loaded(runs, train, tmp_path, capsys, no_figures):
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


def test_priors_and_weights_of_classes_follow_the_counts(train, tmp_path, cifar, run_here, no_figures):
    folder = write_set(tmp_path, cifar)
    write_photos(folder / 'train', cifar[0], 24, names=NAMES[:1], first=12)
    words = ('--data-dir', folder, '--output-dir', tmp_path / 'run', '--class-prior', 'counts',
             '--class-weight-power', 1)  # fmt: skip
    assert run_here('train_images', *SMALL, *words) == 0
    prior = np.exp(mx.nd.load(str(tmp_path / 'run' / 'last.params'))['mixture.log_prior'].asnumpy()) / 3
    order = [sorted(NAMES).index(name) for name in NAMES]
    np.testing.assert_allclose(prior[order], [0.6, 0.2, 0.2], rtol=1e-5)


@pytest.mark.parametrize('loss', ['lgm', 'softmax'])
def test_pictures_are_predicted_as_they_were_validated_with_embeddings(
    loss, runs, photos, run_here, tmp_path
):
    for ending in ('.csv', '.npz'):
        words = '--output', tmp_path / 'out.json', '--embeddings', tmp_path / f'out{ending}'
        assert run_here('predict', runs / loss, photos / 'val', *words) == 0
    rows = json.loads((tmp_path / 'out.json').read_text())
    accuracy = np.mean([Path(row['file']).parent.name == row['class'] for row in rows])
    assert len(rows) == 18 and accuracy == pytest.approx(read_run(runs / loss).summary['val_acc'], abs=0.06)
    with np.load(tmp_path / 'out.npz') as stored:
        assert stored['features'].shape == (18, 8) and stored['classes'].tolist() == [
            row['class'] for row in rows
        ]
        features = stored['features']
    table = list(csv.reader(open(tmp_path / 'out.csv')))
    assert table[0] == ['file', 'class', *map(str, range(8))]
    np.testing.assert_allclose(np.array([row[2:] for row in table[1:]], float), features, rtol=1e-6)


def test_class_table_figure_and_page_of_mistakes(runs, photos, capsys):
    folder = runs / 'softmax'
    table = list(csv.DictReader(open(folder / 'classes.csv')))
    assert [row['class'] for row in table] == sorted(NAMES) and {row['images'] for row in table} == {'6'}
    summary = read_run(folder).summary
    balanced = np.mean([float(row['accuracy']) for row in table])
    assert summary['balanced_acc'] == pytest.approx(balanced, abs=1e-3) and summary['top5_acc'] == 1
    page = (folder / 'mistakes.html').read_text()
    wrong = round(18 * (1 - summary['val_acc']))
    assert page.count('<figure>') == wrong and f'{wrong} of 18 val images' in page
    assert (folder / 'classes.png').stat().st_size > 5000


def test_export_holds_classes_and_says_how_images_are_prepared(runs, run_here, tmp_path):
    assert run_here('export', runs / 'lgm', '--onnx', '--output-dir', tmp_path) == 0
    about = json.loads((tmp_path / 'model.json').read_text())
    assert about['classes'] == sorted(NAMES) and 'short side of 37' in about['image']
    metadata = {
        entry.key: json.loads(entry.value) for entry in onnx.load(str(tmp_path / 'model.onnx')).metadata_props
    }
    assert metadata == about


def test_other_images_are_set_against_a_run(runs, run_here, cifar, tmp_path, no_figures):
    write_photos(tmp_path / 'others', cifar[1], 4, names=['truck'], first=90)
    words = '--against', tmp_path / 'others', '--samples', 6, '--output-dir', tmp_path / 'out'
    assert run_here('detect', runs / 'lgm', *words, '--softmax-run', runs / 'softmax') == 0
    sets = json.loads((tmp_path / 'out' / 'detection.json').read_text())['sets']
    assert {'others', 'CIFAR-10', 'uniform noise', 'FGSM 2/255'} <= set(sets)
    assert 0 <= sets['others']['scores']['log_likelihood']['auroc'] <= 1


def test_runs_on_images_are_compared(runs, run_here, tmp_path, capsys):
    assert run_here('compare', *runs.iterdir(), '--output-dir', tmp_path) == 0
    text = (tmp_path / 'comparison.md').read_text()
    assert 'balanced' in text and 'Images in photos' in text
    assert len(list(tmp_path.glob('accuracy-images-in-photos*.png'))) == 1


def test_verification_on_other_classes(runs, run_here, cifar, tmp_path, capsys):
    names = ['frog', 'horse', 'ship']
    write_photos(tmp_path / 'others', cifar[1], 5, names=names, first=30)
    shutil.copytree(runs / 'lgm', tmp_path / 'lgm')
    assert run_here('verify', tmp_path / 'lgm', '--data-dir', tmp_path / 'others') == 0
    assert 'training classes too, which is no fair test: ship' in capsys.readouterr().out
    report = json.loads((tmp_path / 'lgm' / 'verification.json').read_text())
    assert read_run(tmp_path / 'lgm').summary['verification']['results'] == report['results']
    assert run_here('compare', tmp_path / 'lgm', '--output-dir', tmp_path / 'out') == 0
    assert '## Verification on others' in (tmp_path / 'out' / 'comparison.md').read_text()
    assert report['pairs'] == 15 * 14 / 2 and report['pairs_of_one_class'] == 30
    assert set(report['results']) == {
        'features, cosine', 'features, euclidean', 'pixels, cosine', 'pixels, euclidean',
    }  # fmt: skip
    assert all(0 <= value <= 1 for row in report['results'].values() for value in row.values())


def test_verification_of_a_list_of_pairs(runs, run_here, cifar, tmp_path, capsys):
    for name in ('a b', 'c'):
        for number, path in enumerate(write_photos(tmp_path / 'lfw', cifar[0], 2, names=[name]), 1):
            path.rename(path.with_name(f'{name}_{number:04d}{path.suffix}'))
    pairs = tmp_path / 'pairs.txt'
    words = (
        'verify',
        runs / 'softmax',
        '--data-dir',
        tmp_path / 'lfw',
        '--output-dir',
        tmp_path,
        '--pairs',
        pairs,
    )
    pairs.write_text('1\t1\na b\t1\t2\nc\t1\t2\na b\t1\tc\t2\n')
    assert run_here(*words) == 0
    assert json.loads((tmp_path / 'verification.json').read_text())['pairs'] == 3
    for text in ('', 'a b\t1\t2\n', 'a b\t1\t9\nc\t1\t2\n'):
        pairs.write_text(text)
        capsys.readouterr()
        assert run_here(*words) == 2
        assert str(pairs) in capsys.readouterr().err


@pytest.mark.parametrize(
    'words, message',
    [
        ((), 'data-dir: name the folder'),
        (('--data-dir', 'nowhere'), 'nowhere: there is no such folder'),
        (('--mixup', '0.2', '--loss', 'softmax-center'), 'mixup: the center loss needs images of one class'),
        (('--image-size', '-1'), 'image-size'),
        (('--resolutions', '320:2', '--data-dir', '.'), 'sizes go up to the --image-size, which is 128'),
        (('--resolutions', '96:1', '--teacher', 'resnet18_v1b'), 'a teacher takes images of one size'),
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
