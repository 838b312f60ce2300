"""train_mnist.py as its users run it, on small real data."""
import csv
import json

import numpy as np
import pytest
from PIL import Image

from conftest import write_idx

SMALL = ('--num-samples', 300, '--batch-size', 50)


def train(run_here, folder, *words):
    return run_here('train_mnist', *SMALL, '--output-dir', folder, *words)


@pytest.fixture(scope='module')
def center_run(tmp_path_factory):
    """Two plotted epochs of softmax + center loss."""
    import subprocess
    import sys
    from conftest import ROOT
    folder = tmp_path_factory.mktemp('runs') / 'mnist-softmax-center'
    result = subprocess.run([sys.executable, 'train_mnist.py', *map(str, SMALL), '--output-dir',
                             str(folder), '--plotting', '--epochs', '2', '--lr', '0.02'], cwd=ROOT,
                            text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_plotted_run_leaves_maps_an_animation_and_both_accuracies(center_run):
    folder, output = center_run
    frames = sorted((folder / 'features').iterdir())
    assert [frame.name for frame in frames] == ['epoch-001.png', 'epoch-002.png']
    assert Image.open(folder / 'features.gif').n_frames == 2
    with open(folder / 'metrics.csv') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(0 <= float(row['knn_acc']) <= 1 for row in rows)
    assert json.loads((folder / 'summary.json').read_text())['reported_val_acc'] == 0.9873
    assert output.strip().splitlines()[-1].endswith('features.gif')


def test_evaluation_by_class_output_and_by_nearest_center(center_run, run_script):
    folder, _ = center_run
    with open(folder / 'metrics.csv') as file:
        last = list(csv.DictReader(file))[-1]
    for method, column in (('softmax', 'val_acc'), ('knn', 'knn_acc')):
        result = run_script('train_mnist.py', '--test', '--eval-method', method, '--output-dir',
                            folder, '--weights', folder / 'last.params', *SMALL)
        assert f'accuracy {float(last[column]):.4f} by {method} on 300' in result.stdout


def test_second_train_starts_from_those_weights_and_leaves_the_centers(center_run, run_here,
                                                                       capsys):
    import mxnet as mx
    folder, _ = center_run
    second = folder.with_name('mnist-center')
    assert train(run_here, second, '--second-train', '--epochs', 1) == 0
    assert str(folder / 'best.params') in capsys.readouterr().out
    before, after = (mx.nd.load(str(run / name)) for run, name in
                     ((folder, 'best.params'), (second, 'last.params')))
    np.testing.assert_array_equal(before['center_loss.centers.weight'].asnumpy(),
                                  after['center_loss.centers.weight'].asnumpy())
    assert (before['net.body.0.weight'] - after['net.body.0.weight']).abs().max().asscalar() > 0


def test_softmax_run_is_searched_by_class_means(run_here, tmp_path, capsys):
    folder = tmp_path / 'mnist-softmax'
    words = ('--version', 'softmax', '--output-dir', folder)
    assert run_here('train_mnist', *SMALL, *words, '--epochs', 1) == 0
    assert run_here('train_mnist', *words, '--test', '--eval-method', 'knn') == 0
    output = capsys.readouterr().out
    assert 'class means of the training features serve' in output
    assert 'by knn on 300' in output


@pytest.mark.parametrize('words', [
    ('--version', 'two-phase', '--epochs', 2, '--first-phase-epochs', 1),
    ('--version', 'lgm-off', '--epochs', 1, '--no-bias'), ('--version', 'lgm-distance', '--epochs', 1),
    ('--version', 'lgm-slow-variance', '--epochs', 1),
    ('--version', 'lgm-full', '--epochs', 1, '--plotting', '--feature-size', 3)])
def test_variants_run_to_the_end(run_here, tmp_path, capsys, words):
    assert train(run_here, tmp_path / 'run', *words) == 0
    assert 'val acc' in capsys.readouterr().out


@pytest.mark.parametrize('command, version, folder', [
    ('--train --prefix=softmax-loss --epochs 1 --lr 0.1 --lr_step 10 --batch_size 128 '
     '--num_classes 10 --feature_size 2 --use_gpu True', 'softmax', 'mnist-softmax-loss'),
    ('--train --center_loss --prefix=center-loss --lmbd 1 --alpha 0.5 --epochs 1 --lr 0.1 '
     '--lr_step 10 --batch_size 128 --num_classes 10 --feature_size 2 --use_gpu True',
     'softmax-center', 'mnist-center-loss')])
def test_command_lines_of_the_seed_work(run_here, tmp_path, command, version, folder):
    assert run_here('train_mnist', *command.split(), '--out_dir', tmp_path, '--num-samples',
                    300) == 0
    assert json.loads((tmp_path / folder / 'summary.json').read_text())['version'] == version


def test_method_that_a_run_does_not_have_is_refused(center_run, run_here, capsys):
    assert train(run_here, center_run[0], '--test', '--eval-method', 'lgm') == 2
    assert '--eval-method lgm: a run with --loss softmax-center can be evaluated by softmax or knn' \
        in capsys.readouterr().err


def test_own_data_in_idx_format(tmp_path):
    from training import data
    rng = np.random.default_rng(0)
    for part in ('train', 't10k'):
        write_idx(tmp_path / f'{part}-images-idx3-ubyte.gz', rng.integers(0, 256, (60, 28, 28)))
        write_idx(tmp_path / f'{part}-labels-idx1-ubyte.gz', rng.integers(0, 10, 60))
    train_split, test_split = data.load_mnist('fashion', tmp_path)
    assert train_split.images.shape == (60, 1, 28, 28) and len(test_split) == 60
