"""Runs read from their folders, and which of them are repeats of one recipe."""

from types import SimpleNamespace

import pytest
import yaml
from written_run import write_run

from training.errors import UserError
from training.runs import run
from training.runs.run import by_recipe, read_run, read_runs


def names_and_seeds(runs):
    return [(group.name, [run.summary['seed'] for run in group.runs]) for group in by_recipe(runs)]


def test_unfinished_run_is_what_its_metrics_hold(tmp_path):
    finished, unfinished = (read_run(write_run(tmp_path / f'run{number}', 1)) for number in (0, 1))
    (tmp_path / 'run1' / 'summary.json').unlink()
    unfinished = read_run(tmp_path / 'run1')
    assert unfinished.summary == finished.summary and unfinished.metrics == finished.metrics
    assert (finished.remark, unfinished.remark) == ('', ' (unfinished)')
    assert len(by_recipe([finished, unfinished])) == 2


@pytest.mark.parametrize(
    'old, new',
    [
        ('"epochs": 3', '"epochs": "three"'),
        ('"seed": 0', '"seeds": 0'),
        ('"version": "v4"', '"detection": {"noise": {"scores": {"max_softmax": {"auroc": "high"}}}}'),
    ],
)
def test_summary_that_lacks_a_value_or_has_one_of_another_type_is_refused(tmp_path, old, new):
    path = write_run(tmp_path / 'run', 0) / 'summary.json'
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match='the files of this run are damaged'):
        read_run(tmp_path / 'run')


@pytest.mark.parametrize('line', ['1,0.5,x', '1,0.5', '1,0.5,60,100,0,1,0.5,0.5'])
def test_metrics_that_are_no_numbers_or_of_another_width_are_refused(tmp_path, line):
    path = write_run(tmp_path / 'run', 0) / 'metrics.csv'
    path.write_text(f'{path.read_text()}{line}\n')
    with pytest.raises(UserError, match='the files of this run are damaged'):
        read_run(tmp_path / 'run')


def test_accuracies_know_how_many_images_they_are_of(tmp_path):
    of_test_set = read_run(write_run(tmp_path / 'a', 0))
    assert of_test_set.images == 10000
    of_test_set.recipe.data.num_samples = 500
    assert of_test_set.images == 500
    of_test_set.recipe.data.holdout = 50
    assert of_test_set.images == 50 and of_test_set.remark == ' (held-out images)'
    own = read_run(write_run(tmp_path / 'b', 0, on_mnist=True))
    own.recipe.data.dataset = 'idx'
    assert own.images is None and by_recipe([own])[0].standard_error([0.9]) is None


def test_standard_error_is_that_of_the_mean_accuracy(tmp_path):
    (group,) = by_recipe([read_run(write_run(tmp_path / f'run-seed{seed}', seed)) for seed in (0, 1)])
    assert group.last == [0.8, 0.9] and group.best == [0.86, 0.9]
    assert group.standard_error(group.last) == pytest.approx((0.85 * 0.15 / 10000) ** 0.5)


def test_runs_that_differ_in_more_than_the_seed_are_not_repeats(tmp_path):
    runs = [
        read_run(write_run(tmp_path / f'run{seed}', seed, dtype=dtype))
        for seed, dtype in ((0, 'float32'), (1, 'bfloat16'))
    ]
    assert names_and_seeds(runs) == [('run0', [0]), ('run1', [1])]


def test_runs_that_differ_in_what_does_not_matter_are_repeats(tmp_path):
    folders = [write_run(tmp_path / f'run{seed}', seed) for seed in (0, 1)]
    config = yaml.safe_load((folders[0] / 'config.yaml').read_text())
    config['data']['data_dir'] = '/elsewhere'
    config['loss']['likelihood_weight'] = 0.1  # as it is where a config does not say
    (folders[0] / 'config.yaml').write_text(yaml.safe_dump(config))
    assert names_and_seeds(map(read_run, folders)) == [('run', [0, 1])]


def test_recipes_of_one_name_keep_the_names_of_their_first_runs(tmp_path):
    runs = read_runs(
        [
            write_run(tmp_path / parent / f'run-seed{seed}', seed, dtype=dtype)
            for parent, seed, dtype in (('a', 0, 'float32'), ('a', 1, 'float32'), ('b', 0, 'bfloat16'))
        ]
    )
    assert [run.name for run in runs] == ['a/run-seed0', 'a/run-seed1', 'b/run-seed0']
    assert names_and_seeds(runs) == [('a/run', [0, 1]), ('b/run', [0])]
    runs = [
        read_run(write_run(tmp_path / f'run-seed{number}', number % 2, dtype=dtype))
        for number, dtype in enumerate(['float32'] * 2 + ['bfloat16'] * 2)
    ]
    assert names_and_seeds(runs) == [('run-seed0', [0, 1]), ('run-seed2', [0, 1])]


@pytest.mark.parametrize(
    'names, common',
    [
        (('run-seed10', 'run-seed11'), 'run'),
        (('run-seed1',), 'run'),
        (('v4',), 'v4'),
        (('v4', 'v4.1'), 'v4'),
        (('v4-a', 'v4-b'), 'v4'),
        (('full', 'full-seed1'), 'full'),
        (('softmax', 'softmax-seed1-30epochs'), 'softmax'),
        (('v41', 'v42'), 'v4'),
        (('a', 'b'), 'the recipe'),
    ],
)
def test_name_of_a_recipe_is_what_its_runs_share(names, common):
    runs = [SimpleNamespace(name=name, summary={'version': 'the recipe'}) for name in names]
    assert run._common_name(runs) == common
