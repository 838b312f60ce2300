"""compare.py: tables and figures written from finished runs, on a page or by themselves."""

import re

import numpy as np
import pytest
from PIL import Image
from written_run import write_run

import compare
from training.runs.features import Snapshot
from training.runs.run import read_run


def write_features(folder, dimensions=3, epoch=None):
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(50, dimensions)), np.arange(50) % 10
    with open(folder / 'features.npz', 'wb') as file:
        Snapshot(points, labels, points, labels, rng.normal(size=(10, dimensions)), epoch=epoch).save(file)
    return folder


def test_compare_writes_tables_and_figures(tmp_path, run_here, capsys):
    write_run(tmp_path / 'cifar', 0)
    write_features(write_run(tmp_path / 'mnist', 1, on_mnist=True, version='softmax-center'))
    metrics = tmp_path / 'cifar' / 'metrics.csv'  # as an earlier version may have left it
    metrics.write_text(metrics.read_text().replace(',0,1.0', ',,'))
    assert run_here('compare', tmp_path / 'cifar', tmp_path / 'mnist', '--output-dir', tmp_path / 'out') == 0
    text = (tmp_path / 'out' / 'comparison.md').read_text()
    titles = re.findall('## (.*)', text)
    assert titles == [
        f'{data} {part}' for data in ('CIFAR-10', 'MNIST') for part in ('by recipe', 'run by run')
    ]
    assert '| `mnist` | 3 | float32 | 0.9000 | 0.9000 (3) | 100 | 3.0 | 0.8000 |' in text
    assert text in capsys.readouterr().out
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {
        'comparison.md',
        'accuracy-cifar10.png',
        'accuracy-mnist.png',
        'covariance.png',
        'feature-maps.png',
        'feature-maps-all.png',
    }
    for path in (tmp_path / 'out').glob('*.png'):
        assert np.ptp(np.asarray(Image.open(path).convert('L'))) > 100


def test_folder_stands_for_the_runs_and_ablations_in_it(tmp_path, run_here, capsys):
    for path in ('run-seed0', 'run-seed1', 'plan/a-seed0'):
        write_run(tmp_path / 'record' / path, int(path[-1]))
    (tmp_path / 'record' / 'plan' / 'ablation.md').write_text('| the ablation |\n')
    (tmp_path / 'record' / 'SHA256SUMS').touch()
    folders, ablations = compare.expand([tmp_path / 'record', tmp_path / 'record' / 'plan' / 'a-seed0'])
    assert [path.name for path in folders] == ['run-seed0', 'run-seed1', 'a-seed0']
    assert [path.name for path in ablations] == ['plan']
    assert run_here('compare', tmp_path / 'record', '--output-dir', tmp_path / 'out') == 0
    text = (tmp_path / 'out' / 'comparison.md').read_text()
    assert '| `run` | 3 | 0, 1 |' in text and '`a-seed0`' not in text
    assert '## ablation plan\n\n| the ablation |\n' in text


def test_tables_on_a_page_are_replaced_and_the_rest_stays(tmp_path, run_here, capsys):
    write_run(tmp_path / 'run', 0)
    page = tmp_path / 'page.md'
    page.write_text('# Title\n\n<!-- table: CIFAR-10 by recipe -->\nold\n<!-- end -->\n\nWords.\n')
    words = 'compare', tmp_path / 'run', '--page', page, '--output-dir', tmp_path / 'out'
    assert run_here(*words) == 0
    first = page.read_text()
    assert re.fullmatch(
        r'# Title\n\n<!-- table: CIFAR-10 by recipe -->\n\| recipe (.*\n){3}<!-- end -->\n\nWords\.\n', first
    )
    assert 'page.md: has no place for the table "CIFAR-10 run by run"' in capsys.readouterr().out
    assert run_here(*words) == 0 and page.read_text() == first
    page.write_text(first.replace('by recipe', 'by colour'))
    assert run_here(*words) == 2
    assert 'no run given is of the table CIFAR-10 by colour' in capsys.readouterr().err
    assert run_here(*words[:3], tmp_path / 'missing.md', *words[4:]) == 2
    assert 'missing.md: No such file' in capsys.readouterr().err


@pytest.mark.parametrize(
    'epoch, title',
    [
        (None, 'run\naccuracy 0.9000, nearest center 0.8000'),
        (3, 'run\naccuracy 0.9000, nearest center 0.8000'),
        (2, 'run\nepoch 2, accuracy 0.7000, nearest center 0.6000'),
    ],
)
def test_feature_map_has_the_accuracies_of_its_own_epoch(tmp_path, epoch, title):
    folder = write_features(write_run(tmp_path / 'run', 1, on_mnist=True), epoch=epoch)
    assert compare.feature_map(read_run(folder)).title == title


def test_row_of_feature_maps_has_one_run_of_each_recipe_in_its_order(tmp_path):
    runs = [
        read_run(write_features(write_run(tmp_path / name, 0, on_mnist=True, version=version)))
        for name, version in (('c', 'lgm-full'), ('a', 'softmax'), ('b', 'softmax'), ('d', 'two-phase'))
    ]
    figures = compare.all_figures(runs)
    assert [panel.title for panel in figures['feature-maps.png'][1]] == ['softmax', 'L-GM, full likelihood']
    assert len(figures['feature-maps-all.png'][1]) == 4


def test_run_in_its_first_epoch_is_left_out(tmp_path, run_here, capsys):
    begun, other = (write_run(tmp_path / name, 0) for name in ('begun', 'other'))
    for name in ('metrics.csv', 'summary.json'):
        (begun / name).unlink()
    assert run_here('compare', begun, other, '--output-dir', tmp_path / 'out') == 0
    assert f'{begun}: left out, it has not ended its first epoch' in capsys.readouterr().out
    assert '`begun`' not in (tmp_path / 'out' / 'comparison.md').read_text()
    assert run_here('compare', begun, '--output-dir', tmp_path / 'out') == 2
    assert 'begun: the run has not ended its first epoch' in capsys.readouterr().err


def test_features_that_are_none_are_one_clear_line(tmp_path, run_here, capsys):
    folder = write_run(tmp_path / 'run', 0, on_mnist=True)
    (folder / 'features.npz').write_text('epoch,val_acc')
    assert run_here('compare', folder, '--output-dir', tmp_path / 'out') == 2
    assert not (tmp_path / 'out').exists()
    (error,) = capsys.readouterr().err.splitlines()
    assert 'holds no features of a run' in error
