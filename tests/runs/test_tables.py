"""compare.py and the tables: figures checked by hand, damaged runs refused."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

import compare
from training.runs import tables
from training.runs.features import Snapshot

ACCURACIES = {0: (0.5, 0.86, 0.80), 1: (0.6, 0.7, 0.9)}


def write_run(folder, seed, on_mnist=False, **run):
    """A finished run of three epochs of one minute each."""
    folder.mkdir(parents=True)
    rows = [
        {
            'epoch': epoch + 1,
            'val_acc': accuracy,
            'seconds': 60.0,
            'images_per_second': 100.4,
            'mean_log_det': -epoch,
            'smallest_variance': 0.5**epoch,
            **({'knn_acc': accuracy - 0.1} if on_mnist else {}),
        }
        for epoch, accuracy in enumerate(ACCURACIES[seed])
    ]
    with open(folder / 'metrics.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    best = max(rows, key=lambda row: row['val_acc'])
    (folder / 'config.yaml').write_text(
        yaml.safe_dump(
            {
                'data': {'dataset': 'mnist' if on_mnist else 'cifar10'},
                'loss': {'margin': 0.1},
                'optimisation': {'epochs': 3},
                'run': {
                    'version': 'v4',
                    'dtype': 'float32',
                    'reported_val_acc': 0.85,
                    'seed': seed,
                    'output_dir': str(folder),
                    **run,
                },
            }
        )
    )
    (folder / 'summary.json').write_text(
        json.dumps(
            dict(
                version='v4',
                epochs=3,
                val_acc=rows[-1]['val_acc'],
                best_val_acc=best['val_acc'],
                best_epoch=best['epoch'],
                reported_val_acc=0.85,
                images_per_second=100.4,
                seconds=180.0,
                dtype='float32',
                seed=seed,
            )
        )
    )
    return folder


def test_tables_by_hand(tmp_path):
    runs = [tables.read(write_run(tmp_path / f'run-seed{seed}', seed)) for seed in (0, 1)]
    lines = tables.table(runs).splitlines()
    assert (
        lines[2] == '| `run-seed0` | 3 | float32 | 0.8000 | 0.8600 (2) | 0.8500 | -0.0500 | 100 | '
        '3.0 | 2.0 | - |'
    )
    assert lines[3].endswith('| 3.0 | 3.0 | 3.0 |')
    assert lines[-1] == '| `run`, 3 epochs | 0, 1 | 0.8500 | 0.8000 to 0.9000 | 0.8800 |'


@pytest.mark.parametrize(
    'epochs, version, dataset, drawn',
    [
        (400, 'v6', 'cifar10', 2),
        (40, 'v6', 'cifar10', 1),
        (400, 'v4', 'cifar10', 1),
        (400, 'v6', 'cifar100', 1),
    ],
)
def test_published_curve_stands_beside_a_run_of_its_kind(tmp_path, epochs, version, dataset, drawn):
    run = tables.read(write_run(tmp_path / 'run', 0))
    run.config['optimisation'], run.config['data']['dataset'] = {'epochs': epochs}, dataset
    run.summary['version'] = version
    curves = tables.curves([run])
    assert len(curves) == drawn and curves[0] == ('run', run.metrics)
    if drawn == 2:
        assert max(row['val_acc'] for row in curves[1][1]) == 0.9163


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(tmp_path):
    runs = [
        tables.read(write_run(tmp_path / f'run{seed}', seed, dtype=dtype))
        for seed, dtype in ((0, 'float32'), (1, 'bfloat16'))
    ]
    assert 'same recipe' not in tables.table(runs)


def test_runs_that_differ_in_what_does_not_matter_are_averaged(tmp_path):
    folders = [write_run(tmp_path / f'run{seed}', seed) for seed in (0, 1)]
    config = yaml.safe_load((folders[0] / 'config.yaml').read_text())
    config['data']['data_dir'] = '/elsewhere'
    config['loss']['likelihood_weight'] = 0.1  # as it is where a config does not say
    (folders[0] / 'config.yaml').write_text(yaml.safe_dump(config))
    assert '| `run`, 3 epochs | 0, 1 |' in tables.table(list(map(tables.read, folders)))


def test_curves_of_a_recipe_share_a_name_and_those_of_others_do_not(tmp_path):
    folders = [
        write_run(tmp_path / 'run-seed0', 0),
        write_run(tmp_path / 'run-seed1', 1),
        write_run(tmp_path / 'run-seed2', 0, dtype='bfloat16'),
    ]
    curves = tables.curves([tables.read(folder) for folder in folders])
    assert [name for name, _ in curves] == ['run', 'run', 'run-seed2']


def test_one_name_in_several_folders_or_recipes_stays_with_one_recipe(tmp_path):
    runs = tables.read_all(
        [
            write_run(tmp_path / parent / f'run-seed{seed}', seed, dtype=dtype)
            for parent, seed, dtype in (('a', 0, 'float32'), ('a', 1, 'float32'), ('b', 0, 'bfloat16'))
        ]
    )
    assert [run.name for run in runs] == ['a/run-seed0', 'a/run-seed1', 'b/run-seed0']
    assert [name for name, _ in tables.named(runs)] == ['a/run', 'a/run', 'b/run-seed0']
    assert '| `b/run-seed0` |' in tables.table(runs)
    runs = tables.read_all(
        [
            write_run(tmp_path / f'run-seed{seed}', seed % 2, dtype=dtype)
            for seed, dtype in enumerate(['float32'] * 2 + ['bfloat16'] * 2)
        ]
    )
    assert [name for name, _ in tables.named(runs)] == [f'run-seed{seed}' for seed in range(4)]


@pytest.mark.parametrize(
    'names, common',
    [
        (('run-seed10', 'run-seed11'), 'run'),
        (('v4', 'v4.1'), 'v4'),
        (('v4-a', 'v4-b'), 'v4'),
        (('full', 'full-seed1'), 'full'),
        (('v41', 'v42'), 'v4'),
        (('a', 'b'), 'the recipe'),
    ],
)
def test_name_of_a_recipe_is_what_its_runs_share(names, common):
    runs = [SimpleNamespace(name=name, summary={'version': 'the recipe'}) for name in names]
    assert tables._common_name(runs) == common


def test_unfinished_runs_show_how_far_they_came(tmp_path):
    runs = [tables.read(write_run(tmp_path / f'run{seed}', seed)) for seed in (0, 1)]
    (tmp_path / 'run1' / 'summary.json').unlink()
    unfinished = tables.read(tmp_path / 'run1')
    cells, whole = tables.cells(unfinished), tables.cells(runs[1])
    assert cells[0] == '`run1` (unfinished)' and cells[1:] == whole[1:]
    assert 'same recipe' not in tables.table([runs[0], unfinished])


def test_compare_writes_tables_and_figures(tmp_path, run_here, capsys):
    write_run(tmp_path / 'cifar', 0)
    write_run(tmp_path / 'mnist', 1, on_mnist=True)
    metrics = tmp_path / 'cifar' / 'metrics.csv'  # as an earlier version may have left it
    metrics.write_text(metrics.read_text().replace(',0,1.0', ',,'))
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(50, 3)), np.arange(50) % 10
    with open(tmp_path / 'mnist' / 'features.npz', 'wb') as file:
        Snapshot(points, labels, points, labels, rng.normal(size=(10, 3))).save(file)
    assert run_here('compare', tmp_path / 'cifar', tmp_path / 'mnist', '--output-dir', tmp_path / 'out') == 0
    text = (tmp_path / 'out' / 'comparison.md').read_text()
    assert (
        '## CIFAR-10' in text
        and '| `mnist` | 3 | float32 | 0.9000 | 0.9000 (3) | 0.8500 | +0.0500 | 0.8000 | 100 | 3.0 |' in text
        and text in capsys.readouterr().out
    )
    for name in ('comparison.png', 'feature-maps.png', 'covariance.png'):
        assert np.ptp(np.asarray(Image.open(tmp_path / 'out' / name).convert('L'))) > 100


@pytest.mark.parametrize(
    'epoch, title',
    [
        (None, 'run\naccuracy 0.9000, nearest center 0.8000'),
        (3, 'run\naccuracy 0.9000, nearest center 0.8000'),
        (2, 'run\nepoch 2, accuracy 0.7000, nearest center 0.6000'),
    ],
)
def test_feature_map_has_the_accuracies_of_its_own_epoch(tmp_path, epoch, title):
    folder = write_run(tmp_path / 'run', 1, on_mnist=True)
    points, labels = np.zeros((5, 2)), np.arange(5)
    with open(folder / 'features.npz', 'wb') as file:
        Snapshot(points, labels, points, labels, epoch=epoch).save(file)
    assert compare.feature_map(tables.read(folder)).title == title


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


def test_detection_of_seeds_stands_side_by_side(tmp_path, run_here, capsys):
    found = {
        0: {
            'FGSM 4/255': {
                'accuracy': {'net': 0.25, 'softmax net': 0.125},
                'scores': {'max_softmax': {'auroc': 0.5, 'aupr': 0.1}},
            }
        },
        1: {
            'FGSM 4/255': {'accuracy': {'net': 0.375}, 'scores': {'max_softmax': {'auroc': 0.75}}},
            'noise': {'scores': {'log_likelihood': {'auroc': 1}}},
        },
    }
    for seed in (0, 1):
        path = write_run(tmp_path / f'run{seed}', seed) / 'summary.json'
        path.write_text(json.dumps({**json.loads(path.read_text()), 'detection': found[seed]}))
    folders = tmp_path / 'run0', tmp_path / 'run1'
    assert run_here('compare', *folders, '--output-dir', tmp_path / 'out') == 0
    assert (
        capsys.readouterr()
        .out.split('AUROC\n\n')[1]
        .startswith(
            '| images | accuracy of net | accuracy of softmax net | max softmax | log likelihood |\n'
            '| --- | --- | --- | --- | --- |\n'
            '| FGSM 4/255 | 0.250 0.375 | 0.125 - | 0.500 0.750 | - - |\n'
            '| noise | - - | - - | - - | - 1.000 |\n'
        )
    )
    path.write_text(path.read_text().replace('"auroc": 1}', '"auroc": "high"}'))
    assert run_here('compare', *folders, '--output-dir', tmp_path / 'out') == 2
    assert 'run1: the files of this run are damaged' in capsys.readouterr().err
