"""The runs of the record are whole, and the pages quote them as they are."""

import argparse
import csv
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
import compare
import train_cifar
import train_images
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
from training.runs.run import read_run, read_runs

RUNS = sorted(path.parent for path in RECORD.glob('*/summary.json'))
README, RESULTS, DETECTION, CHOICE, ABLATIONS = (
    (ROOT / name).read_text()
    for name in ('README.md', 'docs/results.md', 'docs/detection.md', 'docs/choice.md', 'docs/ablations.md')
)
OPTIONS = dict(
    re.findall(r'^\| `((?:cifar|mnist|clothing|omniglot)-[\w.-]+)` \| `(--version [^`]*)` \|$', RESULTS, re.M)
)


def test_runs_are_kept():
    assert len(RUNS) >= 3


def page_command():
    """Run folders, ablation folders and output of the one command that writes the page's tables."""
    (command,) = re.findall(r'^python compare.py (output/record .*)$', RESULTS, re.M)
    words = [word for part in command.split() for word in sorted(ROOT.glob(part)) or [part]]
    options = compare.make_parser().parse_args(list(map(str, words)))
    return compare.expand(options.runs), options


def test_page_holds_what_its_command_writes():
    (folders, ablations), options = page_command()
    assert set(RUNS) <= set(folders) and len(ablations) == len(list(RECORD.glob('*/ablation.md')))
    written = compare.all_tables(read_runs(folders), ablations)
    assert compare.fill(options.page, written) == RESULTS
    assert all(f'<!-- table: {title} -->' in RESULTS for title in written)


def test_page_shows_the_figures_that_its_command_writes():
    (folders, _), options = page_command()
    pages = README + ''.join(path.read_text() for path in (ROOT / 'docs').glob('*.md'))
    for name in compare.all_figures(read_runs(folders)):
        assert (options.output_dir / name).exists() and f'output/record/{name})' in pages


def test_accuracies_in_the_readme_are_those_of_the_tables():
    cells = re.findall(r'0\.\d{4}', ''.join(line for line in RESULTS.splitlines() if line.startswith('|')))
    quoted = re.findall(r'0\.\d{4}', README)
    assert len(quoted) > 10 and set(quoted) <= set(cells)


@pytest.mark.parametrize('folder', RUNS, ids=lambda folder: folder.name)
def test_runs_are_what_the_quoted_options_make(folder):
    name = folder.name if folder.name in OPTIONS else folder.name.rsplit('-seed', 1)[0]
    words = OPTIONS[name].split()
    version = words[1]
    images = train_images, recipes.ImagesRecipe, 'images'
    script, kind, family = {
        'cifar': (train_cifar, recipes.CifarRecipe, 'cifar'),
        'mnist': (train_mnist, recipes.MnistRecipe, 'mnist'),
    }.get(name.split('-')[0], images)
    actions, overrides = parse_options(script.make_parser(), kind, words)
    recipe = recipes.load_recipe(recipes.version_path(family, version), kind, overrides)
    if actions.get('lr_step'):
        recipe.optimisation.decay_epochs = aliases.every(actions['lr_step'], recipe.optimisation.epochs)
    kept = recipes.load_recipe(folder / 'config.yaml', kind, {})
    for optimisation in (recipe.optimisation, kept.optimisation):
        if optimisation.lr_batch_size == optimisation.batch_size:  # no scaling, as without it
            optimisation.lr_batch_size = None
    of_the_data = 'data_dir', 'pack_dir', 'classes', 'validate_on'
    of_the_run = 'version', 'output_dir', 'device', 'dtype', 'seed'
    assert not recipes.differences(recipe, kept, of_the_data + of_the_run)


@pytest.mark.parametrize(
    'command', [line for line in (ABLATIONS + CHOICE).splitlines() if line.startswith('python ablate.py')]
)
def test_ablation_on_the_page_is_that_of_the_kept_runs(command, tmp_path, monkeypatch):
    parser = argparse.ArgumentParser()
    parser.add_argument('plan', type=Path)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--output-dir', type=Path)
    given, words = parser.parse_known_args(command.split()[2:])
    base, variants = ablate.read_plan(ROOT / given.plan)
    folder = given.output_dir or Path('output') / given.plan.stem
    kept = RECORD / folder.name
    shutil.copytree(kept, tmp_path / folder)  # a teacher is named by where its run was made
    monkeypatch.chdir(tmp_path)
    runs = ablate.finished_runs(folder, variants, base, ablate.read_common(words, base))
    every = [run for found in runs.values() for run in found]
    assert next(iter(runs)) == next(iter(variants)) and len(runs) >= 2
    assert {path.parent.name for path in kept.glob('*/config.yaml')} == {run.name for run in every}
    assert {run.summary['seed'] for run in every} <= set(given.seeds)
    table = ablate.table(runs, 'baseline')
    assert table == (kept / 'ablation.md').read_text()
    assert table.rpartition('\nTop-1')[0] in RESULTS
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
    recipe = read_run(folder).recipe
    accuracies = [float(row['val_acc']) for row in rows]
    assert [int(row['epoch']) for row in rows] == list(range(1, summary['epochs'] + 1))
    assert recipe.optimisation.epochs == summary['epochs']
    assert recipe.data.holdout == 0 or 'verification' in summary  # on other images than the recipe's
    assert (recipe.run.seed, recipe.run.dtype) == (summary['seed'], summary['dtype'])
    assert summary['val_acc'] == pytest.approx(accuracies[-1], abs=1e-6)
    assert summary['best_val_acc'] == pytest.approx(max(accuracies), abs=1e-6)
    assert accuracies[summary['best_epoch'] - 1] == max(accuracies)
    log = (folder / 'log.txt').read_text()
    assert tables.verdict(summary) in log
    logged = [tuple(map(float, row)) for row in re.findall(r'^epoch +(\d+) .* val (\S+) ', log, re.M)]
    assert [epoch for epoch, _ in logged] == [float(row['epoch']) for row in rows]
    # Four digits here, six there, each rounded from the same value.
    np.testing.assert_allclose([value for _, value in logged], accuracies, rtol=0, atol=5.1e-5)


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
    runs = {name: read_run(RECORD / 'covariance' / name) for name in ('raw', 'raw-slow', 'fixed-volume')}
    log_det = {name: [row['mean_log_det'] for row in run.metrics] for name, run in runs.items()}
    assert log_det['raw'][-1] < -50 and not runs['raw'].finished
    assert 'the loss is nan' in (runs['raw'].folder.path / 'log.txt').read_text()
    assert all(later < earlier for earlier, later in zip(log_det['raw-slow'], log_det['raw-slow'][1:]))
    assert max(map(abs, log_det['fixed-volume'])) < 1e-3
