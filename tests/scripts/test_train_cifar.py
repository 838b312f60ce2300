"""train_cifar.py as its users run it, on small real data."""

import json
import re
import resource
import shutil
import signal
import time

import mxnet as mx
import numpy as np
import pytest
import yaml
from conftest import SMALL, run_fields, same_weights, start, wait_for_epoch, write_cifar100
from tensorboardX.proto.event_pb2 import Event

from gmloss import LGMLoss
from training.errors import UserError
from training.loop import fit as fit_module
from training.loop import validation as validation_module
from training.loop.epoch import average_statistics
from training.machine import devices
from training.machine.cluster import Workers
from training.optim import overflow
from training.runs.background_plots import BackgroundPlots
from training.runs.folder import RunFolder
from training.runs.weights import save_weights

# With sizes that change, so that whatever resumes does so on both sides of a change.
FAST = ('--version', 'fast', '--epochs', 3, '--resolutions', '16:1', '24:1', '32:1')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A run of three epochs that nothing disturbed."""
    folder = tmp_path_factory.mktemp('runs') / 'whole'
    process = start(folder, *FAST, '--tensorboard')
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return folder, output


def test_run_folder_holds_everything_promised(finished):
    folder, output = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        '.lock',
        'config.yaml',
        'metrics.csv',
        'summary.json',
        'curves.png',
        'best.params',
        'last.params',
        'checkpoint.npz',
        'checkpoint.before.npz',
        'tensorboard',
        'likelihood.png',
    }
    with open(folder / 'metrics.csv') as file:
        assert file.readline().strip() == (
            'epoch,lr,margin,train_loss,train_acc,val_acc,images_per_second,seconds'
        )
    assert [row['epoch'] for row in run_fields(folder)] == ['1', '2', '3']
    summary = json.loads((folder / 'summary.json').read_text())
    assert set(summary) == {
        'version',
        'epochs',
        'val_acc',
        'best_val_acc',
        'best_epoch',
        'validated_on',
        'validation_images',
        'reported_val_acc',
        'images_per_second',
        'seconds',
        'device',
        'dtype',
        'seed',
        'parameters',
        'likelihood_spread',
        'likelihood_thresholds',
    }
    accuracies = [float(row['val_acc']) for row in run_fields(folder)]
    assert summary['val_acc'] == pytest.approx(accuracies[-1], abs=1e-5)
    assert summary['best_val_acc'] == pytest.approx(max(accuracies), abs=1e-5)
    assert summary['best_epoch'] == accuracies.index(max(accuracies)) + 1
    assert summary['parameters'] == 271824 + 640
    config = yaml.safe_load((folder / 'config.yaml').read_text())
    assert config['run']['dtype'] == 'float32' and config['optimisation']['epochs'] == 3
    assert (folder / 'curves.png').read_bytes().startswith(b'\x89PNG')
    last = output.strip().splitlines()[-1]
    assert re.match(
        r'fast: val acc 0\.\d{4} at the last epoch, best .* reported 0.8900, difference '
        r'[+-]0\.\d{4}$',
        last,
    )
    assert 'float32, ' in output and 'device cpu' in output and '128 training images' in output


def test_event_files_hold_the_metrics(finished):
    folder, _ = finished
    events = list((folder / 'tensorboard').glob('events.out.tfevents.*'))
    assert len(events) == 1
    found, content = {}, events[0].read_bytes()
    while content:  # records: length (8 bytes), its digest (4), the event, its digest (4)
        length = int.from_bytes(content[:8], 'little')
        event = Event.FromString(content[12 : 12 + length])
        found.update({(value.tag, event.step): value.simple_value for value in event.summary.value})
        content = content[16 + length :]
    for row in run_fields(folder):
        for name in ('val_acc', 'train_acc', 'lr'):
            assert found[name, int(row['epoch'])] == pytest.approx(float(row[name]), rel=1e-4)


def test_accuracy_of_saved_weights_is_the_recorded_one(finished, run_here, capsys):
    folder, _ = finished
    assert run_here('train_cifar', *SMALL, '--output-dir', folder, '--test') == 0
    wanted = f'accuracy {float(run_fields(folder)[-1]["val_acc"]):.4f} by lgm on 128'
    assert wanted in capsys.readouterr().out


def test_run_of_another_machine_is_tested_on_this_one(finished, run_here, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(finished[0], tmp_path / 'run')
    config = yaml.safe_load((folder / 'config.yaml').read_text())
    config['run'].update(device='gpu:3', dtype='float16', kvstore='dist_sync', workers=4)
    (folder / 'config.yaml').write_text(yaml.safe_dump(config))
    monkeypatch.setattr(devices, 'cpu_has_bfloat16', lambda: False)
    assert run_here('train_cifar', '--test', '--output-dir', folder) == 0
    output = capsys.readouterr().out
    assert 'device cpu, float32' in output
    assert f'accuracy {float(run_fields(folder)[-1]["val_acc"]):.4f} by lgm on 128' in output


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
    finished, run_here, tmp_path, monkeypatch, capsys, number
):
    folder, calls, kept = tmp_path / 'run', [], Workers.stop_requested

    def stop_requested(workers, wanted):
        calls.append(wanted)
        if len(calls) == 11:  # the third step of the second epoch
            signal.raise_signal(number)
        return kept(workers, wanted or len(calls) == 11)

    monkeypatch.setattr(Workers, 'stop_requested', stop_requested)
    words = ('--output-dir', folder)
    assert run_here('train_cifar', *SMALL, *words, *FAST) == 128 + number
    assert 'stopped in epoch 2' in capsys.readouterr().out and len(calls) == 11
    assert run_here('train_cifar', *words, '--resume') == 0
    assert 'resuming at epoch 2, step 3' in capsys.readouterr().out and len(calls) == 24
    assert run_fields(folder) == run_fields(finished[0]) and same_weights(folder, finished[0])


def test_what_happens_at_the_end_of_an_epoch(run_here, tmp_path, monkeypatch):
    """The margin grows, BatchNorm's statistics are averaged, the best epoch's weights are kept."""
    margins, averaged, saved, accuracies = [], [], [], iter([0.4, 0.5, 0.3])
    set_margin, average = LGMLoss.set_margin, average_statistics
    save = save_weights
    monkeypatch.setattr(
        LGMLoss, 'set_margin', lambda loss, alpha: margins.append(alpha) or set_margin(loss, alpha)
    )
    monkeypatch.setattr(
        fit_module,
        'average_statistics',
        lambda graph, data: averaged.append(len(margins)) or average(graph, data),
    )
    monkeypatch.setattr(validation_module, 'accuracies', lambda *_: [next(accuracies)])
    monkeypatch.setattr(
        fit_module,
        'save_weights',
        lambda path, block: saved.append((path.name, len(margins))) or save(path, block),
    )
    assert (
        run_here(
            'train_cifar',
            *SMALL,
            '--device',
            'cpu:1,2',
            '--epochs',
            3,
            '--margin-factor',
            2,
            '--margin-every',
            4,
            '--schedule',
            'step',
            '--warmup',
            'none',
            '--lr',
            0.1,
            '--lr-batch-size',
            16,
            '--output-dir',
            tmp_path / 'run',
        )
        == 0
    )  # 4 steps an epoch
    assert [row['lr'] for row in run_fields(tmp_path / 'run')] == ['0.2'] * 3  # of 32 images
    assert margins == pytest.approx([0.1, 0.2, 0.3]) and averaged == [1, 2, 3]
    assert saved == [('best.params', 1), ('best.params', 2), ('last.params', 3)]
    summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
    assert (summary['best_val_acc'], summary['best_epoch'], summary['val_acc']) == (0.5, 2, 0.3)


@pytest.mark.parametrize(
    'script, words',
    [
        ('train_cifar', (*SMALL, '--flip', 'alternating')),
        ('train_mnist', ('--version', 'lgm-off', '--num-samples', 300, '--batch-size', 50)),
    ],
)
def test_seed_decides_weights_and_order(run_here, tmp_path, monkeypatch, script, words):
    def train_epoch(graph, data, *_):
        ((images, labels, *_),) = next(data.batches(0))
        seen.append(
            [
                labels.asnumpy().tolist(),
                float(images.sum().asscalar()),
                *(float(p.data().abs().sum().asscalar()) for p in graph.collect_params('.*weight').values()),
            ]
        )
        flips.add(data.flip)
        raise UserError('seen')

    seen, flips = [], set()
    monkeypatch.setattr(fit_module, 'train_epoch', train_epoch)
    for number, seed in enumerate((0, 0, 1)):
        assert run_here(script, *words, '--seed', seed, '--output-dir', tmp_path / str(number)) == 2
    assert seen[0] == seen[1] and flips == {'alternating' if '--flip' in words else 'random'}
    for ours, theirs in zip(seen[0], seen[2]):
        assert ours != theirs


def test_runs_validated_on_held_out_images_are_tested_on_the_test_set(run_here, tmp_path, capsys):
    run = ('train_cifar', '--output-dir', tmp_path / 'run')
    assert run_here(*run, *SMALL, '--epochs', 1, '--holdout', 100, '--augmentation', 'none') == 0
    assert '128 training images, 100 held-out images' in capsys.readouterr().out
    assert run_here(*run, '--test') == 0
    assert '128 test images' in capsys.readouterr().out


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


def test_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(run_here, tmp_path, capsys):
    folder = tmp_path / 'run'
    code = run_here(
        'train_cifar',
        *SMALL,
        '--output-dir',
        folder,
        '--epochs',
        3,
        '--lr',
        '1e12',
        '--warmup',
        'constant',
        '--warmup-epochs',
        1,
        '--warmup-lr',
        '0.1',
    )
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
    assert (
        run_here(
            'train_cifar',
            *SMALL,
            '--version',
            'v4',
            '--epochs',
            1,
            '--likelihood-weight',
            1e4,
            '--output-dir',
            tmp_path / 'run',
        )
        == 0
    )
    assert (
        'epoch 1: 8 steps skipped, whose gradients exceeded the range of float32' in capsys.readouterr().out
    )
    weights = mx.nd.load(str(tmp_path / 'run' / 'last.params'))
    assert all(np.isfinite(array.asnumpy()).all() for array in weights.values())


def test_new_run_moves_an_earlier_one_aside(finished, run_here, tmp_path):
    folder = tmp_path / 'run'
    shutil.copytree(finished[0], folder)
    assert run_here('train_cifar', *SMALL, '--output-dir', folder, '--epochs', 1, '--seed', 2) == 0
    seeds = [json.loads((path / 'summary.json').read_text())['seed'] for path in (tmp_path / 'run.1', folder)]
    assert seeds == [0, 2]


@pytest.mark.parametrize(
    'words',
    [
        ('--version', 'v4'),
        ('--version', 'v6', '--warmup-epochs', '1'),  # v6 explodes without, as its README says
        ('--covariance', 'diagonal', '--likelihood', 'full', '--device', 'cpu:1,2'),
        ('--optimizer', 'adam', '--lr', '1e-3'),
        ('--holdout', '100', '--augmentation', 'none', '--model', 'cifar_resnet20_v2'),
    ],
)
def test_variants_run_to_the_end(run_here, tmp_path, capsys, words):
    assert run_here('train_cifar', *SMALL, '--output-dir', tmp_path / 'run', '--epochs', 1, *words) == 0
    assert 'val acc' in capsys.readouterr().out


def test_plotting_draws_the_curves_after_every_epoch(run_here, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        BackgroundPlots,
        'submit',
        lambda _, write, *rest: drawn.append(rest[0] if rest else write.__name__),
    )
    assert run_here('train_cifar', *SMALL, '--output-dir', tmp_path / 'run', '--epochs', 2, '--plotting') == 0
    of_epoch = ['features.npz', 'features/epoch-00{}.npz', 'features/epoch-00{}.png']
    assert drawn == [
        'curves.png',
        'features/sample.npz',
        *(name.format(1) for name in of_epoch),
        'curves.png',
        *(name.format(2) for name in of_epoch),
        'curves.png',
        'animate_features',
        'features.html',
        'likelihood.png',
    ]


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


def test_v1_is_validated_both_ways_and_its_variances_are_recorded(run_here, tmp_path):
    assert (
        run_here(
            'train_cifar',
            *SMALL,
            '--output-dir',
            tmp_path / 'run',
            '--version',
            'v1',
            '--epochs',
            1,
            '--lr',
            0.01,
            '--margin',
            5,
            '--margin-factor',
            1,
        )
        == 0
    )
    (row,) = run_fields(tmp_path / 'run')
    assert 0 <= float(row['val_acc_with_label']) < float(row['val_acc']) - 0.05
    assert 0.5 < float(row['smallest_variance']) < 1.5 and abs(float(row['mean_log_det'])) < 5


def test_cifar100_files_are_read_by_the_same_reader(run_here, tmp_path, capsys):
    write_cifar100(tmp_path, 150, 100)
    assert (
        run_here(
            'train_cifar',
            '--dataset',
            'cifar100',
            '--data-dir',
            tmp_path,
            '--epochs',
            1,
            '--batch-size',
            50,
            '--dtype',
            'float32',
            '--output-dir',
            tmp_path / 'run',
        )
        == 0
    )
    assert 'cifar100: 150 training images, 100 test images' in capsys.readouterr().out
    assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['parameters'] == 271824 + 6400
