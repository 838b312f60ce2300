"""detect.py: its measures by plain loops, its attacks and images on real data and kept runs."""

import io
import json
import math
from contextlib import redirect_stdout

import numpy as np
import pytest
from conftest import RECORD, ROOT
from mxnet import nd
from tqdm import tqdm

import detect
from training.data import datasets
from training.errors import UserError
from training.machine.devices import Device
from training.metrics import attacks, ood_images, ood_scores
from training.runs import restore, tables
from training.runs.folder import RunFolder

CIFAR_RUN, MNIST_RUN = RECORD / 'cifar-fast-seed0', RECORD / 'mnist-softmax-center'
STRENGTH = {CIFAR_RUN: 4, MNIST_RUN: 51}


@pytest.fixture(scope='module', params=[CIFAR_RUN, MNIST_RUN], ids=lambda path: path.name)
def subject(request):
    """(run, PixelClassifier, 60 real test images as float32, labels)."""
    device = Device('cpu', (0,), 'float32')
    net, recipe = restore.pixel_classifier(RunFolder(request.param), device, device.contexts())
    _, test = datasets.load_splits(recipe.data)
    return (request.param, net, nd.array(test.images[:60]), nd.array(test.labels[:60]))


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


@pytest.mark.parametrize('levels', [3, 1000])
def test_measures_by_plain_loops(levels):
    """With few levels most scores are tied."""
    rng = np.random.default_rng(0)
    normal, abnormal_scores = rng.integers(2, 2 + levels, 70), rng.integers(0, levels, 110)
    won = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in normal for b in abnormal_scores)
    precision_sum, kept_before, fpr = 0.0, 0, None
    for threshold in sorted(set(normal) | set(abnormal_scores), reverse=True):
        kept, passed = sum(normal >= threshold), sum(abnormal_scores >= threshold)
        precision_sum += (kept - kept_before) / 70 * kept / (kept + passed)
        kept_before = kept
        if fpr is None and kept / 70 >= 0.95:
            fpr = passed / 110
    assert ood_scores.measures(normal, abnormal_scores) == pytest.approx(
        {'auroc': won / 70 / 110, 'aupr': precision_sum, 'fpr_at_95_tpr': fpr}, rel=1e-12
    )


def test_measures_at_the_ends():
    apart = ood_scores.measures([3.0, np.inf], [1.0, -np.inf])
    assert apart == {'auroc': 1, 'aupr': 1, 'fpr_at_95_tpr': 0}
    assert ood_scores.measures([1.0], [2.0])['auroc'] == 0
    assert ood_scores.measures([1.0, 1.0], [1.0])['auroc'] == 0.5
    for scores in ([], [np.nan]):
        with pytest.raises(ValueError, match='ROC curve'):
            ood_scores.measures(scores, [1.0])


def test_scores_by_plain_loops():
    rng = np.random.default_rng(0)
    logits, distance = rng.normal(size=(20, 4)), rng.random((20, 4))
    found = ood_scores.scores(logits, distance, np.arange(20.0))
    for i in range(20):
        best = max(range(4), key=lambda k: logits[i, k])
        probability = math.exp(logits[i, best]) / sum(math.exp(value) for value in logits[i])
        assert found['max_softmax'][i] == pytest.approx(math.log(probability / (1 - probability)), rel=1e-9)
        assert found['own_class_distance'][i] == -distance[i, best]
        assert found['log_likelihood_as_trained'][i] == pytest.approx(
            math.log(sum(math.exp(value) for value in logits[i])), rel=1e-9
        )
    assert list(ood_scores.scores(logits)) == ['max_softmax']
    sure = ood_scores.scores(np.array([[0, 100, 0], [0, 101, 0]], np.float32))['max_softmax']
    assert sure[0] < sure[1]  # though both probabilities are 1 in float64


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
    again = attacks.pgd(classify, images, labels, strength, np.random.default_rng(0))
    np.testing.assert_array_equal(again.asnumpy(), attacked['PGD'].asnumpy())
    other = attacks.pgd(classify, images, labels, strength, np.random.default_rng(1))
    assert (other != again).mean().asscalar() > 0.1


def test_batches_change_nothing(subject, monkeypatch):
    run, net, images, labels = subject
    found = []
    for size in (500, 7):
        monkeypatch.setattr(detect, 'BATCH', size)
        shown = detect.ImageSet('FGSM', 'FGSM', images.asnumpy(), labels.asnumpy(), STRENGTH[run])
        (logits, *_), accuracy = detect.outputs(net, shown, 0, images.context, tqdm(disable=True))
        found.append((logits, accuracy))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-3, atol=1e-2)
    assert found[0][1] == pytest.approx(found[1][1], abs=0.02)


def test_attack_moves_images_that_the_net_is_sure_of():
    """Where the probability is 1 in float32, the plain gradient of the cross entropy is 0."""
    weights = nd.array([[40.0, -1], [-40, 2]])
    direction = attacks.loss_direction(
        lambda x: nd.dot(x, weights, transpose_b=True), nd.array([[1.0, 3]]), nd.array([0])
    )
    np.testing.assert_array_equal(direction.asnumpy(), [[-1, 1]])


def test_shuffled_images_by_plain_loops():
    images = np.arange(3 * 2 * 8 * 8, dtype=np.uint16).reshape(3, 2, 8, 8)
    shuffled = ood_images.shuffled(images, 4, np.random.default_rng(0))

    def patches(image):
        return {image[:, i : i + 4, j : j + 4].tobytes() for i in (0, 4) for j in (0, 4)}

    assert all(patches(a) == patches(b) for a, b in zip(images, shuffled))
    assert (shuffled != images).any()
    orders = [
        np.argsort(image[0].ravel())
        for image in ood_images.shuffled(np.repeat(images[:1], 3, axis=0), 1, np.random.default_rng(0))
    ]
    assert not any((a == b).all() for a, b in zip(orders, orders[1:])), 'each in its own way'
    pixels = ood_images.shuffled(images, 1, np.random.default_rng(0))
    for before, after in zip(images, pixels):
        assert sorted(map(tuple, before.reshape(2, -1).T)) == sorted(map(tuple, after.reshape(2, -1).T))


def test_rotated_images_by_plain_loops():
    images = np.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    found = ood_images.transformed(images, np.random.default_rng(0))
    for i, j in np.ndindex(8, 8):
        np.testing.assert_array_equal(found['rotated by 90'][:, :, i, j], images[:, :, j, 7 - i])
        np.testing.assert_array_equal(found['rotated by 180'][:, :, i, j], images[:, :, 7 - i, 7 - j])


def test_noise_has_the_images_mean_and_deviation(cifar):
    images = cifar[1].images[:500]
    found = ood_images.noise(images, np.random.default_rng(0))
    uniform, gaussian = found['uniform noise'], found['Gaussian noise']
    assert uniform.shape == gaussian.shape == images.shape
    assert (uniform.min(), uniform.max()) == (0, 255)
    # Clipping at both ends takes something off the deviation.
    np.testing.assert_allclose(gaussian.mean(axis=(0, 2, 3)), images.mean(axis=(0, 2, 3)), atol=3)
    np.testing.assert_allclose(gaussian.std(axis=(0, 2, 3)), images.std(axis=(0, 2, 3)), rtol=0.1)


def test_other_data_sets_are_fitted_and_missing_ones_named(cifar):
    found, missing = ood_images.other_data('mnist', 5)
    assert list(missing) == ['Fashion-MNIST'] and found['CIFAR-10'].shape == (5, 1, 28, 28)
    gray = np.tensordot(cifar[1].images[:5], [0.299, 0.587, 0.114], (1, 0)).mean(axis=(1, 2))
    np.testing.assert_allclose(found['CIFAR-10'].mean(axis=(1, 2, 3)), gray, rtol=0.02)
    found, missing = ood_images.other_data('cifar10', 5)
    assert not missing and found['MNIST'].shape == (5, 3, 32, 32)
    assert (found['MNIST'][:, 0] == found['MNIST'][:, 2]).all() and found['MNIST'].max() > 200
    for dataset, message in (('mnist', 'neither'), ('cifar10', 'not set against cifar10, but MNIST')):
        with pytest.raises(UserError, match=message):
            ood_images.other_data(dataset, 5, str(ROOT / 'configs'))


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


def test_summary_gets_the_table_and_a_softmax_net_its_own_attacks(run_here, capsys, tmp_path):
    run, softmax_run = tmp_path / 'run', RECORD / 'mnist-softmax'
    run.mkdir()
    for name in ('config.yaml', 'last.params', 'summary.json'):
        (run / name).write_bytes((MNIST_RUN / name).read_bytes())
    assert run_here('detect', run, '--samples', '10', '--softmax-run', softmax_run) == 0
    assert 'Fashion-MNIST: left out' in capsys.readouterr().out
    summary = json.loads((run / 'summary.json').read_text())
    before = json.loads((MNIST_RUN / 'summary.json').read_text())
    sets = summary.pop('detection')
    assert summary == before
    assert run_here('detect', softmax_run, '--samples', '10', '--output-dir', tmp_path / 'alone') == 0
    alone = json.loads((tmp_path / 'alone' / 'detection.json').read_text())['sets']
    for name, found in sets.items():  # as if it were the only net
        assert found['scores']['max_softmax_of_softmax_net'] == alone[name]['scores']['max_softmax']
        if 'accuracy' in found:
            assert found['accuracy']['softmax net'] == alone[name]['accuracy']['net']
