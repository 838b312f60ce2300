"""Tables of runs, checked by hand."""

import pytest
from written_run import write_run

from training.runs import tables
from training.runs.run import PUBLISHED_V6, Repeats, by_recipe, read_run


def test_table_of_runs_by_hand(tmp_path):
    runs = [read_run(write_run(tmp_path / f'run-seed{seed}', seed)) for seed in (0, 1)]
    lines = tables.run_table(runs).splitlines()
    assert lines[2] == '| `run-seed0` | 3 | float32 | 0.8000 | 0.8600 (2) | 100 | 3.0 | 2.0 | - |'
    assert lines[3].endswith('| 3.0 | 3.0 | 3.0 |')
    run = read_run(write_run(tmp_path / 'mnist', 1, on_mnist=True))
    assert tables.run_table([run]).splitlines()[2].endswith('| 0.9000 (3) | 100 | 3.0 | 0.8000 |')


@pytest.mark.parametrize(
    'reported, last',
    [
        (0.84, '| 0.8500 | 0.8000 to 0.9000 | 0.0036 | 0.8400 | +0.0100 | +2.8 | 0.8800 |'),
        (None, '| 0.8500 | 0.8000 to 0.9000 | 0.0036 | - | - | - | 0.8800 |'),
    ],
)
def test_table_of_recipes_by_hand(tmp_path, reported, last):
    runs = [
        read_run(write_run(tmp_path / f'run-seed{seed}', seed, reported_val_acc=reported)) for seed in (0, 1)
    ]
    (row,) = tables.recipe_table(by_recipe(runs)).splitlines()[2:]
    assert row == f'| `run` | 3 | 0, 1 {last}'


def test_nearest_center_stands_beside_what_is_reported_of_it(tmp_path):
    for version, ending in (
        ('center', '| 0.7000 | - | 0.0046 | 0.9851 | -0.2851 | -62.2 | - |'),
        ('softmax', '| 0.7000 | - | 0.0046 | - | - | - | - |'),
    ):
        run = read_run(write_run(tmp_path / version, 0, on_mnist=True, version=version))
        own, nearest = tables.recipe_table(by_recipe([run])).splitlines()[2:]
        assert own.startswith(f'| `{version}` | 3 | 0 | 0.8000 | - | 0.0040 | 0.8500 | -0.0500 | -12.5 |')
        assert nearest == f'| `{version}`, nearest center | 3 | 0 {ending}'


@pytest.mark.parametrize(
    'epochs, version, dataset, redone',
    [
        (400, 'v6', 'cifar10', True),
        (40, 'v6', 'cifar10', False),
        (400, 'v4', 'cifar10', False),
        (400, 'v6', 'cifar100', False),
    ],
)
def test_published_curve_stands_beside_a_run_of_its_kind(tmp_path, epochs, version, dataset, redone):
    run = read_run(write_run(tmp_path / 'run', 0))
    run.recipe.data.dataset = dataset
    run.summary.update(epochs=epochs, version=version)
    run.metrics = [{'epoch': epoch, 'val_acc': epoch / 1000} for epoch in range(1, 401)]
    assert by_recipe([run])[0].redoes_v6 == redone
    header, _, own, published = tables.published_table(run).splitlines()
    assert header.startswith('| epoch | 25 |') and own.startswith('| `run` | 0.0250 |')
    assert published.endswith(f'| {max(PUBLISHED_V6.values())} |') and own.endswith('| 0.3810 |')


def test_verdict_names_the_difference():
    summary = {
        'version': 'v4',
        'val_acc': 0.84,
        'best_val_acc': 0.86,
        'best_epoch': 2,
        'reported_val_acc': 0.85,
    }
    assert tables.verdict(summary).endswith('best 0.8600 at epoch 2; reported 0.8500, difference -0.0100')
    assert tables.verdict({**summary, 'reported_val_acc': None}).endswith('; the source reports none')


def test_detection_of_seeds_stands_side_by_side(tmp_path):
    reports = (
        {
            'FGSM 4/255': {
                'accuracy': {'net': 0.25, 'softmax net': 0.125},
                'scores': {'max_softmax': {'auroc': 0.5, 'aupr': 0.1}},
            }
        },
        {
            'FGSM 4/255': {'accuracy': {'net': 0.375}, 'scores': {'max_softmax': {'auroc': 0.75}}},
            'noise': {'scores': {'log_likelihood': {'auroc': 1}}},
        },
    )
    runs = [
        read_run(write_run(tmp_path / f'run{seed}', seed, found={'detection': report}))
        for seed, report in enumerate(reports)
    ]
    assert tables.detection_table(runs) == (
        '| images | accuracy of net | accuracy of softmax net | max softmax | log likelihood |\n'
        '| --- | --- | --- | --- | --- |\n'
        '| FGSM 4/255 | 0.250 0.375 | 0.125 - | 0.500 0.750 | - - |\n'
        '| noise | - - | - - | - - | - 1.000 |\n'
    )


def test_verification_is_the_range_over_seeds_and_pixels_come_once(tmp_path):
    def report(auc, rank):
        rows = {
            'features, cosine': {'auc': auc, 'rank_1': rank},
            'pixels, cosine': {'auc': 0.6, 'rank_1': None},
        }
        return {'verification': {'data': 'others', 'results': rows}}

    first = [
        read_run(write_run(tmp_path / f'a-seed{seed}', seed, found=report(auc, 0.5)))
        for seed, auc in enumerate((0.91, 0.95))
    ]
    other = read_run(write_run(tmp_path / 'b', 0, found=report(0.8, None)))
    assert tables.verification_table([Repeats('a', first), Repeats('b', [other])]) == (
        '| recipe | compared | auc | rank 1 |\n'
        '| --- | --- | --- | --- |\n'
        '| `a` | features, cosine | 0.930 (0.910 to 0.950) | 0.500 |\n'
        '| `b` | features, cosine | 0.800 | - |\n'
        '| - | pixels, cosine | 0.600 | - |\n'
    )
