"""Run variants of a recipe under one budget and write a table of what each is worth.

    python ablate.py configs/ablations/tricks.yaml --epochs 20 --seeds 0 1

The file names a recipe of configs/cifar, or of configs/images with `family: images`, and, for each
variant, the fields it changes. Its epochs of decay, warm-up and resolutions are meant for the recipe's
own number of epochs and scaled with --epochs; `{output_dir}` and `{seed}` in a text stand for those of
the run, so that one variant can learn from another. What a variant sets, options that all runs share do
not change. Runs go one after the other into folders of their own; called again, it goes on where it
stopped, in the precision it began with where that is left to the machine, and refuses to take the runs
of another plan or budget for its own.
"""

import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Optional, Union

from pydantic import Field
from pydantic.dataclasses import dataclass

import train_cifar
import train_images
from training import errors
from training.config import recipe as recipes
from training.config.fields import STRICT
from training.config.options import Parser, hyphenated, parse_options
from training.config.schema import FILLED_IN
from training.errors import UserError, naming
from training.runs import tables
from training.runs.folder import RunFolder, check_writable, write_text
from training.runs.resumption import check_same
from training.runs.run import Run, read_run

Fields = dict[str, Any]  # of a recipe, by name

SET_HERE = 'version', 'resume', 'test', 'weights', 'seed'  # options that differ from run to run
FIXED = (*FILLED_IN, 'seed', 'output_dir')  # fields that a variant cannot change
HEADER = ('variant', 'seeds', 'last: mean', 'spread', 'difference', 'best: mean', 'images/s')


class Base(NamedTuple):
    """The recipe that the variants of a plan change."""

    family: str
    version: str

    @property
    def kind(self) -> type[recipes.Recipe]:
        return recipes.ImagesRecipe if self.family == 'images' else recipes.CifarRecipe

    @property
    def script(self) -> Any:
        return train_images if self.family == 'images' else train_cifar

    def recipe(self, overrides: Fields, source: str = 'command line') -> Any:
        """It with some fields changed, checked."""
        path = recipes.version_path(self.family, self.version)
        return recipes.load_recipe(path, self.kind, overrides, source)


@dataclass(config=STRICT)
class Plan:
    """A plan file."""

    version: str
    variants: dict[str, Optional[dict[str, Any]]] = Field(min_length=1)
    family: Literal['cifar', 'images'] = 'cifar'


def read_plan(path: Union[str, Path]) -> tuple[Base, dict[str, Fields]]:
    """(recipe, {variant: overrides}) of a plan file, each variant checked as a recipe."""
    plan = recipes.validate(recipes.read_yaml(path), Plan, path)
    base = Base(plan.family, plan.version)
    known = set(recipes.fields_of(base.kind)) - set(FIXED)
    variants: dict[str, Fields] = {}
    for name, overrides in plan.variants.items():
        overrides = overrides or {}
        if '/' in name:
            raise UserError(f'{path}: {name}: its runs are folders, whose names can have no slash')
        for other in variants:
            if run_name(other, 0) == run_name(name, 0):
                raise UserError(f'{path}: {name}: its runs would have the folders of {other}')
        for field, value in overrides.items():
            if field not in known:
                raise UserError(
                    f'{path}: {name}: {field} is no field that a variant can change'
                    f'{recipes.nearest(field, known)}'
                )
            if value is None:
                raise UserError(f'{path}: {name}: {field}: expected a value')
        checked = recipes.values(base.recipe(overrides, f'{path}: {name}'))
        variants[name] = {field: checked[field] for field in overrides}
    return base, variants


def settle(overrides: Fields, common: Fields, base: Base, folder: Path, seed: int) -> Fields:
    """A variant's overrides as they are for one run: epochs scaled, texts filled in."""
    # Alone: beside it a warm-up that is not scaled yet could be longer than the run.
    given = {name: value for name, value in {**common, **overrides}.items() if name == 'epochs'}
    ratio = base.recipe(given).optimisation.epochs / base.recipe({}).optimisation.epochs
    settled = {}
    for name, value in overrides.items():
        if name in recipes.SCALED_WITH_EPOCHS:
            value = recipes.scaled(value, ratio)
        elif isinstance(value, str):
            value = value.replace('{output_dir}', str(folder)).replace('{seed}', str(seed))
        settled[name] = value
    return settled


def options(overrides: Fields) -> list[str]:
    """Fields and their values as words of a command line."""
    words = []
    for name, value in overrides.items():
        flag = name.replace('_', '-')
        if isinstance(value, bool):
            words.append(f'--{flag}' if value else f'--no-{flag}')
        else:
            items = value if isinstance(value, list) else [value]
            words += [
                f'--{flag}',
                *(':'.join(map(str, i)) if isinstance(i, tuple) else str(i) for i in items),
            ]
    return words


def read_common(words: list[str], base: Base) -> Fields:
    """The recipe fields among the options that all runs share, checked."""
    actions, fields = parse_options(base.script.make_parser(), base.kind, words)
    for name in SET_HERE:
        if actions.get(name) or name in fields:
            raise UserError(f'--{name}: differs from run to run; see ablate.py --help')
    return fields


def check_run(path: Path, base: Base, common: Fields, overrides: Fields, seed: int) -> None:
    """Refuse a run that is there already but is not the one that is wanted."""
    folder = RunFolder(path)
    if folder.config.exists():
        wanted = base.recipe({**common, **overrides, 'seed': seed})
        wanted.run.version = base.version
        wanted.run.device = 'auto'  # the run itself looks at that, when it knows what it stands for
        check_same(folder, wanted)


def finished_runs(
    folder: Path, variants: dict[str, Fields], base: Base, common: Fields
) -> dict[str, list[Run]]:
    """{variant: its finished runs by seed}, of those that have any and are of this plan."""
    found: dict[str, list[Run]] = {}
    for name, overrides in variants.items():
        for seed, path in runs_of(name, folder).items():
            if (path / 'summary.json').exists():
                settled = settle(overrides, common, base, folder, seed)
                check_run(path, base, common, settled, seed)
                found.setdefault(name, []).append(read_run(path))
    return found


def begun_dtype(folder: Path, variants: dict[str, Fields]) -> Optional[str]:
    """The precision of the runs there whose variant sets none, or None if there are none."""
    for name, overrides in variants.items():
        if 'dtype' not in overrides:
            for path in runs_of(name, folder).values():
                return recipes.load_run(path / 'config.yaml').run.dtype
    return None


def runs_of(variant: str, folder: Path) -> dict[int, Path]:
    """{seed: run folder} of the runs that there are of a variant, by seed."""
    runs = {}
    for config in folder.glob('*/config.yaml'):
        seed = re.fullmatch(re.escape(run_name(variant, '')) + r'(\d+)', config.parent.name)
        if seed:
            runs[int(seed[1])] = config.parent
    return dict(sorted(runs.items()))


def run_name(variant: str, seed: Union[int, str]) -> str:
    return f'{variant.replace(" ", "-")}-seed{seed}'


def last_accuracies(runs: Iterable[Run]) -> dict[int, float]:
    """{seed: accuracy at the last epoch} of runs."""
    return {run.summary['seed']: run.summary['val_acc'] for run in runs}


def row(name: str, runs: list[Run], reference: dict[int, float]) -> list[str]:
    """What the table says of a variant's runs, set against {seed: accuracy} of other ones."""
    last = last_accuracies(runs)
    gains = [accuracy - reference[seed] for seed, accuracy in last.items() if seed in reference]
    return [
        name,
        ', '.join(map(str, last)),
        f'{statistics.mean(last.values()):.4f}',
        f'{min(last.values()):.4f} to {max(last.values()):.4f}',
        f'{statistics.mean(gains):+.4f}' if gains else '-',
        f'{statistics.mean(run.summary["best_val_acc"] for run in runs):.4f}',
        f'{statistics.mean(run.summary["images_per_second"] for run in runs):.0f}',
    ]


def table(runs: dict[str, list[Run]], first: str) -> str:
    """What {variant: its finished runs} shows, each against the runs of `first` with its seeds."""
    reference = last_accuracies(runs.get(first, ()))
    rows = [row(variant, found, reference) for variant, found in runs.items()]
    seen = next(iter(runs.values()))[0].validated_on
    return tables.markdown(HEADER, rows) + f'\nTop-1 accuracy on the {seen}.\n'


def main(argv: list[str]) -> int:
    parser = Parser(
        __doc__, epilog='Further options are handed to the training script, the same for all runs.'
    )
    parser.add_argument(
        'plan', help='YAML file with version, variants and, for images of your own, family: images'
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--only', nargs='+', metavar='VARIANT', help='leave out the others')
    parser.add_argument('--output-dir', type=Path, default=None, help='default output/PLAN')
    argv = hyphenated(argv)
    given, common = parser.parse_known_args(argv)
    for word in common:  # the value of one would pass for the plan
        if word.startswith('-') and argv.index(word) < argv.index(given.plan):
            raise UserError(f'{word}: options for the training come after the plan')
    base, variants = read_plan(given.plan)
    common_fields = read_common(common, base)
    for name in given.only or ():
        if name not in variants:
            raise UserError(f'--only {name}: no such variant; there are {", ".join(variants)}')
    folder = given.output_dir or Path('output') / Path(given.plan).stem
    check_writable(folder)

    begun = begun_dtype(folder, variants)
    if begun and common_fields.get('dtype', base.recipe({}).run.dtype) == 'auto':
        print(f'{begun}, in which the runs in {folder} began')
        common_fields['dtype'], common = begun, [*common, '--dtype', begun]

    # Signals are for the run, which writes its checkpoint first; Ctrl-C reaches it by itself.
    run: Optional[subprocess.Popen] = None
    stopped: list[int] = []

    def stop(number: int, _: Any) -> None:
        stopped.append(number)
        if run and number == signal.SIGTERM:
            run.terminate()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    for seed in given.seeds:
        for name in given.only or variants:
            path = folder / run_name(name, seed)
            overrides = settle(variants[name], common_fields, base, folder, seed)
            check_run(path, base, common_fields, overrides, seed)
            if stopped:
                return 128 + stopped[0]
            if not (path / 'summary.json').exists():
                print(f'{path}:', ' '.join(options(overrides)) or f'{base.version} as it is', flush=True)
                resume = ['--resume'] if RunFolder(path).has_checkpoint else []
                run = subprocess.Popen(
                    [
                        sys.executable,
                        base.script.__file__,
                        '--version',
                        base.version,
                        *common,
                        *options(overrides),
                        '--seed',
                        str(seed),
                        '--output-dir',
                        str(path),
                        *resume,
                    ]
                )
                if stopped:  # just before there was a run to hear of it
                    run.terminate()
                code = run.wait()
                if code:  # the run has said why
                    print(f'{path} ended with code {code}; the same command goes on')
                    return code if code > 0 else 128 - code
            text = table(finished_runs(folder, variants, base, common_fields), first=next(iter(variants)))
            with naming(folder / 'ablation.md'):
                write_text(folder / 'ablation.md', text)
    print(text)
    print(f'written: {folder / "ablation.md"}')
    return 0


if __name__ == '__main__':
    errors.exit_with(main)
