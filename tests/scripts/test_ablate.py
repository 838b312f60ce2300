"""ablate.py: plans, command lines, and small runs that stop and go on."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT
from photos import write_set

import ablate
from training.config import recipe as recipes

pytestmark = pytest.mark.usefixtures('no_figures')


def write(tmp_path, plan):
    path = tmp_path / 'plan.yaml'
    path.write_text(plan if isinstance(plan, str) else yaml.safe_dump(plan, sort_keys=False))
    return path


PLAN = {
    'version': 'baseline',
    'variants': {
        'base': {'optimizer': 'muon'},
        'smooth': {'label_smoothing': 0.1},
        'plain': {'zero_gamma': True, 'decay_epochs': [1, 2]},
    },
}
BASELINE = ablate.Base('cifar', 'baseline')


def test_variants_stand_alone(tmp_path):
    _, alone = ablate.read_plan(write(tmp_path, PLAN))
    assert alone['plain'] == {'zero_gamma': True, 'decay_epochs': [1, 2]}


def test_values_are_those_that_the_check_made_of_them(tmp_path):
    _, variants = ablate.read_plan(
        write(
            tmp_path,
            'version: fast\nvariants: {a: {warmup_epochs: "3", decay_epochs: [1e1, 15], zero_gamma: 1}}',
        )
    )
    assert variants == {'a': {'warmup_epochs': 3, 'decay_epochs': [10, 15], 'zero_gamma': True}}
    assert ablate.options(variants['a'])[-1] == '--zero-gamma'


@pytest.mark.parametrize(
    'plan', sorted((ROOT / 'configs' / 'ablations').glob('*.yaml')), ids=lambda path: path.stem
)
def test_kept_plans_are_valid(plan):
    assert len(ablate.read_plan(plan)[1]) > 1


def test_epochs_of_variants_are_scaled_and_texts_filled_in():
    overrides = {
        'schedule': 'step',
        'decay_epochs': [10, 15],
        'warmup_epochs': 4,
        'resolutions': [(16, 8.0), (32, 12.0)],
        'lr': 0.3,
        'teacher': '{output_dir}/base-seed{seed}',
    }
    for common, ratio in (({}, 1), ({'epochs': '10'}, 0.5), ({'epochs': '3'}, 0.15)):
        assert ablate.settle(overrides, common, BASELINE, 'out', 2) == {
            **overrides,
            'decay_epochs': pytest.approx([10 * ratio, 15 * ratio]),
            'warmup_epochs': pytest.approx(4 * ratio),
            'resolutions': [(16, 8 * ratio), (32, 12 * ratio)],
            'teacher': 'out/base-seed2',
        }


def test_epochs_that_a_variant_sets_are_its_own():
    overrides = {'epochs': 40, 'warmup_epochs': 4}
    assert ablate.settle(overrides, {'epochs': '10'}, BASELINE, 'out', 0) == {
        'epochs': 40,
        'warmup_epochs': 8,
    }


def test_command_line_of_a_variant():
    assert ablate.options(
        {'zero_gamma': True, 'decay_bias_and_norm': False, 'mixup': 0.2, 'decay_epochs': [1, 2]}
    ) == ['--zero-gamma', '--no-decay-bias-and-norm', '--mixup', '0.2', '--decay-epochs', '1', '2']


def test_resolutions_of_a_plan_reach_the_run(tmp_path):
    plan = {'version': 'baseline', 'variants': {'small': {'resolutions': [[16, 8], [32, 12]]}}}
    base, variants = ablate.read_plan(write(tmp_path, plan))
    words = ablate.options(ablate.settle(variants['small'], {'epochs': 10}, base, tmp_path, 0))
    assert words == ['--resolutions', '16:4.0', '32:6.0']
    recipe = base.recipe({'epochs': 10, **ablate.read_common(words, base)})
    assert recipe.data.resolutions == [(16, 4), (32, 6)]


def test_row_is_the_mean_over_seeds_and_its_distance_from_the_first_variants_same_seeds():
    summary = {'best_val_acc': 0.9, 'images_per_second': 100.4}
    runs = [
        SimpleNamespace(summary={**summary, 'seed': seed, 'val_acc': accuracy})
        for seed, accuracy in ((0, 0.80), (3, 0.84))
    ]
    for reference, difference in (
        ({0: 0.86, 3: 0.84}, '-0.0300'),
        ({3: 0.83, 1: 0.9}, '+0.0100'),
        ({1: 0.9}, '-'),
        ({}, '-'),
    ):
        assert ablate.row('smooth', runs, reference) == [
            'smooth',
            '0, 3',
            '0.8200',
            '0.8000 to 0.8400',
            difference,
            '0.9000',
            '100',
        ]
    runs[0].validated_on = 'test set'
    assert '| smooth | 0, 3 | 0.8200 | 0.8000 to 0.8400 | - | 0.9000 | 100 |' in ablate.table(
        {'smooth': runs}, first='plain'
    )


def test_runs_every_variant_once_and_writes_the_table(tmp_path, run_here, in_place_of_processes, capsys):
    plan = write(
        tmp_path,
        {
            'version': 'fast',
            'variants': {'base': {}, '[smooth] *': {'label_smoothing': 0.1, 'batch_size': 16}},
        },
    )
    words = (
        'ablate',
        plan,
        '--seeds',
        0,
        '--output_dir',
        tmp_path / 'out',
        '--num-samples',
        64,
        '--batch-size',
        32,
        '--epochs',
        1,
        '--dtype',
        'float32',
    )
    assert run_here(*words) == 0
    printed = capsys.readouterr().out
    table = (tmp_path / 'out' / 'ablation.md').read_text()
    names = [line.split('|')[1].strip() for line in table.splitlines()[2:4]]
    assert names == ['base', '[smooth] *']
    assert [
        recipes.load_run(tmp_path / 'out' / run / 'config.yaml').optimisation.batch_size
        for run in ('base-seed0', '[smooth]-*-seed0')
    ] == [32, 16]
    assert table in printed and '+0.0000' in table.splitlines()[2]
    assert table.splitlines()[4:] == ['', 'Top-1 accuracy on the first 64 test images.']
    assert len(in_place_of_processes) == 2
    assert run_here(*words, '--only', '[smooth] *') == 0 and len(in_place_of_processes) == 2
    assert (tmp_path / 'out' / 'ablation.md').read_text() == table
    assert run_here(*words, '--only', 'base', '--seeds', 3) == 0 and len(in_place_of_processes) == 3
    table = (tmp_path / 'out' / 'ablation.md').read_text()
    assert '| base | 0, 3 |' in table and '| [smooth] * | 0 |' in table


def test_variants_of_a_recipe_for_images(tmp_path, run_here, in_place_of_processes, cifar, capsys):
    photos = write_set(tmp_path / 'photos', cifar)
    plan = {
        'family': 'images',
        'version': 'scratch-small',
        'variants': {'base': {}, 'jitter': {'jitter': 0.3}},
    }
    words = ('ablate', write(tmp_path, plan), '--output-dir', tmp_path / 'out', '--data-dir', photos,
             *('--model', 'mobilenet0.25', '--image-size', 32),
             *('--batch-size', 18, '--epochs', 1, '--warmup', 'none'))  # fmt: skip
    for _ in range(2):  # again with nothing left to do
        assert run_here(*words) == 0
        assert len(in_place_of_processes) == 2
        table = (tmp_path / 'out' / 'ablation.md').read_text()
        assert '| jitter | 0 |' in table and 'Top-1 accuracy on the 18 val images.' in table
    write(tmp_path, {**plan, 'variants': {'base': {'padding': 2}}})
    assert run_here(*words) == 2
    assert 'base: padding is no field that a variant can change' in capsys.readouterr().err


def test_runs_of_another_budget_or_plan_are_not_taken(tmp_path, run_here, in_place_of_processes, capsys):
    words = (
        'ablate',
        write(tmp_path, PLAN),
        '--only',
        'base',
        '--output-dir',
        tmp_path / 'out',
        '--num-samples',
        32,
        '--batch-size',
        32,
        '--dtype',
        'float32',
        '--device',
        'cpu',
    )
    for _ in range(2):
        assert run_here(*words, '--epochs', 1) == 0
    capsys.readouterr()
    assert run_here(*words, '--epochs', 2) == 2
    assert 'base-seed0: was begun with other values (begun / now): epochs: 1 / 2' in capsys.readouterr().err
    write(tmp_path, {'version': 'baseline', 'variants': {'base': {}}})
    assert run_here(*words, '--epochs', 1) == 2
    assert "optimizer: 'muon' / 'nag'" in capsys.readouterr().err


def test_ctrl_c_lets_the_run_write_its_checkpoint(tmp_path):
    plan = write(tmp_path, {'version': 'fast', 'variants': {'base': {}}})
    process = subprocess.Popen(
        [
            sys.executable,
            'ablate.py',
            str(plan),
            '--output-dir',
            str(tmp_path / 'out'),
            '--num-samples',
            '128',
            '--batch-size',
            '16',
            '--epochs',
            '100',
            '--dtype',
            'float32',
        ],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    while not process.stdout.readline().startswith('epoch'):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130 and 'the same command goes on' in output
    assert 'Traceback' not in output
    assert (tmp_path / 'out' / 'base-seed0' / 'checkpoint.npz').exists()


@pytest.mark.parametrize('name', ['checkpoint.npz', 'checkpoint.before.npz'])
def test_goes_on_from_whichever_checkpoint_there_is(tmp_path, run_here, monkeypatch, name):
    started = []
    monkeypatch.setattr(
        subprocess, 'Popen', lambda words: started.append(words) or SimpleNamespace(wait=lambda: 2)
    )
    run = tmp_path / 'out' / 'base-seed0'
    run.mkdir(parents=True)
    (run / name).touch()
    plan = write(tmp_path, {'version': 'fast', 'variants': {'base': {}, 'more': {}}})
    for only, resumed in (('base', True), ('more', False)):
        assert run_here('ablate', plan, '--output-dir', tmp_path / 'out', '--only', only) == 2
        assert ('--resume' in started.pop()) == resumed


@pytest.mark.parametrize(
    'common, given',
    [((), ['float32']), (('--dtype', 'auto'), ['auto', 'float32']), (('--dtype', 'bfloat16'), ['bfloat16'])],
)
def test_runs_that_leave_the_precision_open_share_it(tmp_path, run_here, monkeypatch, common, given):
    started = []
    monkeypatch.setattr(
        subprocess, 'Popen', lambda words: started.append(words) or SimpleNamespace(wait=lambda: 2)
    )
    plan = write(
        tmp_path,
        {'version': 'fast', 'variants': {'low': {'dtype': 'bfloat16'}, 'base': {}, 'more': {'lr': 0.3}}},
    )
    for name, dtype in (('low-seed0', 'bfloat16'), ('base-seed3', 'float32')):
        (tmp_path / 'out' / name).mkdir(parents=True)
        (tmp_path / 'out' / name / 'config.yaml').write_text(f'run: {{dtype: {dtype}}}')
    assert run_here('ablate', plan, '--output-dir', tmp_path / 'out', '--only', 'more', *common) == 2
    (words,) = started
    assert [after for word, after in zip(words, words[1:]) if word == '--dtype'] == given


def test_sigterm_while_a_run_is_being_started_stops_that_run(tmp_path, run_here, monkeypatch):
    started = []

    def start(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        started.append(popen(['sleep', '60']))
        return started[-1]

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, 'Popen', start)
    plan = write(tmp_path, {'version': 'fast', 'variants': {'base': {}, 'more': {}}})
    assert run_here('ablate', plan, '--output-dir', tmp_path / 'out') == 128 + signal.SIGTERM
    assert [process.returncode for process in started] == [-signal.SIGTERM]
