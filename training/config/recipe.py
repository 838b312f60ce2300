"""Recipes: read from YAML, overridden by options, checked in one place."""

import dataclasses
import difflib
import os
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Union

import yaml
from pydantic import TypeAdapter, ValidationError

from training.config.fields import missing_need
from training.config.inputs import MNIST_LIKE
from training.config.schema import CifarRecipe, ImagesRecipe, MnistRecipe, Recipe
from training.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# Fields of earlier versions, and the value that every recipe had there.
RETIRED = {('loss', 'mean_wd_mult'): 1.0, ('loss', 'variance_init'): 1.0}
SCALED_WITH_EPOCHS = 'decay_epochs', 'warmup_epochs', 'resolutions', 'hard_epochs'


def load_recipe(
    path: Path,
    recipe_class: type,
    overrides: dict[str, Any],
    source: str = 'command line',
    scale: bool = True,
) -> Any:
    """Read the recipe file `path`, apply `overrides` and check every field.

    Parameters
    ----------
    path : Path
        YAML with the sections of `recipe_class`.
    overrides : dict
        Field name to value; names are unique over all sections.
    source : str
        Where the overrides are from.
    scale : bool
        Whether another number of `epochs` scales the epochs of decay, warm-up, resolutions and first phase.

    Raises
    ------
    UserError
        With one line that names the file, the field, and what is wrong.
    """
    base = validate(_without_retired(read_yaml(path), path), recipe_class, path)
    tree, ratio = dataclasses.asdict(base), 1
    if 'epochs' in overrides and scale:
        length = validate({'optimisation': {'epochs': overrides['epochs']}}, recipe_class, source)
        ratio = length.optimisation.epochs / base.optimisation.epochs
    for section in tree.values():
        section.update({name: scaled(section[name], ratio) for name in SCALED_WITH_EPOCHS if name in section})
    if overrides.get('loss', base.loss.loss) == 'two-phase':
        tree['loss']['first_phase_epochs'] = max(1, round(base.loss.first_phase_epochs * ratio))
    for section in tree.values():
        section.update({name: overrides[name] for name in section if name in overrides})
    recipe = validate(tree, recipe_class, source)
    if recipe.data.dataset != base.data.dataset and 'reported_val_acc' not in overrides:
        recipe.run.reported_val_acc = None  # it is of the recipe's own data
    return recipe


def values(recipe: Recipe) -> dict[str, Any]:
    """{name: value} of all fields of all sections."""
    return {name: value for section in dataclasses.asdict(recipe).values() for name, value in section.items()}


def scaled(epochs: Any, ratio: float) -> Any:
    """A number of epochs, a list of them, or one of (size, epochs), in a run `ratio` times as long."""
    if isinstance(epochs, list):
        return [scaled(item, ratio) for item in epochs]
    return (epochs[0], epochs[1] * ratio) if isinstance(epochs, tuple) else epochs * ratio


def load_run(path: Path) -> Recipe:
    """The recipe in a run's config.yaml, of whichever class its data set asks for."""
    tree = _without_retired(read_yaml(path), path)
    data = tree.get('data') if isinstance(tree, dict) else None
    dataset = data.get('dataset') if isinstance(data, dict) else None
    kind = ImagesRecipe if dataset == 'images' else MnistRecipe if dataset in MNIST_LIKE else CifarRecipe
    return validate(tree, kind, path)


def fields_of(recipe_class: type) -> dict[str, dataclasses.Field]:
    """{name: dataclasses.Field} of all fields of all sections."""
    return {
        item.name: item
        for section in dataclasses.fields(recipe_class)
        for item in dataclasses.fields(section.type)  # type: ignore[arg-type]
    }


def without_effect(recipe: Recipe, names: Iterable[str]) -> dict[str, str]:
    """Of the fields with these names, those that have no effect in a recipe: {name: what it needs}."""
    items, found = fields_of(type(recipe)), values(recipe)
    missing = {name: missing_need(items[name], found) for name in names}
    return {name: need for name, need in missing.items() if need}


def version_path(family: str, version: str) -> Path:
    """configs/<family>/<version>.yaml as seen from the working directory, so that logs are alike
    on all machines; or an error that lists the versions there are."""
    known = sorted(path.stem for path in (CONFIGS / family).glob('*.yaml'))
    if version not in known:
        raise UserError(f'--version {version}: no such recipe; there are {", ".join(known)}')
    return Path(os.path.relpath(CONFIGS / family / f'{version}.yaml'))


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML text that `load` reads back to an equal recipe."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False)


def differences(recipe: Recipe, other: Recipe, ignored: Iterable[str] = ()) -> list[str]:
    """['lr: 0.1 / 0.2', ...] for the fields in which two recipes differ."""
    second = values(other)
    return [
        f'{name}: {value!r} / {second[name]!r}'
        for name, value in values(recipe).items()
        if name not in ignored and value != second[name]
    ]


def read_yaml(path: Union[str, Path]) -> Any:
    """What a YAML file holds; UserError if it cannot be read."""
    try:
        return yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        # ValueError: no text, or a date or number that there is not.
        raise UserError(f'{path}: cannot be read as YAML: {" ".join(str(error).split())}') from None


def _without_retired(tree: Any, path: Path) -> Any:
    """A recipe's tree without the fields of earlier versions; UserError where one is not at its default."""
    for (section, name), default in RETIRED.items():
        fields = tree.get(section) if isinstance(tree, dict) else None
        if isinstance(fields, dict) and name in fields:
            value = fields.pop(name)
            if value != default:
                raise UserError(
                    f'{path}: {section}.{name}: this version has no such field and computes as with '
                    f'{default}, got {value!r}'
                )
    return tree


def validate(tree: Any, kind: Any, source: object) -> Any:
    """Plain values as the pydantic dataclass `kind`; `source` is named in the UserError."""
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        problem = error.errors()[0]
        location = problem['loc']
        where = '.'.join(str(part) for part in location)
        message = problem['msg'].replace('Value error, ', '')
        got = reprlib.repr(problem['input'])
        if problem['type'] in ('unexpected_keyword_argument', 'extra_forbidden'):
            message = f'unknown field{nearest(str(location[-1]), _known(kind, location))}'
        elif problem['type'] == 'dataclass_type':
            message = f'expected NAME: VALUE pairs, got {got}'
        elif problem['type'] != 'value_error':
            message += f', got {got}'
        flag = (
            f' (--{str(location[1]).replace("_", "-")})'
            if source == 'command line' and len(location) > 1
            else ''
        )
        raise UserError(f'{source}: {where + ": " if where else ""}{message}{flag}') from None


def nearest(name: str, known: Iterable[str]) -> str:
    """', the nearest known one is ...', or nothing where none is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f', the nearest known one is {close[0]}' if close else ''


def _known(kind: Any, location: tuple) -> list[str]:
    """Names of the fields of the dataclass in `kind` that holds `location`."""
    for name in location[:-1]:
        kind = {f.name: f.type for f in dataclasses.fields(kind)}[name]
    return [f.name for f in dataclasses.fields(kind)]
