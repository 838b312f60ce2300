"""The run folder: one run at a time, and files whatever happens."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from training.config import recipe as recipes
from training.errors import UserError
from training.runs.folder import RunFolder


def test_of_runs_that_start_at_once_in_one_folder_only_one_goes_on(tmp_path):
    recipe = recipes.load_recipe(recipes.version_path('cifar', 'fast'), recipes.CifarRecipe, {})

    def start(_):
        try:
            return RunFolder(tmp_path / 'run').start(recipe)
        except UserError as error:
            return str(error)

    for earlier in (0, 1):
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(start, range(8)))
        (lock,) = [outcome for outcome in outcomes if not isinstance(outcome, str)]
        with lock:
            assert sorted(path.name for path in tmp_path.iterdir()) == ['run', 'run.1'][: 1 + earlier]
            assert recipes.load_run(tmp_path / 'run' / 'config.yaml') == recipe


@pytest.mark.parametrize('name', [None, 'checkpoint.npz', 'checkpoint.before.npz', 'checkpoint.npz.damaged'])
def test_resume_is_advised_only_where_a_checkpoint_exists(tmp_path, name):
    if name:
        (tmp_path / name).touch()
    with pytest.raises(UserError) as failure, RunFolder(tmp_path).writing():
        raise OSError(28, 'No space left on device', 'some/file')
    way = (
        'continue from the last checkpoint with --resume' if name and name.endswith('npz') else 'start again'
    )
    assert str(failure.value) == (
        f'some/file: cannot be written (No space left on device); stopped. Once that is mended, {way}'
    )


def test_metrics_whose_rows_lack_columns_of_each_other(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_metrics([{'epoch': 1, 'old': 0.5}, {'epoch': 2, 'new': 0.25}])
    assert folder.metrics.read_text() == 'epoch,new,old\n1,,0.5\n2,0.25,\n'
