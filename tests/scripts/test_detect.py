"""detect.py and its attacks on real data and kept runs."""

import errno
import io
import json
import re
import subprocess
from contextlib import redirect_stdout

import numpy as np
import pytest
from conftest import RECORD, ROOT
from mxnet import nd
from tqdm import tqdm

from training.data import datasets
from training.machine import devices
from training.machine.devices import Device
from training.metrics import attacks, detection, ood_images, ood_scores
from training.metrics.ood_images import ImageSet
from training.runs import plots, restore, tables
from training.runs.folder import RunFolder

CIFAR_RUN, MNIST_RUN = RECORD / 'cifar-fast-seed0', RECORD / 'mnist-softmax-center'
STRENGTH = {CIFAR_RUN: 4, MNIST_RUN: 51}


@pytest.fixture(scope='module', params=[CIFAR_RUN, MNIST_RUN], ids=lambda path: path.name)
def subject(request):
    """(run, PixelClassifier, 40 real test images as float32, labels)."""
    device = Device('cpu', (0,), 'float32')
    net, recipe = restore.pixel_classifier(RunFolder(request.param), device, device.contexts())
    _, test = datasets.load_splits(recipe.data)
    return (request.param, net, nd.array(test.images[:40]), nd.array(test.labels[:40]))


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory, run_here):
    """Folder and output of the command on 100 CIFAR-10 images."""
    folder = tmp_path_factory.mktemp('detection')
    with redirect_stdout(io.StringIO()) as printed:
        assert run_here('detect', CIFAR_RUN, '--samples', 100, '--output-dir', folder) == 0
    return folder, printed.getvalue()


def log_odds(net, images, labels):
    """Of all other classes together against the true one, in float64."""
    logits = net(images)[0].asnumpy().astype(np.float64)
    return np.array(
        [
            np.logaddexp.reduce(np.delete(row, own)) - row[own]
            for row, own in zip(logits, labels.asnumpy().astype(int))
        ]
    )


def accuracy(net, images, labels):
    return np.mean(net(images)[0].asnumpy().argmax(axis=1) == labels.asnumpy())


def test_attacks_go_the_way_of_the_gradient(subject):
    """Finite differences of the float64 log-odds along the direction, and along a random one."""
    _, net, images, labels = subject

    def rise(direction, step=0.25):
        moved = [images + sign * step * nd.array(direction) for sign in (1, -1)]
        return np.subtract(*(log_odds(net, x, labels) for x in moved)) / (2 * step)

    direction = attacks.loss_direction(lambda x: net(x)[0], images, labels).asnumpy()
    other = np.sign(np.random.default_rng(0).normal(size=images.shape))
    assert set(np.unique(direction)) <= {-1, 0, 1}
    steepest = rise(direction)
    assert np.mean(steepest > 0) > 0.95
    assert steepest.mean() > 10 * np.abs(rise(other)).mean()


def test_attacks_keep_their_bounds_and_pgd_is_the_stronger(subject):
    run, net, images, labels = subject
    strength, classify = STRENGTH[run], lambda x: net(x)[0]
    rng = np.random.default_rng(0)
    attacked = {
        'FGSM': attacks.fgsm(classify, images, labels, strength),
        'PGD': attacks.pgd(classify, images, labels, strength, rng),
    }
    for x in attacked.values():
        assert x.min().asscalar() >= 0 and x.max().asscalar() <= 255
        assert 0.9 * strength < (x - images).abs().max().asscalar() <= strength * (1 + 1e-5)
    found = {name: accuracy(net, x, labels) for name, x in attacked.items()}
    assert found['PGD'] <= found['FGSM'] < accuracy(net, images, labels) - 0.2
    first, again, other = (
        attacks.pgd(classify, images[:5], labels[:5], strength, np.random.default_rng(seed)).asnumpy()
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.mean(other != again) > 0.1


def test_batches_change_nothing(subject, monkeypatch):
    run, net, images, labels = subject
    logits = []
    for size in (500, 7):
        monkeypatch.setattr(datasets, 'MOST_AT_ONCE', size)
        attacked = ImageSet('FGSM', 'FGSM', images.asnumpy(), labels.asnumpy(), STRENGTH[run])
        logits.append(detection.net_outputs(net, attacked, 0, images.context, tqdm(disable=True))[0])
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-3, atol=1e-2)


def test_attack_moves_images_that_the_net_is_sure_of():
    """Where the probability is 1 in float32, the plain gradient of the cross entropy is 0."""
    weights = nd.array([[40.0, -1], [-40, 2]])
    direction = attacks.loss_direction(
        lambda x: nd.dot(x, weights, transpose_b=True), nd.array([[1.0, 3]]), nd.array([0])
    )
    np.testing.assert_array_equal(direction.asnumpy(), [[-1, 1]])


def test_command_writes_report_and_figures(whole_run):
    folder, printed = whole_run
    report = json.loads((folder / 'detection.json').read_text())
    assert report['samples'] == 100 and len(report['sets']) == 15
    assert tables.detection_report(report) in printed
    for name in ('roc.png', 'scores.png'):
        assert (folder / name).read_bytes().startswith(b'\x89PNG')
    for found in report['sets'].values():
        assert list(found['scores']) == [
            'log_likelihood',
            'log_likelihood_as_trained',
            'own_class_distance',
            'max_softmax',
        ]
    accuracies = [found['accuracy']['net'] for found in report['sets'].values() if 'accuracy' in found]
    assert len(accuracies) == 8 and max(accuracies) < report['accuracy']['net']
    for name, score, least in (
        ('PGD 8/255', 'log_likelihood', 0.99),
        ('shuffled pixels', 'max_softmax', 0.88),
        ('uniform noise', 'max_softmax', 0.72),
    ):
        assert report['sets'][name]['scores'][score]['auroc'] > least


def test_with_its_spread_the_likelihood_tells_noise_from_digits():
    device = Device('cpu', (0,), 'float32')
    net, recipe = restore.pixel_classifier(RunFolder(RECORD / 'mnist-lgm-full'), device, device.contexts())
    images = datasets.load_splits(recipe.data)[1].images[:300]
    found = [
        ood_scores.scores(*(output.asnumpy() for output in net(nd.array(pixels))))
        for pixels in (images, ood_images.noise(images, np.random.default_rng(0))['uniform noise'])
    ]
    auroc = {score: ood_scores.measures(*(scores[score] for scores in found))['auroc'] for score in found[0]}
    assert auroc['log_likelihood'] > 0.95 and auroc['log_likelihood_as_trained'] < 0.7


def test_summary_gets_the_table_and_a_softmax_net_its_own_attacks(run_here, capsys, tmp_path, no_figures):
    run, softmax_run = tmp_path / 'run', RECORD / 'mnist-softmax'
    run.mkdir()
    for name in ('config.yaml', 'last.params', 'summary.json'):
        (run / name).write_bytes((MNIST_RUN / name).read_bytes())
    assert run_here('detect', run, '--samples', '3', '--softmax-run', softmax_run) == 0
    assert 'Fashion-MNIST: left out' in capsys.readouterr().out
    summary = json.loads((run / 'summary.json').read_text())
    before = json.loads((MNIST_RUN / 'summary.json').read_text())
    sets = summary.pop('detection')
    assert summary == before
    assert run_here('detect', softmax_run, '--samples', '3', '--output-dir', tmp_path / 'alone') == 0
    alone = json.loads((tmp_path / 'alone' / 'detection.json').read_text())['sets']
    for name, found in sets.items():  # as if it were the only net
        assert found['scores']['max_softmax_of_softmax_net'] == alone[name]['scores']['max_softmax']
        if 'accuracy' in found:
            assert found['accuracy']['softmax net'] == alone[name]['accuracy']['net']


def test_scores_fitted_to_training_images_come_beside_the_others(run_here, capsys, tmp_path, no_figures):
    words = RECORD / 'mnist-softmax', '--samples', 20, '--output-dir', tmp_path
    assert run_here('detect', *words, '--fit', 300) == 0
    report = json.loads((tmp_path / 'detection.json').read_text())
    assert report['fitted_to'] == 300
    for found in report['sets'].values():
        assert list(found['scores']) == ['max_softmax', 'mahalanobis', 'relative_mahalanobis']
    assert report['sets']['Gaussian noise']['scores']['mahalanobis']['auroc'] > 0.9
    for count, message in ((0, 'at least 1'), (3, 'expected an image of every class')):
        assert run_here('detect', *words, '--fit', count) == 2
        assert f'--fit {count}: ' in (error := capsys.readouterr().err) and message in error


@pytest.mark.parametrize(
    'script, words',
    [
        ('detect', (CIFAR_RUN, '--output-dir', '/sys')),
        ('detect', (CIFAR_RUN, '--output-dir', '/sys/new/folder')),
        ('export', (CIFAR_RUN, '--output-dir', '/sys')),
        ('predict', (CIFAR_RUN, ROOT / 'output' / 'record' / 'feature-maps.png', '--output', '/sys/out.csv')),
        ('compare', (CIFAR_RUN, '--output-dir', '/sys')),
        ('ablate', (ROOT / 'configs' / 'ablations' / 'tricks.yaml', '--output-dir', '/sys')),
    ],
)
def test_target_that_cannot_be_written_to_is_noticed_before_the_work(
    script, words, run_here, capsys, monkeypatch
):
    def work(*_):
        pytest.fail('the work began')

    monkeypatch.setattr(devices, 'choose', work)
    monkeypatch.setattr('compare.read_runs', work)
    monkeypatch.setattr(subprocess, 'Popen', work)
    assert run_here(script, *words) == 2
    assert re.fullmatch(r'error: /sys\S*: .*; choose another --output(-dir)?\n', capsys.readouterr().err)


def test_table_is_printed_though_the_disk_fills_up(run_here, capsys, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(RunFolder, 'write_report', full)
    assert run_here('detect', MNIST_RUN, '--samples', 3, '--output-dir', tmp_path) == 2
    printed = capsys.readouterr()
    assert '| shuffled pixels |' in printed.out
    assert 'No space left on device; choose another --output-dir' in printed.err


def test_any_number_of_scores_can_be_drawn():
    scores = {f'score_{number}': np.arange(5.0) for number in range(25)}
    rates = np.linspace(0, 1, 5), np.linspace(0, 1, 5)
    plots.roc_curves(io.BytesIO(), {'noise': dict.fromkeys(scores, rates)}, 'run')
    plots.score_histograms(io.BytesIO(), {'noise': {'test images': scores, 'uniform noise': scores}}, 'run')
