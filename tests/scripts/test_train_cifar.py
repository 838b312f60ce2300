"""train_cifar.py as its users run it, on small real data."""

import json
import re
import shutil

import pytest
import yaml
from conftest import write_cifar100
from small_runs import SMALL, SMALL_MNIST, run_fields
from tensorboardX.proto.event_pb2 import Event

from gmloss import LGMLoss
from training.errors import UserError
from training.loop import fit as fit_module
from training.loop import validation as validation_module
from training.loop.epoch import average_statistics
from training.machine import devices
from training.runs.background_plots import BackgroundPlots
from training.runs.weights import save_weights


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
            'epoch,lr,margin,train_loss,train_acc,val_acc,val_image_size,images_per_second,seconds'
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
    assert summary['best_val_acc'] == summary['val_acc'] and summary['best_epoch'] == 3  # alone at full size
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
    assert 'float32, ' in output and 'device cpu' in output and '64 training images' in output


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
    wanted = f'accuracy {float(run_fields(folder)[-1]["val_acc"]):.4f} by lgm on 64'
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
    assert f'accuracy {float(run_fields(folder)[-1]["val_acc"]):.4f} by lgm on 64' in output


def test_what_happens_at_the_end_of_an_epoch(run_here, tmp_path, monkeypatch, no_figures):
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
    margin = '--margin-factor', 2, '--margin-every', 4
    rate = '--schedule', 'step', '--warmup', 'none', '--lr', 0.1, '--lr-batch-size', 8
    words = '--device', 'cpu:1,2', '--epochs', 3, *margin, *rate, '--output-dir', tmp_path / 'run'
    assert run_here('train_cifar', *SMALL, *words) == 0  # 4 steps an epoch
    assert [row['lr'] for row in run_fields(tmp_path / 'run')] == ['0.2'] * 3  # of 16 images
    assert margins == pytest.approx([0.1, 0.2, 0.3]) and averaged == [1, 2, 3]
    assert saved == [('best.params', 1), ('best.params', 2), ('last.params', 3)]
    summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
    assert (summary['best_val_acc'], summary['best_epoch'], summary['val_acc']) == (0.5, 2, 0.3)


@pytest.mark.parametrize(
    'script, words',
    [
        ('train_cifar', (*SMALL, '--flip', 'alternating')),
        ('train_mnist', ('--version', 'lgm-off', *SMALL_MNIST)),
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


def test_runs_validated_on_held_out_images_are_tested_on_the_test_set(run_here, tmp_path, capsys, no_figures):
    run = ('train_cifar', '--output-dir', tmp_path / 'run')
    assert run_here(*run, *SMALL, '--epochs', 1, '--holdout', 50, '--augmentation', 'none') == 0
    assert '64 training images, 50 held-out images' in capsys.readouterr().out
    assert run_here(*run, '--test') == 0
    assert '64 test images' in capsys.readouterr().out


@pytest.mark.parametrize(
    'words',
    [
        ('--version', 'v4'),
        ('--version', 'v6', '--warmup-epochs', '1'),  # v6 explodes without, as its README says
        ('--covariance', 'diagonal', '--likelihood', 'full', '--device', 'cpu:1,2'),
        ('--optimizer', 'adam', '--lr', '1e-3'),
        ('--holdout', '50', '--augmentation', 'none', '--model', 'cifar_resnet20_v2'),
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


def test_v1_is_validated_both_ways_and_its_variances_are_recorded(run_here, tmp_path, no_figures):
    words = '--version', 'v1', '--epochs', 1, '--lr', 0.01, '--margin', 5, '--margin-factor', 1
    assert run_here('train_cifar', *SMALL, '--output-dir', tmp_path / 'run', *words) == 0
    (row,) = run_fields(tmp_path / 'run')
    assert 0 <= float(row['val_acc_with_label']) < float(row['val_acc']) - 0.05
    assert 0.5 < float(row['smallest_variance']) < 1.5 and abs(float(row['mean_log_det'])) < 5


def test_cifar100_files_are_read_by_the_same_reader(run_here, tmp_path, capsys, no_figures):
    write_cifar100(tmp_path, 150, 100)
    data = '--dataset', 'cifar100', '--data-dir', tmp_path
    words = '--epochs', 1, '--batch-size', 50, '--dtype', 'float32', '--output-dir', tmp_path / 'run'
    assert run_here('train_cifar', *data, *words) == 0
    assert 'cifar100: 150 training images, 100 test images' in capsys.readouterr().out
    assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['parameters'] == 271824 + 6400
