"""Snapshots of features, class means, and drawing beside the training."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from training.runs import features, fonts, plots
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
    plots.roc_curves(None, {'noise': {'a': ([0, 1], [0.25, 1]), 'b': ([0, 1], [0.5, 1])}}, 'run')
    assert drawn_lines(drawn[1]) == {'a': [0.25, 1], 'b': [0.5, 1]}


def test_histograms_have_the_names_of_what_they_show(drawn):
    low, high = np.linspace(0, 1, 50), np.linspace(9, 10, 50)
    plots.likelihoods(None, [('one', low, high), ('other', high, low)], 'run')
    plots.score_histograms(None, {'family': {'normal': {'score': high}, 'noise': {'score': low}}}, 'run')
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


def test_more_scores_than_colours_are_drawn_each_in_its_own_way(drawn):
    names = [f'score {number}' for number in range(12)]
    plots.roc_curves(None, {'noise': {name: ([0, 1], [0.5, 1]) for name in names}}, 'run')
    plots.score_histograms(None, {'family': {name: {'score': np.arange(9.0)} for name in names}}, 'run')
    styles = {(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].lines}
    assert len(styles) == len(names)


def test_more_classes_than_colours_are_all_drawn(drawn):
    points, labels = np.random.default_rng(0).normal(size=(260, 2)), np.arange(260) % 26
    for centers in (None, points[:26]):
        plots.feature_maps(None, [plots.FeatureMap('letters', points, labels, centers)])
        assert [text.get_text() for text in drawn[-1].axes[0].texts] == [str(k) for k in range(26)]


@pytest.mark.parametrize(
    'name, title', [('run$a$_1', 'run$a$_1'), ('數字 run', r'\u6578\u5b57 run'), ('b \udcff', r'b \udcff')]
)
def test_titles_are_drawn_as_they_are_or_as_codes_of_letters_without_a_font(
    drawn, recwarn, monkeypatch, tmp_path, name, title
):
    monkeypatch.setattr(fonts.font_manager.fontManager, 'ttflist', [])
    fonts._family.cache_clear()
    plots.likelihoods(None, [('one', np.arange(9.0), np.arange(9.0))], name)
    fonts._family.cache_clear()
    assert drawn[0].get_suptitle() == title
    monkeypatch.undo()
    drawn[0].savefig(tmp_path / 'figure.png')
    assert not [warning for warning in recwarn if 'missing from' in str(warning.message)]


def test_letters_come_from_an_installed_font_that_has_them(drawn, recwarn, tmp_path, monkeypatch):
    letter = next(chr(code) for code in range(0x1D81, 0x1FFFF) if fonts._family(chr(code)))
    plots.likelihoods(None, [('one', np.arange(9.0), np.arange(9.0))], f'run {letter}')
    assert drawn[0].get_suptitle() == f'run {letter}'
    monkeypatch.undo()
    drawn[0].savefig(tmp_path / 'figure.png')
    assert not [warning for warning in recwarn if 'missing from' in str(warning.message)]
