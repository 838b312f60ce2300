"""Train a CIFAR-10 ResNet with the large-margin Gaussian Mixture loss.

python train_cifar.py --version fast
python train_cifar.py --version v6 --epochs 40 --dtype auto
python train_cifar.py --version fast --resume
python train_cifar.py --version fast --test
"""

from pathlib import Path

from training import errors
from training.begin import begin
from training.config import recipe as recipes
from training.config.options import Parser, choose_recipe, parse_options, training_parser
from training.runs.folder import RunFolder


def make_parser() -> Parser:
    return training_parser(__doc__, 'recipe: configs/cifar/VERSION.yaml (default fast)')


def main(argv: list[str]) -> int:
    # Recipe, device, run folder. mxnet is imported only after devices.prepare.
    actions, overrides = parse_options(make_parser(), recipes.CifarRecipe, argv)
    version = 'fast' if actions['version'] is None else actions['version']
    folder = RunFolder(overrides.get('output_dir') or Path('output') / f'cifar-{version}')
    recipe, recipe_file = choose_recipe('cifar', version, recipes.CifarRecipe, folder, actions, overrides)
    device, workers = begin(recipe, recipe_file, version, folder, overrides)

    from training.data import datasets
    from training.loop.zoo_run import run_zoo_net

    # Images, then net, loss, schedules and the training itself.
    splits = datasets.load_splits(recipe.data)
    return run_zoo_net(recipe, device, workers, folder, actions, splits)


if __name__ == '__main__':
    errors.exit_with(main)
