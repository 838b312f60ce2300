"""The scripts' command lines: actions, and one option per recipe field."""

import argparse
import dataclasses
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from training.config import aliases
from training.config import recipe as recipes
from training.config.schema import FALSE_ALARM_RATES, FILLED_IN, Recipe
from training.errors import UserError, naming

R = TypeVar('R', bound=Recipe)
TRAINING_ONLY = 'refinement', 'optimisation'  # sections of a recipe that a test does not read


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are a UserError, without the usage; no abbreviations."""

    def __init__(self, description: str, **kwargs: Any) -> None:
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].split('=')[0]
            known = aliases.hint(name)
            close = f', {known}' if known else recipes.nearest(name, self._option_string_actions)
            raise UserError(f'{name}: unknown option{close}')
        return options

    def error(self, message: str) -> NoReturn:
        raise UserError(message.replace('argument ', '', 1))


def training_parser(doc: str, version_help: str) -> Parser:
    """A Parser with the actions that the training scripts share."""
    parser = Parser(doc)
    parser.add_argument(
        '--version', help=f'{version_help}; the options of the groups below override its fields'
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument('--resume', action='store_true', help="go on from the run folder's checkpoint")
    action.add_argument('--test', action='store_true', help='only evaluate weights, on the test set')
    parser.add_argument(
        '--weights',
        metavar='FILE',
        help='weights to test or to start from; with '
        "--test, the run folder's last ones are the default, and those of another "
        'run bring its recipe',
    )
    parser.add_argument(
        '--plotting',
        action='store_true',
        help='draw curves and feature maps every epoch, and features.html, a page of all of them',
    )
    parser.add_argument(
        '--tensorboard',
        action='store_true',
        help='also write event files, and the features for the projector',
    )
    return parser


def parse_options(
    parser: argparse.ArgumentParser, recipe_class: type[Recipe], argv: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Add the fields of a recipe to a parser and split the command line.

    Option names may be spelt with hyphens or underscores.

    Returns
    -------
    (dict, dict)
        All actions; and the fields that were given, as overrides for `training.config.recipe.load`.
    """
    actions = [action.dest for action in parser._actions]
    add_fields(parser, recipe_class)
    options = vars(parser.parse_args(hyphenated(argv)))
    return {name: options.pop(name) for name in actions if name in options}, options


def hyphenated(argv: Sequence[str]) -> list[str]:
    """The words of a command line, with hyphens for the underscores in names of options."""
    return [re.sub(r'^--[a-z_]+', lambda match: match[0].replace('_', '-'), word) for word in argv]


def add_fields(parser: argparse.ArgumentParser, recipe_class: type) -> None:
    """Give `parser` one option per recipe field, grouped by section."""
    section: Any
    for section in dataclasses.fields(recipe_class):
        group = parser.add_argument_group(section.type.__doc__)
        for item in dataclasses.fields(section.type):
            if item.name in FILLED_IN:
                continue
            info: Any = item.default
            options = {
                'default': argparse.SUPPRESS,
                'dest': item.name,
                'help': info.description.replace('%', '%%'),
            }
            if typing.get_origin(item.type) is typing.Literal:
                options['metavar'] = '|'.join(typing.get_args(item.type))
            elif item.type is bool:
                options.update(action=argparse.BooleanOptionalAction)
            elif typing.get_origin(item.type) is list:
                options.update(nargs='*', metavar='N')
            else:
                options['metavar'] = 'N' if item.type in (int, float) else 'VALUE'
            group.add_argument('--' + item.name.replace('_', '-'), **options)


def add_prediction_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options that predict.py and serve.py share."""
    parser.add_argument(
        '--false-alarm-rate',
        default='0.05',
        choices=list(map(str, FALSE_ALARM_RATES)),
        help='share of ordinary images that may be called unlike the training data (default 0.05)',
    )
    parser.add_argument('--device', default='auto', help='auto, cpu or gpu')
    parser.add_argument('--dtype', default='float32', choices=('auto', 'float32', 'bfloat16', 'float16'))


def choose_recipe(
    family: str,
    version: str,
    recipe_class: type[R],
    folder: Any,
    actions: dict[str, Any],
    overrides: dict[str, Any],
) -> tuple[R, Path]:
    """The recipe to run: of the run that goes on or is tested, else of `version`.

    More epochs of a run that goes on scale nothing. Weights to test are of the run in whose folder
    they are; elsewhere, of `version`. A test is for this machine: what the run had to say of
    devices, precision and workers gives way.

    Returns
    -------
    (recipe, Path)
        And the file it was read from.
    """
    if actions['resume'] and actions['weights']:
        raise UserError('--weights: not allowed with --resume, which takes those of the checkpoint')
    if actions['weights'] == '':
        raise UserError('--weights: expected the name of a file')
    path = recipes.version_path(family, version)
    if actions['test'] and actions['weights']:
        beside = Path(actions['weights']).parent / folder.config.name
        with naming(actions['weights']):
            path = beside if beside.is_file() else path
    elif actions['resume'] or actions['test']:
        path = folder.require_run()
    given = overrides
    if actions['test']:  # a run that was validated on held-out images too, if there are others
        given = {
            **({} if family == 'images' else {'holdout': 0}),
            'device': 'auto',
            'kvstore': 'device',
            **overrides,
        }
    recipe = recipes.load_recipe(path, recipe_class, given, scale=not actions['resume'])
    if actions['test']:
        _drop_idle(recipe, actions, overrides)
    if actions['test'] and 'dtype' not in overrides and recipe.run.dtype != 'float32':
        recipe.run.dtype = 'auto'
    if actions['version'] and recipe.run.version not in ('', actions['version']):
        raise UserError(
            f'--version {actions["version"]}: the run in {path.parent} is of {recipe.run.version}'
        )
    return recipe, path


def _drop_idle(recipe: Any, actions: dict[str, Any], overrides: dict[str, Any]) -> None:
    """Report options that a test has no use for, and drop these fields from `overrides`."""
    idle = [name for name in ('plotting', 'tensorboard') if actions.get(name)]
    for section in dataclasses.fields(recipe):
        if section.name in TRAINING_ONLY:
            names = [item.name for item in dataclasses.fields(section.type)]  # type: ignore[arg-type]
            idle += [name for name in names if name in overrides]
    for name in idle:
        overrides.pop(name, None)
        print(f'--{name.replace("_", "-")}: has no effect with --test')
