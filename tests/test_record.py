"""The kept runs are whole, and the README quotes them as they are."""
import csv
import json
import re

import pytest

from conftest import ROOT
from training import recipe as recipes
from training.recipe import CifarRecipe

RUNS = sorted(path.parent for path in (ROOT / 'output' / 'record').glob('*/summary.json'))
QUOTED = {row[0]: row[1:] for row in re.findall(
    r'^\| `output/record/([\w.-]+)` \| (\d+) \| ([\d.]+) \| ([\d.]+) \((\d+)\) \| ([\d.]+) \| (\d+) \|',
    (ROOT / 'README.md').read_text(), re.MULTILINE)}


def test_every_kept_run_is_quoted_and_every_quoted_run_is_kept():
    assert RUNS and {run.name for run in RUNS} == set(QUOTED)


@pytest.mark.parametrize('run', RUNS, ids=lambda run: run.name)
def test_summary_agrees_with_metrics_config_log_and_readme(run):
    summary = json.loads((run / 'summary.json').read_text())
    with open(run / 'metrics.csv') as file:
        rows = list(csv.DictReader(file))
    recipe = recipes.load(run / 'config.yaml', CifarRecipe, {})
    accuracies = [float(row['val_acc']) for row in rows]
    assert [int(row['epoch']) for row in rows] == list(range(1, summary['epochs'] + 1))
    assert recipe.optimisation.epochs == summary['epochs'] and recipe.data.holdout == 0
    assert (recipe.run.seed, recipe.run.dtype) == (summary['seed'], summary['dtype'])
    assert summary['val_acc'] == pytest.approx(accuracies[-1], abs=1e-6)
    assert summary['best_val_acc'] == pytest.approx(max(accuracies), abs=1e-6)
    assert accuracies[summary['best_epoch'] - 1] == max(accuracies)
    assert f'val acc {summary["val_acc"]:.4f} at the last epoch' in (run / 'log.txt').read_text()
    assert QUOTED[run.name] == (
        str(summary['epochs']), f'{summary["val_acc"]:.4f}', f'{summary["best_val_acc"]:.4f}',
        str(summary['best_epoch']), f'{summary["seconds"] / 60:.1f}',
        f'{summary["images_per_second"]:.0f}')
