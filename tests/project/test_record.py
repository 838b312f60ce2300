"""The kept runs are whole, and the README quotes them as they are."""

import argparse
import csv
import glob
import hashlib
import json
import re
import shutil
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from conftest import RECORD, ROOT

import ablate
import train_cifar
import train_mnist
from training.config import aliases
from training.config import recipe as recipes
from training.config.options import parse_options
from training.data import batches, datasets
from training.machine.devices import Device
from training.metrics import likelihood
from training.model import normaliser
from training.runs import tables
from training.runs.folder import RunFolder
from training.runs.restore import restore_model

RUNS = sorted(path.parent for path in RECORD.glob('*/summary.json'))
README = (ROOT / 'README.md').read_text()
DETECTION = (ROOT / 'docs' / 'detection.md').read_text()
CHOICE = (ROOT / 'docs' / 'choice.md').read_text()
FOURTEEN = 'fast', '--epochs 14 --shortcut conv --warmup-epochs 1'
SHORT = '--epochs 4 --batch-size 50'
EARLIER = '--epochs 40 --padding-mode reflect --normalisation cifar10 --mean-init msra'  # of `paper`
EDITIONS = 'v1', 'v3', 'v4', 'v5', 'v6'
OPTIONS = {  # what the README says that runs were made with: name -> version, options
    'cifar-best': ('best',),
    'cifar-fast-20epochs': ('fast',),
    'cifar-fast': FOURTEEN,
    'cifar-fast-lambda0.1': (*FOURTEEN, '--likelihood-weight 0.1'),
    'cifar-fast-softmax': (*FOURTEEN, '--loss softmax'),
    'cifar-paper-40epochs': ('paper', EARLIER),
    'cifar-paper-identity-40epochs': ('paper', EARLIER, '--covariance identity'),
    **{f'cifar-{version}-40epochs': (version, '--epochs 40') for version in EDITIONS},
    'cifar-v4-later-decay-40epochs': ('v4', '--epochs 40 --decay-epochs 26 35'),
    'cifar-v6-pad-crop-40epochs': ('v6', '--epochs 40', '--augmentation pad-crop'),
    'cifar-v6-400epochs': ('v6',),
    'mnist-softmax': ('softmax',),
    'mnist-softmax-seed1': ('softmax', '--epochs 8 --lr-step 3'),
    'mnist-softmax-center': ('softmax-center',),
    'mnist-center': ('center',),
    'mnist-softmax-center-no-bias': ('softmax-center', '--no-bias --epochs 14 --lr-step 7'),
    'mnist-two-phase': ('two-phase', '--epochs 20'),
    'mnist-lgm-full': ('lgm-full',),
    'mnist-lgm-off': ('lgm-off', SHORT),
    'mnist-lgm-distance': ('lgm-distance', SHORT),
    'mnist-lgm-slow-variance': ('lgm-slow-variance', SHORT),
}


def test_runs_are_kept():
    assert len(RUNS) >= 3


def test_pages_hold_the_tables_that_compare_writes():
    (command,) = [line for line in README.splitlines() if line.startswith('python compare.py output/record')]
    shown = [
        Path(name)
        for word in command.split()[2:-2]
        for name in sorted(glob.glob(str(ROOT / word)))
        if Path(name).is_dir()
    ]
    shown = list(dict.fromkeys(shown))
    assert sorted(shown) == sorted(RUNS)
    runs = [tables.read(folder) for folder in shown]
    for on_mnist in {run.on_mnist for run in runs}:
        assert tables.table([run for run in runs if run.on_mnist == on_mnist]) in README
    for group in tables.by_recipe(run for run in runs if 'detection' in run.summary):
        assert tables.detection_table(group) in DETECTION


@pytest.mark.parametrize('folder', RUNS, ids=lambda folder: folder.name)
def test_runs_are_what_the_quoted_options_make(folder):
    name = folder.name if folder.name in OPTIONS else folder.name.rsplit('-seed', 1)[0]
    version, *quoted = OPTIONS[name]
    assert all(words in ' '.join(README.split()) for words in quoted)
    family = name.split('-')[0]
    script, kind = {'cifar': (train_cifar, recipes.CifarRecipe), 'mnist': (train_mnist, recipes.MnistRecipe)}[
        family
    ]
    actions, overrides = parse_options(script.make_parser(), kind, ' '.join(quoted).split())
    recipe = recipes.load_recipe(recipes.version_path(family, version), kind, overrides)
    if actions.get('lr_step'):
        recipe.optimisation.decay_epochs = aliases.every(actions['lr_step'], recipe.optimisation.epochs)
    kept = recipes.load_recipe(folder / 'config.yaml', kind, {})
    for optimisation in (recipe.optimisation, kept.optimisation):
        if optimisation.lr_batch_size == optimisation.batch_size:  # no scaling, as without it
            optimisation.lr_batch_size = None
    assert not recipes.differences(
        recipe, kept, ('version', 'data_dir', 'output_dir', 'device', 'dtype', 'seed')
    )


@pytest.mark.parametrize(
    'command', [line for line in (README + CHOICE).splitlines() if line.startswith('python ablate.py')]
)
def test_ablation_on_the_page_is_that_of_the_kept_runs(command, tmp_path, monkeypatch):
    parser = argparse.ArgumentParser()
    parser.add_argument('plan', type=Path)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--output-dir', type=Path)
    given, words = parser.parse_known_args(command.split()[2:])
    version, variants = ablate.read_plan(ROOT / given.plan)
    folder = given.output_dir or Path('output') / given.plan.stem
    kept = RECORD / folder.name
    shutil.copytree(kept, tmp_path / folder)  # a teacher is named by where its run was made
    monkeypatch.chdir(tmp_path)
    runs = ablate.finished_runs(folder, variants, version, ablate.read_common(words))
    every = [run for found in runs.values() for run in found]
    assert next(iter(runs)) == next(iter(variants)) and len(runs) >= 2
    assert {path.parent.name for path in kept.glob('*/config.yaml')} == {run.name for run in every}
    assert {run.summary['seed'] for run in every} <= set(given.seeds)
    table = ablate.table(runs, 'baseline')
    assert table == (kept / 'ablation.md').read_text()
    assert table.rpartition('\nTop-1')[0] in README + CHOICE
    log = (kept / 'log.txt').read_text()
    for run in every:
        assert f'{folder / run.name}: ' in log and tables.verdict(run.summary) in log


def test_runs_of_paper_are_normalised_as_they_were_trained(cifar):
    folders = [folder for folder in RUNS if folder.name.startswith('cifar-paper-')]
    assert len(folders) == 4
    image = cifar[1].images[:1]
    mean, std = np.reshape([[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]], (2, 3, 1, 1))
    for folder in folders:
        normalise = normaliser(recipes.load_run(folder / 'config.yaml'), [mx.cpu()])
        np.testing.assert_allclose(
            normalise(mx.nd.array(image, dtype='uint8')).asnumpy(), (image / 255 - mean) / std, atol=1e-5
        )


def test_weights_have_the_digests_that_are_listed():
    listed = dict(reversed(line.split('  ', 1)) for line in (RECORD / 'SHA256SUMS').read_text().splitlines())
    assert set(listed) == {f'{path.parent.name}/{path.name}' for path in RECORD.glob('*/*.params')}
    for name, digest in listed.items():
        assert hashlib.sha256((RECORD / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize('folder', RUNS, ids=lambda folder: folder.name)
def test_summary_agrees_with_metrics_config_and_log(folder):
    summary = json.loads((folder / 'summary.json').read_text())
    with open(folder / 'metrics.csv') as file:
        rows = list(csv.DictReader(file))
    kind = recipes.MnistRecipe if tables.read(folder).on_mnist else recipes.CifarRecipe
    recipe = recipes.load_recipe(folder / 'config.yaml', kind, {})
    accuracies = [float(row['val_acc']) for row in rows]
    assert [int(row['epoch']) for row in rows] == list(range(1, summary['epochs'] + 1))
    assert recipe.optimisation.epochs == summary['epochs'] and recipe.data.holdout == 0
    assert (recipe.run.seed, recipe.run.dtype) == (summary['seed'], summary['dtype'])
    assert summary['val_acc'] == pytest.approx(accuracies[-1], abs=1e-6)
    assert summary['best_val_acc'] == pytest.approx(max(accuracies), abs=1e-6)
    assert accuracies[summary['best_epoch'] - 1] == max(accuracies)
    log = (folder / 'log.txt').read_text()
    assert tables.verdict(summary) in log
    logged = re.findall(r'^epoch +(\d+) .* val (\S+) ', log, re.M)
    assert logged == [(row['epoch'], f'{float(row["val_acc"]):.4f}') for row in rows]


def test_page_sets_the_full_run_of_v6_beside_the_published_plot():
    run = tables.read(RECORD / 'cifar-v6-400epochs-seed0')
    published = tables.PUBLISHED_V6
    accuracies = [run.metrics[epoch - 1]['val_acc'] for epoch in published]
    for name, row in (
        ('epoch', map(str, published)),
        ('this run', (f'{accuracy:.4f}' for accuracy in accuracies)),
    ):
        assert f'| {name} | {" | ".join(row)} |' in README
    shown = re.search(r'^\| published plot \| (.*) \|$', README, re.M)[1].split(' | ')
    assert [float(accuracy) for accuracy in shown] == list(published.values())


@pytest.mark.parametrize(
    'folder',
    [
        path
        for path in RUNS
        if (path / 'last.params').exists()
        and not path.name.endswith(('-seed1', '-seed2'))  # of a recipe one
        and recipes.load_run(path / 'config.yaml').loss.loss == 'lgm'
    ],
    ids=lambda folder: folder.name,
)
def test_false_alarms_on_real_images_are_as_rare_as_the_thresholds_say(folder, cifar):
    device = Device('cpu', (0,), 'float32')
    model, recipe = restore_model(RunFolder(folder), device, device.contexts())
    test = cifar[1] if recipe.data.dataset == 'cifar10' else datasets.load_splits(recipe.data)[1]
    fifth = test.select(slice(None, None, 5))
    images = batches.DeviceData(fifth, device.contexts())
    spread, thresholds = RunFolder(folder).read_calibration()
    distance, _ = likelihood.distances(
        model.classifier, normaliser(recipe, device.contexts()), images, len(fifth)
    )
    found = likelihood.log_likelihoods(model.classifier.mixture, distance, spread)
    assert list(thresholds) == ['0.01', '0.05', '0.1']
    for rate, threshold in thresholds.items():
        # Four standard errors of a sample; the thresholds are of all images.
        error = (float(rate) * (1 - float(rate)) / len(found)) ** 0.5
        assert np.mean(found < threshold) == pytest.approx(float(rate), abs=4 * error)


def test_page_gives_the_range_of_the_spreads():
    spreads = [
        summary['likelihood_spread']
        for summary in (json.loads((folder / 'summary.json').read_text()) for folder in RUNS)
        if 'likelihood_spread' in summary and summary['version'] != 'lgm-off'
    ]
    page = ' '.join(DETECTION.split())
    assert f'is {min(spreads):.2f} to {max(spreads):.2f} of what the mixture says' in page
    with np.load(RECORD / 'mnist-lgm-off' / 'features.npz') as snapshot:
        labels = snapshot['train_labels']
        off = (snapshot['train_features'] - snapshot['centers'][labels]) / snapshot['deviations'][labels]
    assert f'under `mnist-lgm-off` it is {np.mean(off**2):.0f} times as large' in page


def test_kept_covariances_run_away_or_not_as_the_page_says():
    runs = {name: tables.read(RECORD / 'covariance' / name) for name in ('raw', 'raw-slow', 'fixed-volume')}
    log_det = {name: [row['mean_log_det'] for row in run.metrics] for name, run in runs.items()}
    assert log_det['raw'][-1] < -50 and not runs['raw'].finished
    assert 'the loss is nan' in (runs['raw'].folder.path / 'log.txt').read_text()
    assert all(later < earlier for earlier, later in zip(log_det['raw-slow'], log_det['raw-slow'][1:]))
    assert max(map(abs, log_det['fixed-volume'])) < 1e-3
