"""Every mistake is one clear line and exit code 2, and costs nothing that was there before.

The scripts run in this process, in a folder with small data sets, a finished run and a picture, all
of which are compared before and after.
"""

import hashlib
import re
import shlex
import shutil

import numpy as np
import pytest
from bad_command_lines import COMMAND_LINES
from conftest import write_cifar100, write_fashion
from damaged_files import CIFAR_FILES, IDX_FILES, RECIPES
from damaged_runs import CHECKPOINTS, RUN_FILES, WEIGHTS
from PIL import Image

ALWAYS = {
    'train_cifar': '--dataset cifar100 --data-dir data --batch-size 8 --epochs 1 --dtype float32 '
    '--device cpu --output-dir run',
    'train_mnist': '--dataset fashion --data-dir digits --batch-size 8 --epochs 1 --dtype float32 '
    '--device cpu --output-dir digits-run',
    'predict': '',
    'compare': '',
    'ablate': '',
    'detect': '',
    'export': '',
}


TABLE = [(script, words, None, message) for script, words, message in COMMAND_LINES]
TABLE += [('train_cifar', '--test', damage, message) for _, damage, message in RECIPES]
TABLE += [('train_cifar', '', damage, message) for _, damage, message in CIFAR_FILES]
TABLE += [('train_mnist', '', damage, message) for _, damage, message in IDX_FILES]
TABLE += [('train_cifar', words, damage, message) for _, damage, words, message in WEIGHTS]
TABLE += [('train_cifar', '--resume', damage, message) for _, damage, message in CHECKPOINTS]
TABLE += RUN_FILES
IDS = [f'{script} {words[:40]}' for script, words, _ in COMMAND_LINES]
for group, rows in (
    ('recipe', RECIPES),
    ('CIFAR file', CIFAR_FILES),
    ('IDX file', IDX_FILES),
    ('weights', WEIGHTS),
    ('checkpoint', CHECKPOINTS),
):
    IDS += [f'{group}: {row[0]}' for row in rows]
IDS += [f'{script} {words}: {message}' for script, words, _, message in RUN_FILES]


@pytest.fixture(scope='module')
def script(run_here):
    """Run a script on a string of words after those that it always gets here."""
    return lambda name, words: run_here(name, *shlex.split(ALWAYS[name]), *shlex.split(words))


@pytest.fixture(scope='module')
def shelf(tmp_path_factory, script):
    """The folder that each mistake gets a copy of."""
    place = tmp_path_factory.mktemp('shelf')
    (place / 'data').mkdir()
    write_cifar100(place / 'data', 24, 24)
    (place / 'digits').mkdir()
    (place / 'folder.csv').mkdir()
    write_fashion(place / 'digits', 24)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(place / 'photo.png')
    (place / 'plan.yaml').write_text('version: fast\nvariants: {base: {}}')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert script('train_cifar', '') == 0
    return place


def contents(place):
    return {
        str(path.relative_to(place)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in place.rglob('*')
        if path.is_file() and not path.is_symlink()
    } | {str(path.relative_to(place)): 'folder' for path in place.rglob('*') if path.is_dir()}


@pytest.mark.parametrize('name, words, damage, message', TABLE, ids=IDS)
def test_a_mistake_is_one_clear_line_and_changes_nothing(
    shelf, script, tmp_path, monkeypatch, capfd, name, words, damage, message
):
    place = tmp_path / 'place'
    shutil.copytree(shelf, place)
    monkeypatch.chdir(place)
    if damage:
        damage()
    before = contents(place)
    capfd.readouterr()
    assert script(name, words) == 2
    error = capfd.readouterr().err
    assert error.startswith('error: ') and len(error.splitlines()) == 1, error
    assert re.search(message, error.strip()) and len(error) < 1000
    assert contents(place) == before


@pytest.mark.parametrize(
    'words',
    [
        ('train_cifar.py', '--weights', 'README.md'),
        ('train_mnist.py', '--device', 'tpu'),
        ('predict.py', 'nothing', 'README.md'),
        ('compare.py', '--runs'),
        ('ablate.py', 'README.md'),
    ],
)
def test_a_process_of_its_own_says_no_more(run_script, tmp_path, words):
    folder = () if words[0] == 'predict.py' else ('--output-dir', tmp_path / 'run')
    result = run_script(*words, *folder)
    assert result.returncode == 2 and result.stderr.startswith('error: ')
    assert len(result.stderr.splitlines()) == 1 and not (tmp_path / 'run').exists()
