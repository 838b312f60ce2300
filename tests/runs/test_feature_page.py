"""What the page of feature maps holds, against the arrays it is written from."""

import base64
import gzip
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from recorded_run import CLASSES, COUNT, EPOCHS, SPLITS, images, labels, record_run, snapshot

from training.errors import UserError
from training.runs import feature_page
from training.runs.features import Snapshot, is_recorded, principal_axes
from training.runs.folder import RunFolder
from training.runs.sample import SHEET_BYTES, TILE, Sample, shrink, write_sample


def content_of(*paths):
    file = io.BytesIO()
    feature_page.write(file, [(path.name, path) for path in paths])
    text = file.getvalue().decode()
    before = text[: text.index('id="content"')]
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(?!data:)', before)
    return json.loads(re.search(r'<script type="application/json" id="content">(.*?)</script>', text)[1])


def unpack(text, kind):
    return np.frombuffer(gzip.decompress(base64.b64decode(text)), kind)


def places(run, epoch):
    """Coordinates (N, 2) as the page's script computes them."""
    about = run['epochs'][epoch - 1]
    steps = unpack(run['points'], np.uint16).reshape(EPOCHS, 2, COUNT)[epoch - 1].T
    low, high = np.array(about['low']), np.array(about['high'])
    return low + steps / 65535 * (high - low)


@pytest.mark.parametrize('dimensions', [2, 5])
def test_points_lie_on_the_principal_axes_of_the_last_epoch(tmp_path, dimensions):
    (run,) = content_of(record_run(tmp_path / 'run', dimensions))['runs']
    axes = np.eye(2)
    if dimensions > 2:
        train = snapshot(EPOCHS, dimensions).halved().train_features.astype(np.float64)
        eigenvalues, vectors = np.linalg.eigh(np.cov(train.T))
        axes = vectors[:, :-3:-1]
        assert run['share'] == pytest.approx(eigenvalues[-2:].sum() / eigenvalues.sum(), rel=1e-6)
    for epoch in range(1, EPOCHS + 1):
        drawn = snapshot(epoch, dimensions).halved()
        features = np.concatenate([drawn.train_features, drawn.test_features]).astype(np.float64)
        expected, found = features @ axes, places(run, epoch)
        signs = np.sign((expected * found).sum(axis=0))  # an axis may point either way
        size = np.ptp(expected, axis=0)
        assert (np.abs(found - signs * expected) <= size / 65535 + 1e-4).all()
        centers = np.array(run['epochs'][epoch - 1]['centers']).T
        np.testing.assert_allclose(centers, signs * (drawn.centers @ axes), rtol=1e-4, atol=1e-4)


def test_predictions_probabilities_and_likelihoods(tmp_path):
    (run,) = content_of(record_run(tmp_path / 'run'))['runs']
    drawn = [snapshot(epoch) for epoch in range(1, EPOCHS + 1)]
    assert run['labels'] == labels().tolist() and run['train'] == SPLITS[0]
    np.testing.assert_array_equal(
        unpack(run['predicted'], np.uint8), np.concatenate([one.predicted for one in drawn])
    )
    probability = np.concatenate([one.probability for one in drawn])
    np.testing.assert_allclose(unpack(run['probability'], np.uint16) / 65535, probability, atol=1e-5)
    likelihood = np.concatenate([one.log_likelihood for one in drawn])
    np.testing.assert_allclose(unpack(run['likelihood'], np.float32), likelihood, rtol=3e-4)


def density(points, means, covariances, priors):
    """log p of points (N, 2), class by class in float64."""
    terms = []
    for mean, covariance, prior in zip(means, covariances, priors):
        apart = points - mean
        distance = np.einsum('ni,ij,nj->n', apart, np.linalg.inv(covariance), apart)
        terms.append(prior * np.exp(-distance / 2) / np.sqrt(np.linalg.det(covariance)))
    return np.log(np.sum(terms, axis=0))


@pytest.mark.parametrize('dimensions', [2, 5])
def test_ellipses_and_contour_are_those_of_the_projected_mixture(tmp_path, dimensions):
    path = record_run(tmp_path / 'run', dimensions)
    (run,) = content_of(path)['runs']
    last, about = snapshot(EPOCHS, dimensions), run['epochs'][-1]
    axes, _ = principal_axes(Snapshot.load(RunFolder(path).snapshots[-1]).train_features)
    covariances = [axes.T @ np.diag(variance) @ axes for variance in last.deviations**2]
    for covariance, width, height, angle in zip(covariances, *about['ellipses']):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        drawn = turn @ np.diag([width**2, height**2]) @ turn.T / 4
        np.testing.assert_allclose(drawn, covariance, rtol=1e-4, atol=1e-4)
    wide = [last.spread * covariance for covariance in covariances]
    test = places(run, EPOCHS)[SPLITS[0] :]
    level = np.percentile(density(test, last.centers @ axes, wide, last.priors), 5)
    line = np.concatenate([np.array(line).T for line in about['contour']])
    on_line = density(line, last.centers @ axes, wide, last.priors)
    assert len(line) > 30 and np.abs(on_line - level).max() < 0.1


def test_images_in_grey_lose_nothing_and_their_tiles_are_where_the_script_looks(tmp_path):
    content = content_of(record_run(tmp_path / 'run'))
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(content['sheet']))).convert('L'))
    width, height = content['tile']
    for number in range(COUNT):
        row, column = divmod(number, content['columns'])
        tile = sheet[row * height :][:height, column * width :][:, :width]
        np.testing.assert_array_equal(tile, images()[number, 0])
    assert content['classes'] == CLASSES and content['test'] == 'test'


def test_sheets_of_coloured_and_of_large_images_are_bounded(tmp_path):
    large = np.random.default_rng(0).integers(0, 256, (3, 3, 60, 120)).astype(np.uint8)
    small = shrink(large)
    assert small.shape == (3, 3, TILE // 2, TILE)
    np.testing.assert_allclose(small.mean(axis=(2, 3)), large.mean(axis=(2, 3)), atol=1)
    many = np.repeat(images(channels=3, count=400), 4, axis=0)
    with open(tmp_path / 'sample.npz', 'wb') as file:
        write_sample(file, many, np.zeros(len(many), int), ['one'], 'test')
    sheet = Sample.load(tmp_path / 'sample.npz').sheet
    assert len(sheet) <= SHEET_BYTES
    assert Image.open(io.BytesIO(sheet.tobytes())).mode == 'RGB'


def test_runs_on_a_page_must_have_the_same_images(tmp_path):
    first, same = record_run(tmp_path / 'first'), record_run(tmp_path / 'same', mixture=False, seed=1)
    content = content_of(first, same)
    assert [run['likelihood'] is None for run in content['runs']] == [False, True]
    assert 'ellipses' not in content['runs'][1]['epochs'][0]
    other = record_run(tmp_path / 'other', image_seed=1)
    with pytest.raises(UserError, match=f'{other}: its images are not those of {first}'):
        content_of(first, other)


def test_page_of_two_thousand_points_and_thirty_epochs_is_small(tmp_path):
    from training.data import datasets

    sizes = 2000, 2000
    train, test = datasets.load_mnist(num_samples=2000)
    (tmp_path / 'features').mkdir()
    folder = RunFolder(tmp_path)
    about = np.concatenate([train.images, test.images]), labels(4000), CLASSES, 'test'
    folder.write_figure('features/sample.npz', write_sample, *about)
    for epoch in range(1, 31):
        drawn = snapshot(epoch, seed=epoch, splits=sizes)
        folder.write_figure(f'features/epoch-{epoch:03d}.npz', drawn.save)
    folder.write_figure('features.html', feature_page.write, [('run', tmp_path)])
    assert folder.feature_page.stat().st_size < 4e6


@pytest.mark.parametrize('epochs, every', [(1, 1), (30, 1), (50, 1), (51, 2), (101, 2), (102, 4), (400, 8)])
def test_epochs_of_long_runs_are_thinned_out(epochs, every):
    recorded = {epoch for epoch in range(1, epochs + 1) if is_recorded(epoch, epochs)}
    assert recorded == {1, epochs, *range(every, epochs + 1, every)} and len(recorded) <= 52


def test_names_cannot_end_the_script(tmp_path):
    path = record_run(tmp_path / 'a<b>')
    file = io.BytesIO()
    feature_page.write(file, [('</script><b>', path)])
    assert b'</script><b>' not in file.getvalue()
