"""Snapshots of features, class means, and drawing beside the training."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from training.runs import features, plots
from training.runs.background_plots import BackgroundPlots
from training.runs.features import Snapshot
from training.runs.folder import RunFolder


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would have been saved."""
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *_, **__: figures.append(figure))
    return figures


def snapshot(dimensions, seed=0, epoch=None):
    rng = np.random.default_rng(seed)
    scales = np.linspace(3, 0.1, dimensions)
    points, labels = rng.normal(size=(60, dimensions)) * scales, np.arange(60) % 10
    return Snapshot(
        points,
        labels,
        points[:30] + 1,
        labels[:30],
        rng.normal(size=(10, dimensions)),
        np.ones((10, dimensions)),
        epoch,
    )


def test_two_dimensions_are_drawn_as_they_are_and_more_on_their_principal_axes():
    two = snapshot(2)
    assert two.in_plane() is two
    flat = snapshot(5).in_plane()
    centred = snapshot(5).train_features - snapshot(5).train_features.mean(axis=0)
    eigenvalues = np.sort(np.linalg.eigvalsh(centred.T @ centred / 60))[::-1]
    np.testing.assert_allclose(flat.train_features.var(axis=0), eigenvalues[:2], rtol=1e-9)
    assert flat.centers.shape == (10, 2) and flat.deviations is None
    whole = snapshot(5)  # all on the same axes, from the same origin
    basis = np.linalg.lstsq(whole.train_features, flat.train_features, rcond=None)[0]
    for name in ('train_features', 'test_features', 'centers'):
        np.testing.assert_allclose(getattr(flat, name), getattr(whole, name) @ basis, atol=1e-9)
    one = Snapshot(np.arange(4.0)[:, None], np.arange(4), np.arange(4.0)[:, None], np.arange(4))
    assert one.in_plane().test_features.shape == (4, 2)


def test_snapshots_survive_the_disk(tmp_path):
    before = snapshot(2, epoch=12)
    before.centers = None
    with open(tmp_path / 'features.npz', 'wb') as file:
        before.save(file)
    after = Snapshot.load(tmp_path / 'features.npz')
    assert after.centers is None and after.epoch == 12
    for name in ('train_features', 'train_labels', 'test_features', 'test_labels', 'deviations'):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_class_means_by_a_loop():
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(40, 3)), rng.integers(0, 4, 40)
    labels[labels == 2] = 7
    classes, means = features.class_means(points, labels)
    assert list(classes) == [0, 1, 3, 7]
    for k, mean in zip(classes, means):
        np.testing.assert_allclose(mean, points[labels == k].mean(axis=0))


def test_figures_are_drawn_in_another_process_and_stay_whole(tmp_path):
    folder = RunFolder(tmp_path)
    with BackgroundPlots() as figures:
        for epoch in (1, 2):
            drawn = snapshot(3, epoch, epoch)
            figures.submit(folder.write_figure, folder.features.name, drawn.save)
            frame = f'features/epoch-{epoch:03d}.png'
            figures.submit(folder.write_figure, frame, plots.snapshot_maps, drawn, 'run', 'test')
    assert sorted(path.name for path in (tmp_path / 'features').iterdir()) == [
        'epoch-001.png',
        'epoch-002.png',
    ]
    folder.animate_features()
    assert Image.open(folder.animation).n_frames == 2
    for number in (1000, 999):
        (tmp_path / 'features' / f'epoch-{number}.png').touch()
    assert [path.name for path in folder.frames][1:] == ['epoch-002.png', 'epoch-999.png', 'epoch-1000.png']
    assert Snapshot.load(folder.features).dimensions == 3


@pytest.mark.parametrize('maps, rows, columns', [(1, 1, 1), (4, 1, 4), (5, 2, 3), (9, 3, 3)])
def test_feature_maps_stand_in_rows_of_at_most_four(tmp_path, maps, rows, columns):
    flat = snapshot(2).in_plane()
    panel = plots.FeatureMap('run', flat.test_features, flat.test_labels)
    plots.feature_maps(tmp_path / 'maps.png', [panel] * maps)
    width, height = Image.open(tmp_path / 'maps.png').size
    assert (width, height) == (columns * 384, rows * 400)


def test_runs_of_the_same_name_look_alike_and_share_a_label():
    axes = Figure().subplots()
    names = ['fast', 'best', 'fast', 'v6 as published']
    plots._by_epoch(axes, [(name, [{'epoch': 1, 'val_acc': 0.9}]) for name in names], 'val_acc', '')
    assert axes.get_legend_handles_labels()[1] == ['fast', 'best', 'v6 as published']
    colours = [line.get_color() for line in axes.lines]
    assert colours[0] == colours[2] and len(set(colours)) == 3
    assert axes.get_xscale() == 'log'


def test_accuracies_are_drawn_where_the_runs_end(drawn):
    runs = [
        ('a', [{'epoch': 1, 'val_acc': 0.1}, {'epoch': 20, 'val_acc': 0.8}]),
        ('b', [{'epoch': 1, 'val_acc': 0.9}]),
    ]
    plots.accuracies(None, [('CIFAR-10', runs), ('MNIST', runs[1:])])
    first, second = drawn[0].axes
    assert first.get_ylim() == pytest.approx((0.695, 0.905))
    assert second.get_ylim() == pytest.approx((0.895, 0.905))


def drawn_lines(figure):
    return {line.get_label(): list(line.get_ydata()) for axes in figure.axes for line in axes.lines}


def test_lines_have_the_names_of_what_they_show(drawn):
    names = 'train_acc', 'val_acc', 'train_loss', 'lr', 'margin'
    plots.curves(
        None,
        [
            {'epoch': epoch, **{name: epoch + 10 * number for number, name in enumerate(names)}}
            for epoch in (1, 2)
        ],
        'run',
    )
    assert drawn_lines(drawn[0]) == {
        'training': [1, 2],
        'validation': [11, 12],
        'training loss': [21, 22],
        'learning rate': [31, 32],
        'margin': [41, 42],
    }
    plots.covariances(None, [('run', [{'epoch': 1, 'mean_log_det': -2, 'smallest_variance': 0.5}])])
    for axes, value, label in zip(drawn[1].axes, (-2, 0.5), ('log-determinant', 'smallest variance')):
        assert list(axes.lines[0].get_ydata()) == [value] and axes.get_ylabel().startswith(label)
    plots.roc_curves(None, {'noise': {'a': ([0, 1], [0.25, 1]), 'b': ([0, 1], [0.5, 1])}}, 'run')
    assert drawn_lines(drawn[2]) == {'a': [0.25, 1], 'b': [0.5, 1]}


def test_histograms_have_the_names_of_what_they_show(drawn):
    low, high = np.linspace(0, 1, 50), np.linspace(9, 10, 50)
    plots.likelihoods(None, [('one', low, high), ('other', high, low)], 'run')
    plots.score_histograms(None, {'score': {'family': {'normal': high, 'noise': low}}}, 'run')
    for axes, ends in zip(
        [*drawn[0].axes, *drawn[1].axes],
        ({'one': 1, 'other': 10}, {'one': 10, 'other': 1}, {'normal': 10, 'noise': 1}),
    ):
        handles, labels = axes.get_legend_handles_labels()
        shown = {
            label: handle.get_path().vertices
            if hasattr(handle, 'get_path')
            else handle[0].get_path().vertices
            for handle, label in zip(handles, labels)
        }
        assert set(shown) == set(ends)
        for label, vertices in shown.items():
            where = vertices[vertices[:, 1] > 0, 0]
            assert where.max() == pytest.approx(ends[label], abs=0.3)


@pytest.mark.parametrize('name', ['实验-テスト', 'run $x$ and $\\frac$', 'bytes \udcff'])
def test_names_in_any_script_are_drawn_without_boxes(tmp_path, name, recwarn):
    row = {'epoch': 1, 'train_acc': 0.5, 'val_acc': 0.5, 'train_loss': 1.0, 'lr': 0.1, 'margin': 0.1}
    with open(tmp_path / 'curves.png', 'wb') as file:
        plots.curves(file, [row], name)
    with open(tmp_path / 'accuracies.png', 'wb') as file:
        plots.accuracies(file, [(name, [(name, [row])])])
    assert Image.open(tmp_path / 'curves.png').size == (1100, 360)
    assert not [warning for warning in recwarn if 'Glyph' in str(warning.message)]


def test_roc_curves_of_any_number_of_scores(tmp_path):
    rates = np.linspace(0, 1, 3), np.linspace(0, 1, 3)
    with open(tmp_path / 'roc.png', 'wb') as file:
        plots.roc_curves(file, {'noise': {f'score {number}': rates for number in range(12)}}, 'run')
    assert Image.open(tmp_path / 'roc.png').size[0] > 100
