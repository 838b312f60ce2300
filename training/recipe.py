"""Recipes: typed fields, read from YAML, overridden on the command line, checked in one place."""
import argparse
import dataclasses
import difflib
import re
import typing
from pathlib import Path
from typing import List, Literal, Optional

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from .runtime import UserError

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
STRICT = ConfigDict(extra='forbid', allow_inf_nan=False, validate_default=True)


def field(default, description, **limits):
    return Field(default=default, description=description, **limits)


@dataclass(config=STRICT)
class Data:
    """data"""
    data_dir: Optional[str] = field(None, "folder of the data files; default: MXNet's own")
    num_samples: Optional[int] = field(None, 'use only the first N images of each split', ge=1)
    holdout: int = field(0, 'validate on N images kept out of the training set, not on the test '
                         'set', ge=0)
    augmentation: Literal['none', 'pad-crop', 'resized-crop'] = field(
        'pad-crop', 'pad-crop: reflect-pad, crop, flip; resized-crop: the published set (random '
        'resized crop, flip, colour jitter, lighting noise)')
    padding: int = field(4, 'pixels that pad-crop adds on each side', ge=0, le=31)
    flip: Literal['random', 'alternating'] = field(
        'random', 'mirror each image at random, or in every second epoch')


@dataclass(config=STRICT)
class Model:
    """model"""
    model: str = field('cifar_resnet20_v1', "a CIFAR classification model of GluonCV's zoo")
    features: Literal['pool', 'output'] = field(
        'pool', "where the loss takes its features: the pooled ones, or the net's output layer")
    feature_size: int = field(10, 'width of the output layer with --features output', ge=1)


@dataclass(config=STRICT)
class Loss:
    """loss"""
    covariance: Literal['identity', 'diagonal', 'inverse-sum'] = field(
        'identity', 'covariance of each class; inverse-sum is the published v6 form')
    likelihood: Literal['off', 'distance', 'full'] = field(
        'distance', 'likelihood term: the distance alone, or with the log-determinant')
    likelihood_weight: float = field(0.1, 'lambda, the weight of the likelihood term', ge=0)
    margin: float = field(0.1, 'alpha, the multiplicative margin at the start', ge=0)
    margin_factor: float = field(1.0, 'multiply the margin by this at every margin step', ge=1)
    margin_every: int = field(5000, 'training steps between two margin steps', ge=1)
    margin_maximum: float = field(0.3, 'largest margin', ge=0)
    margin_add: float = field(0.0, 'constant margin on the logit of the true class', ge=0)
    mean_init: Literal['xavier', 'msra'] = field('xavier', 'initialisation of the class means')
    mean_lr_mult: float = field(1.0, 'learning-rate multiplier of the means', ge=0)
    mean_wd_mult: float = field(1.0, 'weight-decay multiplier of the means', ge=0)
    variance_init: float = field(1.0, 'initial value of every variance', gt=0)
    variance_lr_mult: float = field(1.0, 'learning-rate multiplier of the variances', ge=0)
    variance_wd_mult: float = field(0.0, 'weight-decay multiplier of the variances', ge=0)


@dataclass(config=STRICT)
class Optimisation:
    """optimisation"""
    epochs: int = field(20, 'passes over the training set; decay and warm-up epochs of the '
                        'version are scaled in proportion', ge=1)
    batch_size: int = field(128, 'images a step on each device', ge=1)
    optimizer: Literal['nag', 'sgd', 'adam', 'muon'] = field(
        'nag', 'nag is SGD with Nesterov momentum; muon makes its updates of kernels orthogonal')
    momentum: float = field(0.9, 'momentum of nag, sgd and muon', ge=0, lt=1)
    lr: float = field(0.1, 'learning rate after warm-up', gt=0)
    matrix_lr: float = field(0.1, "muon's learning rate for convolution kernels, relative to "
                             'their size; follows the schedule of lr', gt=0)
    wd: float = field(5e-4, 'weight decay', ge=0)
    net_init: Literal['xavier', 'msra'] = field('xavier', "initialisation of the net's weights")
    schedule: Literal['step', 'cosine'] = field('step', 'decay of the learning rate')
    decay_factor: float = field(0.5, 'multiply lr by this at every decay epoch', gt=0, le=1)
    decay_epochs: List[float] = field([], 'epochs at which the step schedule decays')
    warmup: Literal['none', 'linear', 'constant'] = field(
        'none', 'linear: from 0 to lr, step by step; constant: hold --warmup-lr')
    warmup_epochs: float = field(0.0, 'length of the warm-up', ge=0)
    warmup_lr: float = field(0.01, 'learning rate of a constant warm-up', gt=0)


@dataclass(config=STRICT)
class Run:
    """run"""
    version: str = field('', 'the recipe in configs/ that this run started from')
    reported_val_acc: Optional[float] = field(
        None, 'accuracy that the source reports, to compare with', ge=0, le=1)
    device: str = field('auto', 'auto, cpu, gpu, or ids such as gpu:0,1')
    dtype: Literal['auto', 'float32', 'bfloat16', 'float16'] = field(
        'float32', 'precision of the net; the loss always computes in float32')
    output_dir: Optional[str] = field(None, 'the run folder; default: output/cifar-VERSION')
    seed: int = field(0, 'seed of initialisation, order and augmentation', ge=0, lt=2 ** 31)


@dataclass(config=STRICT)
class CifarRecipe:
    """Everything that decides the outcome of a train_cifar.py run."""
    data: Data = Field(default_factory=Data)
    model: Model = Field(default_factory=Model)
    loss: Loss = Field(default_factory=Loss)
    optimisation: Optimisation = Field(default_factory=Optimisation)
    run: Run = Field(default_factory=Run)

    def __post_init__(self):
        if self.loss.margin_factor > 1 and not 0 < self.loss.margin <= self.loss.margin_maximum:
            raise ValueError('margin: a growing margin must start above 0 and not above '
                             f'margin_maximum, got {self.loss.margin} and '
                             f'{self.loss.margin_maximum}')
        if self.optimisation.decay_epochs != sorted(self.optimisation.decay_epochs):
            raise ValueError('decay_epochs: must ascend, got '
                             f'{self.optimisation.decay_epochs}')


SCALED_WITH_EPOCHS = ('decay_epochs', 'warmup_epochs')


def add_arguments(parser, recipe_class):
    """Give `parser` one option per recipe field, grouped by section."""
    for section in dataclasses.fields(recipe_class):
        group = parser.add_argument_group(section.type.__doc__)
        for item in dataclasses.fields(section.type):
            if item.name == 'version':
                continue  # the scripts' own option: it names the file, not a value
            info = item.default
            options = {'default': argparse.SUPPRESS, 'dest': item.name,
                       'help': info.description.replace('%', '%%')}
            if typing.get_origin(item.type) is Literal:
                options['metavar'] = '|'.join(typing.get_args(item.type))
            elif typing.get_origin(item.type) is list:
                options.update(nargs='*', metavar='N')
            else:
                options['metavar'] = 'N' if item.type in (int, float) else 'VALUE'
            group.add_argument('--' + item.name.replace('_', '-'), **options)


def hyphenated(argv):
    """Command-line words with option names in hyphens, so that --batch_size is --batch-size."""
    return [re.sub(r'^--[a-z_]+', lambda match: match[0].replace('_', '-'), word)
            for word in argv]


def load(path, recipe_class, overrides):
    """Read the recipe file `path`, apply `overrides` and check every field.

    Parameters
    ----------
    path : Path
        YAML with the sections of `recipe_class`.
    overrides : dict
        Field name to value, as given on the command line; names are unique over all sections.

    Raises
    ------
    UserError
        With one line that names the file, the field, and what is wrong.
    """
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f'{path}: cannot be read as YAML: {" ".join(str(error).split())}') from None
    base = _validate(tree, recipe_class, str(path))
    tree = dataclasses.asdict(base)
    for section in tree.values():
        section.update({name: overrides[name] for name in section if name in overrides})
    recipe = _validate(tree, recipe_class, 'command line')
    ratio = recipe.optimisation.epochs / base.optimisation.epochs
    for name in set(SCALED_WITH_EPOCHS) - set(overrides):
        value = getattr(recipe.optimisation, name)
        scaled = [v * ratio for v in value] if isinstance(value, list) else value * ratio
        setattr(recipe.optimisation, name, scaled)
    return recipe


def version_path(family, version):
    """configs/<family>/<version>.yaml, or an error that lists the versions there are."""
    known = sorted(path.stem for path in (CONFIGS / family).glob('*.yaml'))
    if version not in known:
        raise UserError(f'--version {version}: no such recipe; there are {", ".join(known)}')
    return CONFIGS / family / f'{version}.yaml'


def to_yaml(recipe):
    """The recipe as YAML text that `load` reads back to an equal recipe."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False)


def differences(recipe, other, ignored=()):
    """['lr: 0.1 / 0.2', ...] for the fields in which two recipes differ."""
    first, second = dataclasses.asdict(recipe), dataclasses.asdict(other)
    return [f'{name}: {value!r} / {second[section][name]!r}'
            for section in first for name, value in first[section].items()
            if name not in ignored and value != second[section][name]]


def _validate(tree, recipe_class, source):
    try:
        return TypeAdapter(recipe_class).validate_python(tree)
    except ValidationError as error:
        problem = error.errors()[0]
        where = '.'.join(str(part) for part in problem['loc'])
        message = problem['msg'].replace('Value error, ', '')
        if problem['type'] in ('unexpected_keyword_argument', 'extra_forbidden'):
            message = f'unknown field{_nearest(problem["loc"], recipe_class)}'
        elif problem['type'] != 'value_error':
            message += f', got {problem["input"]!r}'
        flag = f' (--{problem["loc"][1].replace("_", "-")})' if source == 'command line' and \
            len(problem['loc']) > 1 else ''
        raise UserError(f'{source}: {where + ": " if where else ""}{message}{flag}') from None


def _nearest(location, recipe_class):
    sections = {f.name: f.type for f in dataclasses.fields(recipe_class)}
    known = list(sections) if len(location) == 1 else \
        [f.name for f in dataclasses.fields(sections[location[0]])]
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f', the nearest known one is {close[0]}' if close else ''
