"""Figures of recipes: a line and a band for the seeds, points beside the reported accuracies."""

import pytest
from matplotlib.figure import Figure
from written_run import write_run

from training.runs import comparison_plots
from training.runs.run import PUBLISHED_V6, by_recipe, read_run


@pytest.fixture
def axes_by_title(monkeypatch):
    """Draw accuracies; returns {title of a panel: its axes}."""

    def draw(groups):
        figures = []
        monkeypatch.setattr(Figure, 'savefig', lambda figure, *_, **__: figures.append(figure))
        comparison_plots.accuracies(None, groups)
        return {axes.get_title(): axes for axes in figures[0].axes}

    return draw


def groups_of(tmp_path, *versions, **run):
    return by_recipe(
        read_run(write_run(tmp_path / f'{version}-seed{seed}', seed, version=version, **run))
        for version in versions
        for seed in (0, 1)
    )


def test_seeds_of_a_recipe_are_one_line_in_a_band(tmp_path, axes_by_title):
    panels = axes_by_title(groups_of(tmp_path, 'fast', 'v4'))
    (line,) = panels['our recipes'].lines
    assert list(line.get_xdata()) == [1, 2, 3]
    assert list(line.get_ydata()) == pytest.approx([0.55, 0.78, 0.85])
    assert line.get_label() == 'fast, 3 epochs (2 seeds)'
    (band,) = panels['our recipes'].collections
    assert band.get_datalim(panels['our recipes'].transData).intervaly == pytest.approx([0.5, 0.9])
    assert panels['our recipes'].get_xscale() == 'log'
    assert panels['our recipes'].get_ylim() == pytest.approx((0.8 - 0.1 - 0.005, 0.905))
    assert len(panels['editions of gluon_GMLoss'].lines) == 1


def test_seeds_stand_beside_the_reported_accuracy_with_their_standard_error(tmp_path, axes_by_title):
    axes = axes_by_title(groups_of(tmp_path, 'v4'))['']
    ours, reported = axes.lines
    assert list(ours.get_xdata()) == [0.8, 0.9] and list(reported.get_xdata()) == [0.85]
    (bars,) = (collection.get_segments() for collection in axes.collections)
    assert bars[0][1, 0] - bars[0][0, 0] == pytest.approx(2 * (0.85 * 0.15 / 10000) ** 0.5)
    assert [label.get_text() for label in axes.get_yticklabels()] == ['v4, 3 epochs']
    assert '' not in axes_by_title(groups_of(tmp_path / 'none', 'v4', reported_val_acc=None))


def test_nearest_center_has_a_row_of_its_own(tmp_path, axes_by_title):
    panels = axes_by_title(groups_of(tmp_path, 'center', on_mnist=True))
    labels = [label.get_text() for label in panels[''].get_yticklabels()]
    assert labels == ['center, 3 epochs', 'center, 3 epochs, nearest center']
    assert 'softmax and center loss' in panels


def test_published_plot_stands_beside_the_full_v6(tmp_path, axes_by_title):
    (group,) = groups_of(tmp_path, 'v6')
    for run in group.runs:
        run.summary['epochs'] = 400
    *_, published = axes_by_title([group])['editions of gluon_GMLoss'].lines
    assert dict(zip(published.get_xdata(), published.get_ydata())) == PUBLISHED_V6


def test_many_recipes_become_the_longest_of_each_version(tmp_path):
    few = groups_of(tmp_path, *'abcdef')
    assert comparison_plots.most_telling(few) == few
    more = by_recipe(
        [run for group in few for run in group.runs]
        + [read_run(write_run(tmp_path / 'other', 0, version='a', dtype='bfloat16'))]
    )
    more[-1].runs[0].summary['epochs'] = 4
    assert [group.name for group in comparison_plots.most_telling(more)] == ['other', *'bcdef']


def test_covariances_are_drawn_over_log_epochs(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *_, **__: figures.append(figure))
    comparison_plots.covariances(None, groups_of(tmp_path, 'paper'))
    log_det, variance = figures[0].axes
    assert list(log_det.lines[0].get_ydata()) == [0, -1, -2]
    assert list(variance.lines[0].get_ydata()) == [1, 0.5, 0.25]
    assert variance.get_yscale() == 'log'
