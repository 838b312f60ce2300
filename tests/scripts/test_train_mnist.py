"""train_mnist.py as its users run it, on small real data."""

import csv
import json
import re

import mxnet as mx
import numpy as np
import pytest
import yaml
from conftest import write_idx
from PIL import Image
from small_runs import SMALL_MNIST, run_fields

from gmloss import LGMLoss
from training.data import datasets
from training.runs.sample import Sample


@pytest.fixture(scope='module')
def center_run(tmp_path_factory, run_script):
    """Two plotted epochs of softmax + center loss."""
    folder = tmp_path_factory.mktemp('runs') / 'mnist-softmax-center'
    words = '--output-dir', folder, '--plotting', '--epochs', 2, '--lr', 0.02
    result = run_script('train_mnist.py', *SMALL_MNIST, *words)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_plotted_run_leaves_maps_an_animation_a_page_and_both_accuracies(center_run):
    folder, output = center_run
    names = sorted(path.name for path in (folder / 'features').iterdir())
    frames = [f'epoch-00{epoch}.{ending}' for epoch in (1, 2) for ending in ('npz', 'png')]
    assert names == [*frames, 'sample.npz']
    assert len(Sample.load(folder / 'features' / 'sample.npz').class_names) == 10
    assert Image.open(folder / 'features.gif').n_frames == 2
    with open(folder / 'metrics.csv') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(row['knn_acc'] for row in rows)
    assert json.loads((folder / 'summary.json').read_text())['reported_val_acc'] == 0.9873
    assert output.strip().splitlines()[-1] == f'feature space: {folder / "features.html"}'
    assert (folder / 'features.html').stat().st_size > 1e6


def test_evaluation_by_class_output_and_by_nearest_center(train_small, center_run, capsys, no_figures):
    folder, _ = center_run
    with open(folder / 'metrics.csv') as file:
        last = list(csv.DictReader(file))[-1]
    for method, column in (('softmax', 'val_acc'), ('knn', 'knn_acc')):
        weights = folder / 'last.params'
        assert train_small(folder, '--test', '--eval-method', method, '--weights', weights) == 0
        wanted = f'accuracy {float(last[column]):.4f} by {method} on 60'
        assert wanted in capsys.readouterr().out


def test_second_train_starts_from_those_weights_and_leaves_the_centers(
    train_small, center_run, capsys, no_figures
):
    folder, _ = center_run
    second = folder.with_name('mnist-center')
    assert train_small(second, '--second-train', '--epochs', 1) == 0
    assert str(folder / 'best.params') in capsys.readouterr().out
    before, after = (
        mx.nd.load(str(run / name)) for run, name in ((folder, 'best.params'), (second, 'last.params'))
    )
    np.testing.assert_array_equal(
        before['center_loss.centers.weight'].asnumpy(), after['center_loss.centers.weight'].asnumpy()
    )
    assert (before['net.body.0.weight'] - after['net.body.0.weight']).abs().max().asscalar() > 0


def test_softmax_run_is_searched_by_class_means(train_small, run_here, tmp_path, capsys, no_figures):
    folder = tmp_path / 'mnist-softmax'
    words = ('--version', 'softmax', '--output-dir', folder)
    assert train_small(folder, '--version', 'softmax', '--epochs', 1) == 0
    assert run_here('train_mnist', *words, '--test', '--eval-method', 'knn') == 0
    output = capsys.readouterr().out
    assert 'class means of the training features serve' in output
    assert 'by knn on 60' in output


def test_nearest_class_mean_where_some_classes_do_not_occur(run_here, tmp_path, capsys, no_figures):
    digits = datasets.load_mnist(num_samples=400)
    for part, split in zip(('train', 't10k'), digits):
        chosen = split.select(np.isin(split.labels, (1, 4, 9)))
        for kind, array in (('images-idx3', chosen.images[:, 0]), ('labels-idx1', chosen.labels)):
            write_idx(tmp_path / f'{part}-{kind}-ubyte.gz', array)
    fields = '--version softmax --dataset idx --lr 0.01 --batch-size 20 --dtype float32'
    words = *fields.split(), '--data-dir', tmp_path, '--output-dir', tmp_path / 'run'
    assert run_here('train_mnist', *words, '--epochs', 5) == 0
    assert 'the source reports none' in capsys.readouterr().out
    assert run_here('train_mnist', *words, '--test', '--eval-method', 'knn') == 0
    accuracy = re.search(r'accuracy ([\d.]+) by knn', capsys.readouterr().out)[1]
    assert float(accuracy) > 0.6


def test_decay_that_the_schedule_does_not_have_is_told(train_small, tmp_path, capsys):
    words = '--version', 'lgm-full', '--lr-step', 4, '--test', '--weights', tmp_path / 'none'
    assert train_small(tmp_path / 'run', *words) == 2
    assert '--decay-epochs: has no effect here' in capsys.readouterr().out


def test_margin_grows_step_by_step(train_small, tmp_path, monkeypatch, no_figures):
    margins, kept = [], LGMLoss.set_margin
    monkeypatch.setattr(LGMLoss, 'set_margin', lambda loss, alpha: margins.append(alpha) or kept(loss, alpha))
    words = (
        '--version lgm-off --epochs 1 --margin 0.1 --margin-factor 2 --margin-every 2 --margin-maximum 0.3'
    )
    assert train_small(tmp_path / 'run', *words.split()) == 0
    assert margins == pytest.approx([0.1, 0.2, 0.3])  # at steps 0, 2 and 4 of 6


def test_published_validation_is_told_the_label(train_small, tmp_path, no_figures):
    words = '--version lgm-off --epochs 1 --validate-with-label --margin 5'
    assert train_small(tmp_path / 'run', *words.split()) == 0
    (row,) = run_fields(tmp_path / 'run')
    assert 0 <= float(row['val_acc_with_label']) < float(row['val_acc']) - 0.05


def test_weights_bring_the_recipe_of_their_run(train_small, run_here, tmp_path, capsys, no_figures):
    run = tmp_path / 'run'
    assert train_small(run, '--version', 'softmax', '--epochs', 1, '--no-bias', '--feature-size', 5) == 0
    capsys.readouterr()
    for file in ('last.params', 'best.params'):
        assert run_here('train_mnist', '--test', '--weights', run / file) == 0
        output = capsys.readouterr().out
        assert f'recipe {run / "config.yaml"}' in output
        assert f'accuracy {float(run_fields(run)[0]["val_acc"]):.4f} by softmax on 60' in output


@pytest.mark.parametrize(
    'words',
    [
        ('--version', 'lgm-off', '--epochs', 1, '--no-bias'),
        ('--version', 'lgm-distance', '--epochs', 1),
        ('--version', 'lgm-slow-variance', '--epochs', 1),
        ('--version', 'lgm-full', '--epochs', 1, '--plotting', '--feature-size', 3),
    ],
)
def test_variants_run_to_the_end(train_small, tmp_path, capsys, words):
    assert train_small(tmp_path / 'run', *words) == 0
    captured = capsys.readouterr()
    assert 'val acc' in captured.out and 'could not be drawn' not in captured.err
    drawn = {path.name for path in (tmp_path / 'run').rglob('*') if path.suffix != '.params'}
    maps = {'epoch-001.png', 'features.gif', 'features.npz'}
    assert drawn >= {'likelihood.png', 'curves.png'} and maps & drawn == (
        maps if '--plotting' in words else set()
    )


def test_plotting_of_a_run_that_is_finished_already_says_that_it_has_no_maps(train_small, tmp_path, capsys):
    run = tmp_path / 'run'
    assert train_small(run, '--version', 'softmax', '--epochs', 1) == 0
    assert train_small(run, '--version', 'softmax', '--epochs', 1, '--resume', '--plotting') == 0
    captured = capsys.readouterr()
    assert 'feature space: not drawn' in captured.out
    assert not any((run / name).exists() for name in ('features.gif', 'features.html'))
    assert 'could not be drawn' not in captured.err


@pytest.mark.parametrize(
    'command, version, folder, fields',
    [
        (
            '--train --prefix=softmax-loss --epochs 1 --lr 0.1 --lr_step 10 --batch_size 128 '
            '--num_classes 10 --feature_size 2 --use_gpu True',
            'softmax',
            'mnist-softmax-loss',
            {'lr': 0.1, 'decay_epochs': [], 'batch_size': 128, 'decay_factor': 0.1},
        ),
        (
            '--train --center_loss --prefix=center-loss --lmbd 0.3 --alpha 0.4 --epochs 1 --lr 0.05 '
            '--lr_step 0.4 --lr_factor 0.2 --wd 0.001 --batch_size 100 --num_classes 10 --feature_size 3 '
            '--use_gpu False',
            'softmax-center',
            'mnist-center-loss',
            {
                'lr': 0.05,
                'decay_epochs': [0.4, 0.8],
                'batch_size': 100,
                'decay_factor': 0.2,
                'wd': 0.001,
                'lmbd': 0.3,
                'alpha': 0.4,
                'feature_size': 3,
            },
        ),
    ],
)
def test_training_commands_of_center_loss_in_mxnet_work(
    run_here, tmp_path, command, version, folder, fields, no_figures
):
    assert run_here('train_mnist', *command.split(), '--out_dir', tmp_path, '--num-samples', 128) == 0
    assert json.loads((tmp_path / folder / 'summary.json').read_text())['version'] == version
    sections = yaml.safe_load((tmp_path / folder / 'config.yaml').read_text()).values()
    found = {name: value for section in sections for name, value in section.items()}
    assert {name: found[name] for name in fields} == fields


def test_its_second_train_and_tests_follow_its_training(run_here, tmp_path, capsys, no_figures):
    common = (
        '--prefix=center-loss --lmbd 1 --batch_size 128 --num_classes 10 --feature_size 2 --use_gpu False'
    )
    training = f'{common} --alpha 0.5 --epochs 1 --lr 0.01 --lr_step 10'
    for command in (
        f'--train --center_loss {training}',
        f'--second_train {training}',
        f'--test {common} --eval_method softmax',
        f'--test {common} --eval_method knn',
    ):
        assert run_here('train_mnist', *command.split(), '--ckpt_dir', tmp_path, '--num-samples', 128) == 0, (
            command
        )
    output = capsys.readouterr().out
    assert f'weights: {tmp_path / "mnist-center-loss" / "best.params"}' in output
    for name, loss in (('mnist-center-loss', 'softmax-center'), ('mnist-center-loss-second', 'center')):
        assert yaml.safe_load((tmp_path / name / 'config.yaml').read_text())['loss']['loss'] == loss
    assert re.findall(r'accuracy [\d.]+ by (\w+) on', output) == ['softmax', 'knn']


def test_two_folders_for_one_run_are_refused(run_here, tmp_path, capsys):
    folders = '--ckpt_dir', tmp_path / 'a', '--out_dir', tmp_path / 'b'
    assert run_here('train_mnist', '--prefix', 'run', *folders) == 2
    assert 'a run has one folder' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_method_that_a_run_does_not_have_is_refused(train_small, center_run, capsys):
    assert train_small(center_run[0], '--test', '--eval-method', 'lgm') == 2
    assert (
        '--eval-method lgm: a run with --loss softmax-center can be evaluated by softmax or knn'
        in capsys.readouterr().err
    )
