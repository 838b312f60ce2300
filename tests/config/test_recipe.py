"""Recipes: the files in configs/, overrides, and one clear line for each mistake."""

import argparse
import dataclasses
import typing

import pytest
import yaml
from conftest import RECORD, ROOT

from training.begin import begin
from training.config import recipe as recipes
from training.config.fields import Values
from training.config.options import add_fields, choose_recipe, parse_options, training_parser
from training.config.schema import FILLED_IN, CifarRecipe
from training.errors import UserError
from training.machine import devices
from training.runs.folder import RunFolder
from training.runs.resumption import check_resumable

VERSIONS = sorted(path.stem for path in (recipes.CONFIGS / 'cifar').glob('*.yaml'))


def load(version, **overrides):
    return recipes.load_recipe(recipes.version_path('cifar', version), CifarRecipe, overrides)


@pytest.mark.parametrize('version', VERSIONS)
def test_every_recipe_file_is_valid_and_survives_a_round_trip(version, tmp_path):
    recipe = load(version)
    path = tmp_path / 'config.yaml'
    path.write_text(recipes.to_yaml(recipe))
    again = recipes.load_recipe(path, CifarRecipe, {})
    assert recipes.differences(recipe, again) == [] and again == recipe


def test_recipe_files_are_named_as_seen_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert str(recipes.version_path('cifar', 'v6')) == 'configs/cifar/v6.yaml'
    monkeypatch.chdir(tmp_path)
    assert recipes.version_path('cifar', 'v6').samefile(ROOT / 'configs/cifar/v6.yaml')


def test_field_names_are_unique_over_all_sections():
    names = [
        item.name for section in dataclasses.fields(CifarRecipe) for item in dataclasses.fields(section.type)
    ]
    assert len(names) == len(set(names))


def test_epochs_scale_decay_and_warmup_unless_these_are_given():
    short = load('v6', epochs=30).optimisation
    assert short.decay_epochs == pytest.approx([7.5, 11.25, 15, 18.75, 22.5, 26.25])
    assert short.warmup_epochs == pytest.approx(0.75)
    given = load('v6', epochs=30, warmup_epochs=2, decay_epochs=[10, 20]).optimisation
    assert (given.warmup_epochs, given.decay_epochs) == (2, [10, 20])


def test_first_phase_is_scaled_where_there_is_one():
    def first_phase(version, **options):
        return recipes.load_recipe(
            recipes.version_path('mnist', version), recipes.MnistRecipe, options
        ).loss.first_phase_epochs

    assert [first_phase('two-phase', epochs=epochs) for epochs in (20, '80', 3, 2)] == [5, 20, 1, 1]
    with pytest.raises(UserError, match='two-phase needs more epochs than its first phase has, got 1 and 1'):
        first_phase('two-phase', epochs=1)
    assert first_phase('two-phase', epochs=20, first_phase_epochs=3) == 3
    assert first_phase('softmax', epochs=20) == first_phase('softmax')


def test_command_line_overrides_fields_in_either_spelling():
    words = ['--batch_size', '64', '--lr=0.3', '--decay-epochs', '3', '4.5', '--data-dir', '/a_b']
    _, options = parse_options(training_parser('', ''), CifarRecipe, words)
    recipe = load('v6', **options)
    assert recipe.optimisation.batch_size == 64 and recipe.optimisation.lr == 0.3
    assert recipe.optimisation.decay_epochs == [3, 4.5] and recipe.data.data_dir == '/a_b'


@pytest.mark.parametrize(
    'family, version, words, said',
    [
        (
            'cifar',
            'fast',
            '--decay-epochs 5',
            '--decay-epochs: has no effect here, it needs --schedule step, got cosine\n',
        ),
        ('cifar', 'fast', '--feature-size 2', 'it needs --features output, got pool'),
        ('cifar', 'v4', '--warmup-epochs 3', 'it needs --warmup linear or constant, got none'),
        ('cifar', 'v4', '--temperature 3', '--temperature: has no effect here, it needs --teacher, got None'),
        (
            'cifar',
            'baseline',
            '--optimizer adam --momentum 0.5',
            'it needs --optimizer nag or sgd or muon, got adam',
        ),
        (
            'cifar',
            'fast',
            '--variance-lr-mult 2',
            '--covariance diagonal or fixed-volume or raw or inverse-sum',
        ),
        ('cifar', 'v4', '--hard-share 0.2 --epochs 3', 'it needs --hard-epochs above 0, got 0.0'),
        ('cifar', 'fast', '--loss softmax --margin 0.3', '--margin: has no effect here, it needs --loss lgm'),
        ('cifar', 'fast', '--loss softmax --likelihood full', '--likelihood: has no effect here'),
        ('cifar', 'fast', '--likelihood off --likelihood-weight 1', 'it needs --likelihood distance or full'),
        ('cifar', 'fast', '--margin-every 10', 'it needs --margin-factor above 1, got 1.0'),
        ('cifar', 'fast', '--augmentation none --flip random', '--flip: has no effect here'),
        ('cifar', 'v4', '--decay-epochs --decay-factor .1', 'it needs --decay-epochs, got []'),
        ('cifar', 'fast', '--wd 0 --decay-bias-and-norm', 'it needs --wd above 0, got 0.0'),
        ('images', 'finetune', '--backbone FILE --pretrained', 'it needs --backbone absent, got FILE'),
        ('mnist', 'center', '--alpha 1', 'it needs --loss softmax-center or two-phase, got center'),
        ('mnist', 'softmax', '--lmbd 1', '--lmbd: has no effect here'),
        ('cifar', 'v6', '--decay-epochs 5 --warmup-lr 0.1 --feature-size 3 --seed 1', None),
        ('cifar', 'fast', '--temperature 3 --teacher any --label-smoothing 0.2', None),
        ('cifar', 'fast', '--loss softmax --likelihood off --margin 0', None),
        ('cifar', 'fast', '--wd 0 --no-decay-bias-and-norm', None),
        ('images', 'finetune', '--backbone FILE --no-pretrained', None),
        ('images', 'finetune', '--augmentation none --flip none --jitter 0', None),
        ('mnist', 'two-phase', '--alpha 1 --lmbd 1 --first-phase-epochs 3', None),
    ],
)
def test_options_without_an_effect_are_reported(monkeypatch, tmp_path, capsys, family, version, words, said):
    monkeypatch.setattr(devices, 'prepare', lambda *_: devices.Device('cpu', (0,), 'float32'))
    recipe_class = {'cifar': CifarRecipe, 'mnist': recipes.MnistRecipe, 'images': recipes.ImagesRecipe}[
        family
    ]
    path = recipes.version_path(family, version)
    _, options = parse_options(training_parser('', ''), recipe_class, words.split())
    recipe = recipes.load_recipe(path, recipe_class, options)
    begin(recipe, path, version, RunFolder(tmp_path), options)
    output = capsys.readouterr().out
    assert (said or '') in output and output.count('no effect') == bool(said)


def test_options_that_a_test_has_no_use_for_are_reported(tmp_path, capsys):
    folder = RunFolder(tmp_path / 'run')
    with folder.start(load('fast')):
        parser = training_parser('', '')
        words = ['--test', '--tensorboard', '--lr', '0.3', '--temperature', '2', '--num-samples', '9']
        actions, options = parse_options(parser, CifarRecipe, words)
        recipe, _ = choose_recipe('cifar', 'fast', CifarRecipe, folder, actions, options)
    said = [f'--{name}: has no effect with --test' for name in ('tensorboard', 'temperature', 'lr')]
    assert capsys.readouterr().out.splitlines() == said
    assert options == {'num_samples': '9'} and recipe.data.num_samples == 9


@pytest.mark.parametrize('recipe_class', [CifarRecipe, recipes.MnistRecipe])
def test_every_field_declares_what_it_needs_of_fields_that_its_recipe_has(recipe_class):
    items = recipes.fields_of(recipe_class)
    sections = dataclasses.fields(recipe_class)
    assert len(items) == sum(len(dataclasses.fields(section.type)) for section in sections)
    for name, item in items.items():
        for other, wanted in item.default.json_schema_extra['needs'].items():
            choices = typing.get_args(items[other].type)
            if not isinstance(wanted, Values):
                wanted = wanted if isinstance(wanted, tuple) else (wanted,)
                assert name != other and any(choice in choices for choice in wanted)


@pytest.mark.parametrize('version', VERSIONS)
def test_recipe_files_set_no_field_without_an_effect(version):
    tree = yaml.safe_load(recipes.version_path('cifar', version).read_text())
    names = [name for section in tree.values() for name in section]
    assert recipes.without_effect(load(version), names) == {}


def another(item, value):
    """The words that give a field another value, and that value."""
    flag = '--' + item.name.replace('_', '-')
    if item.name == 'resolutions':
        return [flag, '16:4', '24:2.5'], [(16, 4), (24, 2.5)]
    if isinstance(value, bool):
        return [flag.replace('--', '--no-', 1) if value else flag], not value
    if typing.get_origin(item.type) is typing.Literal:
        other = next(choice for choice in typing.get_args(item.type) if choice != value)
    elif typing.get_origin(item.type) is list:
        return [flag, '1', '2.5'], [1, 2.5]
    elif isinstance(value, (int, float)) or item.name in ('num_samples', 'lr_batch_size'):
        other = (
            (value or 0) + 1 if not isinstance(value, float) else value / 2 if 0 < value < 1 else value + 0.5
        )
    else:
        other = 0.25 if item.name == 'reported_val_acc' else 'other'
    return [flag, str(other)], other


def test_every_field_can_be_overridden():
    base = load('baseline')
    for section in dataclasses.fields(CifarRecipe):
        values = getattr(base, section.name)
        for item in dataclasses.fields(section.type):
            if item.name in FILLED_IN:
                continue
            words, value = another(item, getattr(values, item.name))
            _, options = parse_options(training_parser('', ''), CifarRecipe, words)
            found = load('baseline', **options)
            assert getattr(getattr(found, section.name), item.name) == value, item.name


def test_help_lists_every_field_with_its_meaning():
    parser = argparse.ArgumentParser()
    add_fields(parser, CifarRecipe)
    text = ' '.join(parser.format_help().split())
    for section in dataclasses.fields(CifarRecipe):
        for item in dataclasses.fields(section.type):
            if item.name not in FILLED_IN:
                assert f'--{item.name.replace("_", "-")} ' in text
                assert item.default.description[:20] in text


def test_v6_is_the_published_recipe():
    recipe = load('v6')
    o, loss = recipe.optimisation, recipe.loss
    assert (o.epochs, o.lr, o.wd, o.momentum, o.batch_size) == (400, 0.1, 5e-4, 0.9, 128)
    assert (o.warmup, o.warmup_epochs, o.warmup_lr) == ('constant', 10, 0.01)
    assert (o.decay_factor, o.decay_epochs) == (0.5, [100, 150, 200, 250, 300, 350])
    assert (o.optimizer, o.net_init, loss.mean_init) == ('nag', 'xavier', 'msra')
    assert (loss.mean_lr_mult, loss.variance_lr_mult) == (2, 0.01)
    assert (loss.margin, loss.margin_factor, loss.likelihood_weight) == (0.1, 2, 0.1)
    assert (loss.covariance, loss.likelihood) == ('inverse-sum', 'euclidean')
    assert recipe.data.augmentation == 'resized-crop'


def test_v5_is_v4_with_a_trained_variance():
    first, second = load('v4'), load('v5')
    changed = {line.split(':')[0] for line in recipes.differences(first, second)}
    assert changed == {
        'covariance',
        'likelihood',
        'variance_lr_mult',
        'variance_wd_mult',
        'lr',
        'reported_val_acc',
    }


@pytest.mark.parametrize(
    'folder', sorted(path.parent for path in RECORD.glob('*/config.yaml')), ids=lambda path: path.name
)
def test_recorded_runs_of_earlier_versions_are_read(folder):
    recipe = recipes.load_run(RunFolder(folder).require_run())
    family = folder.name.split('-')[0]
    assert recipe.data.dataset == {'cifar': 'cifar10', 'mnist': 'mnist'}.get(family, 'images')


def test_run_of_a_version_with_fewer_fields_is_resumed_and_checked(tmp_path):
    recipe, folder = load('baseline'), RunFolder(tmp_path)
    folder.start(recipe).__exit__(None, None, None)
    tree = yaml.safe_load(folder.config.read_text())
    del tree['refinement'], tree['loss']['margin_add']
    folder.config.write_text(yaml.safe_dump(tree))
    check_resumable(folder, recipe)
    assert recipes.load_run(folder.config) == recipe
    recipe.loss.margin_add = 0.5
    with pytest.raises(UserError, match='begun with other values .*margin_add: 0.0 / 0.5'):
        check_resumable(folder, recipe)


def test_retired_fields_of_earlier_versions_are_read_at_their_defaults_only(tmp_path):
    path = tmp_path / 'config.yaml'
    tree = yaml.safe_load(recipes.to_yaml(load('v6')))
    tree['loss'].update(mean_wd_mult=1.0, variance_init=1)
    path.write_text(yaml.safe_dump(tree))
    assert recipes.load_run(path) == recipes.load_recipe(path, CifarRecipe, {}) == load('v6')
    tree['loss']['variance_init'] = 0.5
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match='loss.variance_init: this version has no such field .*got 0.5'):
        recipes.load_run(path)


def test_run_folder_may_be_the_current_one(tmp_path, monkeypatch):
    (tmp_path / 'run').mkdir()
    monkeypatch.chdir(tmp_path / 'run')
    for name in ('fast', 'v4'):
        with RunFolder('.').start(
            recipes.load_recipe(recipes.version_path('cifar', name), recipes.CifarRecipe, {})
        ):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ['run', 'run.1']
    assert RunFolder(tmp_path / 'run').config.exists()


@pytest.mark.parametrize(
    'options, count, words',
    [
        ({}, 10000, 'test set'),
        ({'num_samples': 300}, 300, 'first 300 test images'),
        ({'num_samples': 20000}, 10000, 'test set'),  # fewer training images, all test images
        ({'holdout': 5000}, 5000, '5000 held-out training images'),
        ({'holdout': 100, 'num_samples': 300}, 100, '100 held-out training images'),
    ],
)
def test_summary_says_what_the_accuracy_is_of(options, count, words):
    assert load('fast', **options).data.validated_on(count) == words
