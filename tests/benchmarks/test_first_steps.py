"""The benchmark that shows the first steps of v5's readings."""

import numpy as np
import pytest

from benchmarks import first_steps
from training.config import recipe as recipes
from training.machine import devices


@pytest.fixture(scope='module')
def tables():
    """{reading: {column: its values at steps 1 and 3}}, from the same images and the same net."""
    small = {'num_samples': 128, 'batch_size': 32, 'lr_batch_size': 128}
    path = recipes.version_path('cifar', 'v5')
    found = {}
    for label, fields in first_steps.READINGS.items():
        recipe = recipes.load_recipe(path, recipes.CifarRecipe, {**small, **fields})
        rows = first_steps.first_steps(recipe, devices.choose('cpu', 'float32'), (1, 3))
        found[label] = dict(zip(first_steps.HEADER, np.array(rows, float).T))
    return found


def test_readings_begin_as_they_say(tables):
    recipe, steep, diagonal = tables.values()
    for column in ('loss', 'gradient: net', 'means', 'variances'):
        assert recipe[column][0] == steep[column][0]  # only the rate differs, and it has not acted yet
    # Where all variances are 1, v6's form multiplies the logits by the 10 dimensions, and so the cross
    # entropy by at most 10; the likelihood term is the same.
    assert 5 < steep['loss'][0] / diagonal['loss'][0] < 10
    assert all(steep[column][0] > 5 * diagonal[column][0] for column in ('gradient: net', 'means'))
    assert all(table['smallest variance'][0] == 1 for table in tables.values())
    assert all(table['norm'][0] == diagonal['norm'][0] > 0 for table in tables.values())


def test_rates_act(tables):
    recipe, steep, diagonal = tables.values()
    assert abs(steep['distance'][1] - steep['distance'][0]) > abs(
        recipe['distance'][1] - recipe['distance'][0]
    )
    assert steep['smallest variance'][1] < recipe['smallest variance'][1] < 1
    assert all((0 <= table['missing']).all() and (table['missing'] < 10).all() for table in tables.values())


def test_report_prints_a_table_for_each_reading(monkeypatch, capsys):
    monkeypatch.setattr(devices, 'prepare', devices.choose)  # mxnet is imported already
    monkeypatch.setattr(
        first_steps, 'first_steps', lambda recipe, device: [[str(recipe.optimisation.lr)] + 9 * ['-']]
    )
    first_steps.report(5)
    output = capsys.readouterr().out
    assert all(label in output for label in first_steps.READINGS)
    assert output.count('| 0.01 |') == 1 and output.count('| 0.1 |') == 2
