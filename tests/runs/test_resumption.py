"""What a run that goes on may change: where its data are, and how long it gets."""

import json
import shutil

import numpy as np
import pytest
from conftest import write_fashion, write_idx
from small_runs import run_fields

from training.config import recipe as recipes
from training.data import datasets
from training.errors import UserError
from training.runs.folder import RunFolder
from training.runs.resumption import check_resumable, resume

STEPS = 100  # an epoch


def load(family, version, **overrides):
    recipe_class = {'cifar': recipes.CifarRecipe, 'mnist': recipes.MnistRecipe}[family]
    return recipes.load_recipe(recipes.version_path(family, version), recipe_class, overrides)


@pytest.fixture
def go_on(tmp_path):
    """Begin a run, and go on after so many epochs with other options; returns the recipe in config.yaml."""

    def run(begun, done, step=0, **options):
        folder = RunFolder(tmp_path / 'run')
        with folder.start(begun):
            recipe = recipes.load_recipe(folder.config, type(begun), options, scale=False)
            check_resumable(folder, recipe)
            resume(folder, recipe, {'epoch': done, 'step': step}, 'digest', STEPS)
        return recipes.load_run(folder.config)

    return run


@pytest.mark.parametrize(
    'done, options, decays, said',
    [
        (8, {}, [10, 15], 'decays at 10, 15'),
        (12, {}, [10, 15], 'decays at 15'),
        (20, {}, [10, 15], 'stays as it is'),
        (20, {'decay_epochs': [10, 15, 30]}, [10, 15, 30], 'decays at 30'),
        (12, {'decay_epochs': [10, 20, 30]}, [10, 20, 30], 'decays at 20, 30'),
        (10, {'decay_epochs': [20, 30]}, [20, 30], 'decays at 20, 30'),
    ],
)
def test_step_decays_stay_where_they_are_and_those_to_come_may_move(
    go_on, capsys, done, options, decays, said
):
    begun = load('cifar', 'baseline', schedule='step', decay_epochs=[10, 15])
    longer = go_on(begun, done, epochs=40, **options)
    assert (longer.optimisation.epochs, longer.optimisation.decay_epochs) == (40, decays)
    assert longer.optimisation.warmup_epochs == begun.optimisation.warmup_epochs == 3
    output = capsys.readouterr().out
    assert f'20 epochs become 40: the learning rate {said}\n' in output and f'at epoch {done + 1}, ' in output


@pytest.mark.parametrize('done, step', [(10, 1), (16, 0)])
def test_step_decays_that_have_passed_must_stay(go_on, done, step):
    begun = load('cifar', 'baseline', schedule='step', decay_epochs=[10, 15])
    with pytest.raises(UserError, match=r'--decay-epochs: .* with decays at \[10.0.*; got \[\]'):
        go_on(begun, done, step, epochs=40, decay_epochs=[20, 30])


@pytest.mark.parametrize('schedule', ['cosine', 'polynomial'])
def test_other_schedules_get_longer_in_their_warm_up_only(go_on, capsys, schedule):
    begun = load('cifar', 'baseline', schedule=schedule)
    assert go_on(begun, 2, 99, epochs=40).optimisation.epochs == 40
    assert (
        f'20 epochs become 40: the learning rate has a {schedule} schedule over 40\n'
        in capsys.readouterr().out
    )
    with pytest.raises(
        UserError, match=f'a {schedule} schedule over 20 epochs, of which 3.01 .* --weights .*params'
    ):
        go_on(begun, 3, 1, epochs=40)


@pytest.mark.parametrize(
    'version, done, allowed',
    [('two-phase', 8, True), ('two-phase', 20, True), ('center', 20, True), ('softmax', 11, True)],
)
def test_phases_have_their_own_decays(go_on, version, done, allowed):
    begun = load('mnist', version)
    longer = go_on(begun, done, epochs=100)
    assert longer.optimisation.epochs == 100
    assert longer.loss.first_phase_epochs == begun.loss.first_phase_epochs


def test_cosine_of_the_second_phase_may_get_longer_before_it_began(go_on):
    begun = load('mnist', 'two-phase', schedule='cosine')
    assert go_on(begun, 10, epochs=100).optimisation.epochs == 100
    with pytest.raises(UserError, match='a cosine schedule over 40 epochs, of which 10.5 are done'):
        go_on(begun, 10, 50, epochs=100)


def test_a_run_cannot_get_shorter_or_change_otherwise(go_on):
    begun = load('cifar', 'v4')
    with pytest.raises(
        UserError, match='--epochs 100: the run in .*run is one of 400, and can only get longer'
    ):
        go_on(begun, 5, epochs=100)
    with pytest.raises(UserError, match='begun with other values .*lr: 0.1 / 0.2'):
        go_on(begun, 5, epochs=500, lr=0.2)
    with pytest.raises(UserError, match='begun with other values .*decay_epochs'):
        go_on(begun, 5, decay_epochs=[300])


def test_digest_is_of_content_alone():
    images = np.arange(48, dtype=np.uint8).reshape(2, 2, 3, 4)
    splits = [datasets.Split(images, np.arange(2)), datasets.Split(images[:1], np.arange(1))]
    copies = [datasets.Split(split.images.copy(order='F'), split.labels.copy()) for split in splits]
    assert datasets.digest(*splits) == datasets.digest(*copies)
    others = [
        datasets.Split(images, np.arange(2)[::-1]),
        datasets.Split(images[::-1], np.arange(2)),
        datasets.Split(images.reshape(2, 2, 4, 3), np.arange(2)),
        splits[1],
    ]
    assert len({datasets.digest(*splits), *(datasets.digest(other, splits[1]) for other in others)}) == 5


def test_run_goes_on_with_the_same_data_anywhere_but_not_with_other_data(
    run_here, tmp_path, capsys, no_figures
):
    first, moved, shifted = (tmp_path / name for name in ('first', 'moved', 'shifted'))
    first.mkdir()
    write_fashion(first, 40)
    shutil.copytree(first, moved)
    shutil.copytree(first, shifted)
    labels = datasets.load_mnist('fashion', first)[0].labels
    write_idx(shifted / 'train-labels-idx1-ubyte.gz', (labels + 3) % 10)
    run = (
        'train_mnist',
        '--version',
        'softmax',
        '--dataset',
        'fashion',
        '--dtype',
        'float32',
        '--device',
        'cpu',
    )
    run += ('--batch-size', 20, '--output-dir', tmp_path / 'run')
    assert run_here(*run, '--data-dir', first, '--epochs', 1, '--decay-epochs') == 0
    checkpoint = tmp_path / 'run' / 'checkpoint.npz'

    def without_digest():  # as an earlier version wrote it
        with np.load(checkpoint) as archive:
            arrays = dict(archive)
        state = json.loads(str(arrays.pop('state')))
        del state['data']
        np.savez(checkpoint, state=np.array(json.dumps(state)), **arrays)

    kept = {path: path.read_bytes() for path in (tmp_path / 'run').glob('*.*')}
    assert run_here(*run, '--resume', '--data-dir', shifted, '--epochs', 2) == 2
    assert 'run: was begun with other images or labels' in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert run_here(*run, '--resume', '--data-dir', moved, '--epochs', 2) == 0
    assert '1 epochs become 2: the learning rate stays as it is' in capsys.readouterr().out
    without_digest()
    assert run_here(*run, '--resume', '--data-dir', moved, '--epochs', 3) == 0
    assert [row['lr'] for row in run_fields(tmp_path / 'run')] == ['0.1'] * 3
    assert recipes.load_run(tmp_path / 'run' / 'config.yaml').optimisation.epochs == 3
    assert run_here(*run, '--resume', '--data-dir', shifted, '--epochs', 3) == 2
