"""Runs of train_cifar.py that are stopped, fail, go on or are begun again: nothing is lost."""

import json
import re
import resource
import shutil
import signal
import time

import mxnet as mx
import numpy as np
import pytest
from small_runs import FAST, SMALL, run_fields, same_weights, start, wait_for_epoch

from training.loop import fit as fit_module
from training.optim import overflow
from training.runs.folder import RunFolder

pytestmark = pytest.mark.usefixtures('no_figures')


def test_interrupted_and_resumed_run_equals_the_whole_one(finished, run_here, tmp_path):
    folder = tmp_path / 'run'
    process = start(folder, *FAST)
    wait_for_epoch(process, 1)
    time.sleep(0.1)  # some way into the second epoch
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert 'continue with --resume' in output
    assert run_here('train_cifar', '--output-dir', folder, '--resume') == 0
    assert run_fields(folder) == run_fields(finished[0])
    assert same_weights(folder, finished[0])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_stop_within_an_epoch_and_resumption_equal_the_whole_run(
    finished, run_here, stop_at, tmp_path, capsys, number
):
    folder = tmp_path / 'run'
    steps = stop_at(11, number)  # the third step of the second epoch
    words = ('--output-dir', folder)
    assert run_here('train_cifar', *SMALL, *words, *FAST) == 128 + number
    assert 'stopped in epoch 2' in capsys.readouterr().out and len(steps) == 11
    assert run_here('train_cifar', *words, '--resume') == 0
    assert 'resuming at epoch 2, step 3' in capsys.readouterr().out and len(steps) == 24
    assert run_fields(folder) == run_fields(finished[0]) and same_weights(folder, finished[0])


def test_resuming_a_finished_run_keeps_what_detect_found(finished, tmp_path, run_here):
    folder = tmp_path / 'run'
    shutil.copytree(finished[0], folder)
    summary = {
        **json.loads((folder / 'summary.json').read_text()),
        'detection': {'noise': {'scores': {'max_softmax': {'auroc': 0.5}}}},
    }
    (folder / 'summary.json').write_text(json.dumps(summary))
    assert run_here('train_cifar', '--output-dir', folder, '--resume') == 0
    assert json.loads((folder / 'summary.json').read_text()) == summary
    assert same_weights(folder, finished[0])


def test_new_run_moves_an_earlier_one_aside(finished, run_here, tmp_path):
    folder = tmp_path / 'run'
    shutil.copytree(finished[0], folder)
    assert run_here('train_cifar', *SMALL, '--output-dir', folder, '--epochs', 1, '--seed', 2) == 0
    seeds = [json.loads((path / 'summary.json').read_text())['seed'] for path in (tmp_path / 'run.1', folder)]
    assert seeds == [0, 2]


def test_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(run_here, tmp_path, capsys):
    folder = tmp_path / 'run'
    warmup = '--warmup', 'constant', '--warmup-epochs', 1, '--warmup-lr', '0.1'
    words = '--output-dir', folder, '--epochs', 3, '--lr', '1e12', *warmup
    code = run_here('train_cifar', *SMALL, *words)
    error = capsys.readouterr().err
    assert code == 2 and re.search(r'error: epoch 2: the loss is (nan|inf); stopped', error)
    assert 'Traceback' not in error
    with np.load(folder / 'checkpoint.npz', allow_pickle=False) as archive:
        assert json.loads(str(archive['state']))['epoch'] == 1
        assert all(np.isfinite(archive[name]).all() for name in archive.files if name != 'state')


def test_device_without_enough_memory_is_one_clear_line(run_here, tmp_path, monkeypatch, capsys):
    def train_epoch(*_):
        raise mx.MXNetError('Traceback:\n  File "src/storage"\ncudaMalloc retry failed: out of memory')

    monkeypatch.setattr(fit_module, 'train_epoch', train_epoch)
    assert run_here('train_cifar', *SMALL, '--output-dir', tmp_path / 'run') == 2
    assert (
        capsys.readouterr().err
        == 'error: device cpu: out of memory; stopped. A smaller --batch-size takes less\n'
    )


def test_steps_out_of_range_are_skipped_and_reported(run_here, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(overflow.LOSS_SCALE, 'float32', 8e37)  # what 65,504 is to float16
    words = '--version', 'v4', '--epochs', 1, '--likelihood-weight', 1e4, '--output-dir', tmp_path / 'run'
    assert run_here('train_cifar', *SMALL, *words) == 0
    assert (
        'epoch 1: 8 steps skipped, whose gradients exceeded the range of float32' in capsys.readouterr().out
    )
    weights = mx.nd.load(str(tmp_path / 'run' / 'last.params'))
    assert all(np.isfinite(array.asnumpy()).all() for array in weights.values())


@pytest.mark.parametrize('limit', [1500000, 300000], ids=['checkpoint', 'weights'])
def test_full_disk_is_one_clear_line_and_loses_nothing(finished, run_here, tmp_path, capsys, limit):
    """Files larger than the limit cannot be written, as on a full disk."""
    shutil.copytree(finished[0], tmp_path / 'run', ignore=shutil.ignore_patterns('tensorboard'))
    kept = {path.name: path.read_bytes() for path in (tmp_path / 'run').iterdir()}
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
    try:
        assert run_here('train_cifar', *SMALL, '--output-dir', tmp_path / 'run', '--epochs', 2) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    error = capsys.readouterr().err
    assert 'Traceback' not in error
    (line,) = [line for line in error.splitlines() if line.startswith('error')]
    assert str(tmp_path / 'run') in line and line.endswith('Once that is mended, start again')
    assert {path.name: path.read_bytes() for path in (tmp_path / 'run.1').iterdir()} == kept


def test_two_processes_do_not_train_in_one_folder(finished, tmp_path, run_here, capsys):
    folder = tmp_path / 'run'
    shutil.copytree(finished[0], folder)
    with RunFolder(folder).lock():
        for words in (('--resume',), ('--epochs', 1)):
            assert run_here('train_cifar', *SMALL, '--output-dir', folder, *words) == 2
            assert 'run: another process is training in this folder' in capsys.readouterr().err
    assert not (tmp_path / 'run.1').exists()
    assert run_here('train_cifar', '--output-dir', folder, '--resume') == 0
