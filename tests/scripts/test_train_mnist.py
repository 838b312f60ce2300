"""train_mnist.py as its users run it, on small real data."""

import csv
import json
import math
import re
import signal

import numpy as np
import pytest
import yaml
from conftest import run_fields, write_idx
from PIL import Image

from gmloss import LGMLoss
from training.runs.sample import Sample

SMALL = ('--num-samples', 300, '--batch-size', 50)


def train(run_here, folder, *words):
    return run_here('train_mnist', *SMALL, '--output-dir', folder, *words)


@pytest.fixture(scope='module')
def center_run(tmp_path_factory, run_script):
    """Two plotted epochs of softmax + center loss."""
    folder = tmp_path_factory.mktemp('runs') / 'mnist-softmax-center'
    result = run_script(
        'train_mnist.py', *SMALL, '--output-dir', folder, '--plotting', '--epochs', 2, '--lr', 0.02
    )
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


def test_evaluation_by_class_output_and_by_nearest_center(center_run, run_here, capsys):
    folder, _ = center_run
    with open(folder / 'metrics.csv') as file:
        last = list(csv.DictReader(file))[-1]
    for method, column in (('softmax', 'val_acc'), ('knn', 'knn_acc')):
        weights = folder / 'last.params'
        assert train(run_here, folder, '--test', '--eval-method', method, '--weights', weights) == 0
        wanted = f'accuracy {float(last[column]):.4f} by {method} on 300'
        assert wanted in capsys.readouterr().out


def test_second_train_starts_from_those_weights_and_leaves_the_centers(center_run, run_here, capsys):
    import mxnet as mx

    folder, _ = center_run
    second = folder.with_name('mnist-center')
    assert train(run_here, second, '--second-train', '--epochs', 1) == 0
    assert str(folder / 'best.params') in capsys.readouterr().out
    before, after = (
        mx.nd.load(str(run / name)) for run, name in ((folder, 'best.params'), (second, 'last.params'))
    )
    np.testing.assert_array_equal(
        before['center_loss.centers.weight'].asnumpy(), after['center_loss.centers.weight'].asnumpy()
    )
    assert (before['net.body.0.weight'] - after['net.body.0.weight']).abs().max().asscalar() > 0


def test_softmax_run_is_searched_by_class_means(run_here, tmp_path, capsys):
    folder = tmp_path / 'mnist-softmax'
    words = ('--version', 'softmax', '--output-dir', folder)
    assert run_here('train_mnist', *SMALL, *words, '--epochs', 1) == 0
    assert run_here('train_mnist', *words, '--test', '--eval-method', 'knn') == 0
    output = capsys.readouterr().out
    assert 'class means of the training features serve' in output
    assert 'by knn on 300' in output


def test_nearest_class_mean_where_some_classes_do_not_occur(run_here, tmp_path, capsys):
    from training.data import datasets

    digits = datasets.load_mnist(num_samples=600)
    for part, split in zip(('train', 't10k'), digits):
        chosen = split.select(np.isin(split.labels, (1, 4, 9)))
        for kind, array in (('images-idx3', chosen.images[:, 0]), ('labels-idx1', chosen.labels)):
            write_idx(tmp_path / f'{part}-{kind}-ubyte.gz', array)
    words = (
        '--version',
        'softmax',
        '--dataset',
        'idx',
        '--data-dir',
        tmp_path,
        '--output-dir',
        tmp_path / 'run',
        '--lr',
        0.01,
        '--batch-size',
        20,
        '--dtype',
        'float32',
    )
    assert run_here('train_mnist', *words, '--epochs', 5) == 0
    assert 'the source reports none' in capsys.readouterr().out
    assert run_here('train_mnist', *words, '--test', '--eval-method', 'knn') == 0
    accuracy = re.search(r'accuracy ([\d.]+) by knn', capsys.readouterr().out)[1]
    assert float(accuracy) > 0.6


def test_two_phases_restart_the_rate_and_freeze_the_centers(run_here, tmp_path, monkeypatch):
    import mxnet as mx

    from training.loop import fit as fit_module
    from training.loop.epoch import train_epoch
    from training.losses.graphs import SoftmaxGraph

    weights, centers, rates = [], [], []
    kept_set, kept_epoch = SoftmaxGraph.set_softmax_weight, train_epoch

    def train_epoch(graph, data, trainers, *rest):
        result = kept_epoch(graph, data, trainers, *rest)
        centers.append(graph.center_loss.centers.weight.data().asnumpy())
        rates.append([trainer.learning_rate for trainer in trainers])
        return result

    monkeypatch.setattr(fit_module, 'train_epoch', train_epoch)
    monkeypatch.setattr(
        SoftmaxGraph,
        'set_softmax_weight',
        lambda graph, weight: weights.append(weight) or kept_set(graph, weight),
    )
    assert (
        train(
            run_here,
            tmp_path / 'run',
            '--version',
            'two-phase',
            '--epochs',
            4,
            '--first-phase-epochs',
            2,
            '--lr',
            0.02,
            '--alpha',
            0.4,
            '--decay-epochs',
            1,
            '--decay-factor',
            0.5,
        )
        == 0
    )
    rows = run_fields(tmp_path / 'run')
    assert [float(row['lr']) for row in rows] == pytest.approx([0.02, 0.01, 0.02, 0.01])
    assert weights == [1, 0]
    np.testing.assert_allclose(rates, [[0.02, 0.4], [0.01, 0.2], [0.02, 0], [0.01, 0]])
    assert (centers[0] != centers[1]).any() and (centers[2] == centers[3]).all()
    last = mx.nd.load(str(tmp_path / 'run' / 'last.params'))
    assert (last['center_loss.centers.weight'].asnumpy() == centers[3]).all()


def test_second_phase_begins_with_the_best_weights_of_the_first(run_here, tmp_path, monkeypatch):
    """As two commands of Center_Loss_in_MXNet would; and it leaves output layer and centers alone."""
    import mxnet as mx

    from training.loop import validation

    best, accuracies = tmp_path / 'run' / 'best.params', iter([0.5, 0.9, 0.7, 0.8, 0.6])
    validate = validation.Validation.__call__
    monkeypatch.setattr(
        validation.Validation, '__call__', lambda self: {**validate(self), 'val_acc': next(accuracies)}
    )
    words = '--version two-phase --epochs 5 --first-phase-epochs 3 --lr 0.02 --wd 0.1 --momentum 0.5'
    assert train(run_here, best.parent, *words.split()) == 0
    of_best, last = mx.nd.load(str(best)), mx.nd.load(str(tmp_path / 'run' / 'last.params'))
    for name in ('net.output.weight', 'net.output.bias', 'center_loss.centers.weight'):
        assert (of_best[name].asnumpy() == last[name].asnumpy()).all(), name
    assert any((of_best[name].asnumpy() != last[name].asnumpy()).any() for name in of_best)


@pytest.mark.parametrize('last_call, message', [(12, 'stopped after epoch 2'), (13, 'stopped in epoch 3')])
def test_two_phases_stopped_at_their_boundary_resume_as_if_they_had_not(
    run_here, tmp_path, monkeypatch, capsys, last_call, message
):
    """After the last step of the first phase, and after the first one of the second."""
    import mxnet as mx

    from training.machine.cluster import Workers

    calls, kept = [], Workers.stop_requested
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    words = ('--version', 'two-phase', '--epochs', 4, '--first-phase-epochs', 2, '--lr', 0.02)
    assert train(run_here, whole, *words) == 0

    def stop_requested(workers, wanted):
        calls.append(wanted)
        if len(calls) == last_call:
            signal.raise_signal(signal.SIGTERM)
        return kept(workers, wanted or len(calls) == last_call)

    monkeypatch.setattr(Workers, 'stop_requested', stop_requested)
    assert train(run_here, stopped, *words) == 128 + signal.SIGTERM
    assert message in capsys.readouterr().out
    assert train(run_here, stopped, '--version', 'two-phase', '--resume') == 0
    assert run_fields(stopped) == run_fields(whole)
    first, second = (mx.nd.load(str(run / 'last.params')) for run in (whole, stopped))
    assert all((second[name].asnumpy() == array.asnumpy()).all() for name, array in first.items())


def test_each_phase_has_a_whole_schedule(run_here, tmp_path):
    assert (
        train(
            run_here,
            tmp_path / 'run',
            '--version',
            'two-phase',
            '--epochs',
            5,
            '--first-phase-epochs',
            2,
            '--lr',
            0.01,
            '--lr-batch-size',
            50,
            '--schedule',
            'cosine',
            '--device',
            'cpu:0,1',
        )
        == 0
    )
    steps = 300 / 100  # of two devices, so that the rate is twice the one given
    assert [float(row['lr']) for row in run_fields(tmp_path / 'run')] == pytest.approx(
        [
            0.01 * (1 + math.cos(math.pi * (epoch * steps - 1) / (length * steps)))
            for length in (2, 3)
            for epoch in range(1, length + 1)
        ],
        rel=1e-4,
    )


def test_decay_that_the_schedule_does_not_have_is_told(run_here, tmp_path, capsys):
    assert (
        train(
            run_here,
            tmp_path / 'run',
            '--version',
            'lgm-full',
            '--lr-step',
            4,
            '--test',
            '--weights',
            tmp_path / 'none',
        )
        == 2
    )
    assert '--decay-epochs: has no effect here' in capsys.readouterr().out


def test_margin_grows_step_by_step(run_here, tmp_path, monkeypatch):
    margins, kept = [], LGMLoss.set_margin
    monkeypatch.setattr(LGMLoss, 'set_margin', lambda loss, alpha: margins.append(alpha) or kept(loss, alpha))
    assert (
        train(
            run_here,
            tmp_path / 'run',
            '--version',
            'lgm-off',
            '--epochs',
            1,
            '--margin',
            0.1,
            '--margin-factor',
            2,
            '--margin-every',
            2,
            '--margin-maximum',
            0.3,
        )
        == 0
    )
    assert margins == pytest.approx([0.1, 0.2, 0.3])  # at steps 0, 2 and 4 of 6


def test_published_validation_is_told_the_label(run_here, tmp_path):
    assert (
        train(
            run_here,
            tmp_path / 'run',
            '--version',
            'lgm-off',
            '--epochs',
            1,
            '--validate-with-label',
            '--margin',
            5,
        )
        == 0
    )
    (row,) = run_fields(tmp_path / 'run')
    assert 0 <= float(row['val_acc_with_label']) < float(row['val_acc']) - 0.05


def test_weights_bring_the_recipe_of_their_run(run_here, tmp_path, capsys):
    run = tmp_path / 'run'
    assert train(run_here, run, '--version', 'softmax', '--epochs', 1, '--no-bias', '--feature-size', 5) == 0
    capsys.readouterr()
    for file in ('last.params', 'best.params'):
        assert run_here('train_mnist', '--test', '--weights', run / file) == 0
        output = capsys.readouterr().out
        assert f'recipe {run / "config.yaml"}' in output
        assert f'accuracy {float(run_fields(run)[0]["val_acc"]):.4f} by softmax on 300' in output


@pytest.mark.parametrize(
    'words',
    [
        ('--version', 'lgm-off', '--epochs', 1, '--no-bias'),
        ('--version', 'lgm-distance', '--epochs', 1),
        ('--version', 'lgm-slow-variance', '--epochs', 1),
        ('--version', 'lgm-full', '--epochs', 1, '--plotting', '--feature-size', 3),
    ],
)
def test_variants_run_to_the_end(run_here, tmp_path, capsys, words):
    assert train(run_here, tmp_path / 'run', *words) == 0
    captured = capsys.readouterr()
    assert 'val acc' in captured.out and 'could not be drawn' not in captured.err
    drawn = {path.name for path in (tmp_path / 'run').rglob('*') if path.suffix != '.params'}
    maps = {'epoch-001.png', 'features.gif', 'features.npz'}
    assert drawn >= {'likelihood.png', 'curves.png'} and maps & drawn == (
        maps if '--plotting' in words else set()
    )


def test_plotting_of_a_run_that_is_finished_already_says_that_it_has_no_maps(run_here, tmp_path, capsys):
    run = tmp_path / 'run'
    assert train(run_here, run, '--version', 'softmax', '--epochs', 1) == 0
    assert train(run_here, run, '--version', 'softmax', '--epochs', 1, '--resume', '--plotting') == 0
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
def test_training_commands_of_the_seed_work(run_here, tmp_path, command, version, folder, fields):
    assert run_here('train_mnist', *command.split(), '--out_dir', tmp_path, '--num-samples', 300) == 0
    assert json.loads((tmp_path / folder / 'summary.json').read_text())['version'] == version
    sections = yaml.safe_load((tmp_path / folder / 'config.yaml').read_text()).values()
    found = {name: value for section in sections for name, value in section.items()}
    assert {name: found[name] for name in fields} == fields


def test_second_train_and_tests_of_the_seed_follow_its_training(run_here, tmp_path, capsys):
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
        assert run_here('train_mnist', *command.split(), '--ckpt_dir', tmp_path, '--num-samples', 300) == 0, (
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


def test_method_that_a_run_does_not_have_is_refused(center_run, run_here, capsys):
    assert train(run_here, center_run[0], '--test', '--eval-method', 'lgm') == 2
    assert (
        '--eval-method lgm: a run with --loss softmax-center can be evaluated by softmax or knn'
        in capsys.readouterr().err
    )
