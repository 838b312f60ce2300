"""Run variants of a recipe under one budget and write a table of what each is worth.

    python ablate.py configs/ablations/tricks.yaml --epochs 20 --seeds 0 1

The file names a recipe of configs/cifar and, for each variant, the fields it changes; with
`cumulative: true` each variant keeps the changes of those before it. Runs go one after the other
into folders of their own; called again, it goes on where it stopped, and refuses to take the runs
of another plan or budget for its own.
"""
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Optional

from pydantic import Field
from pydantic.dataclasses import dataclass

import train_cifar
from training import cli, comparison, runtime
from training import recipe as recipes
from training.fields import STRICT
from training.run_folder import RunFolder, write_text
from training.runtime import UserError

SET_HERE = 'version', 'resume', 'test', 'seed'  # options of train_cifar.py that each run gets
HEADER = ('variant', 'seeds', 'last: mean', 'spread', 'difference', 'best: mean', 'images/s')


@dataclass(config=STRICT)
class Plan:
    """A plan file."""
    version: str
    variants: Dict[str, Optional[Dict[str, Any]]] = Field(min_length=1)
    cumulative: bool = False


def read_plan(path):
    """(version, {variant: overrides}) of a plan file, each variant checked as a recipe."""
    plan = recipes.validate(recipes.read_yaml(path), Plan, path)
    known = recipes.field_names(recipes.CifarRecipe)
    variants, gathered = {}, {}
    for name, overrides in plan.variants.items():
        for field in overrides or {}:
            if field not in known:
                raise UserError(f'{path}: {name}: {field} is no field of a recipe'
                                f'{recipes.nearest(field, known)}')
        gathered = {**(gathered if plan.cumulative else {}), **(overrides or {})}
        variants[name] = gathered
        recipes.load(recipes.version_path('cifar', plan.version), recipes.CifarRecipe, gathered)
    return plan.version, variants


def options(overrides):
    """Fields and their values as words of a command line."""
    words = []
    for name, value in overrides.items():
        flag = name.replace('_', '-')
        if isinstance(value, bool):
            words.append(f'--{flag}' if value else f'--no-{flag}')
        else:
            words += [f'--{flag}', *map(str, value if isinstance(value, list) else [value])]
    return words


def read_common(words):
    """The recipe fields among the options that all runs share, checked."""
    actions, fields = cli.parse(train_cifar.make_parser(), recipes.CifarRecipe, words)
    for name in SET_HERE:
        if actions.get(name) or name in fields:
            raise UserError(f'--{name}: is set by ablate.py for each run; see its --help')
    return fields


def check_run(folder, version, fields):
    """Refuse a run that is there already but is not the one that is wanted."""
    if folder.config.exists():
        wanted = recipes.load(recipes.version_path('cifar', version), recipes.CifarRecipe, fields)
        wanted.run.version = version
        folder.check_resumable(wanted)


def row(name, runs, reference):
    """What the table says of a variant's runs, next to the mean of the first variant's."""
    last = [run.summary['val_acc'] for run in runs]
    mean = statistics.mean(last)
    return [name, ', '.join(str(run.summary['seed']) for run in runs), f'{mean:.4f}',
            f'{min(last):.4f} to {max(last):.4f}', f'{mean - reference:+.4f}',
            f'{statistics.mean(run.summary["best_val_acc"] for run in runs):.4f}',
            f'{statistics.mean(run.summary["images_per_second"] for run in runs):.0f}']


def main(argv):
    parser = cli.Parser(__doc__, epilog='Further options are handed to train_cifar.py, the same for '
                        'all runs.')
    parser.add_argument('plan', help='YAML file with version, variants, cumulative')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--only', nargs='+', metavar='VARIANT', help='leave out the others')
    parser.add_argument('--output-dir', type=Path, default=None, help='default output/PLAN')
    given, common = parser.parse_known_args(argv)
    version, variants = read_plan(given.plan)
    common_fields = read_common(common)
    for name in given.only or ():
        if name not in variants:
            raise UserError(f'--only {name}: no such variant; there are {", ".join(variants)}')
    variants = {name: variants[name] for name in given.only or variants}
    folder = given.output_dir or Path('output') / Path(given.plan).stem

    # Ctrl-C is for the run, which writes its checkpoint first.
    signal.signal(signal.SIGINT, lambda *_: None)
    finished = {name: [] for name in variants}
    for seed in given.seeds:
        for name, overrides in variants.items():
            run = folder / f'{name.replace(" ", "-")}-seed{seed}'
            check_run(RunFolder(run), version, {**overrides, **common_fields, 'seed': seed})
            if not (run / 'summary.json').exists():
                print(f'{run}:', ' '.join(options(overrides)) or f'{version} as it is', flush=True)
                resume = ['--resume'] if (run / 'checkpoint.npz').exists() else []
                code = subprocess.run([sys.executable, train_cifar.__file__, '--version', version,
                                       *options(overrides), *common, '--seed', str(seed),
                                       '--output-dir', str(run), *resume]).returncode
                if code:  # the run has said why
                    print(f'{run} ended with code {code}; the same command goes on')
                    return code
            finished[name].append(comparison.read(run))
            done = {name: runs for name, runs in finished.items() if runs}
            reference = statistics.mean(run.summary['val_acc'] for run in next(iter(done.values())))
            table = comparison.markdown(HEADER, [row(name, runs, reference)
                                                 for name, runs in done.items()])
            write_text(folder / 'ablation.md', table)
    print(table)
    print(f'written: {folder / "ablation.md"}')
    return 0


if __name__ == '__main__':
    runtime.exit_with(main)
