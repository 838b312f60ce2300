"""Train any classifier of GluonCV's zoo on images of your own, by the L-GM loss, softmax or center loss.

    python train_images.py --data-dir photos
    python train_images.py --data-dir photos --holdout 0.2 --loss softmax-center --feature-size 128
    python train_images.py --data-dir photos --resume
    python train_images.py --data-dir photos --test

The folder has train/CLASS/IMAGE and val, validation or test beside train; or CLASS/IMAGE alone, and
--holdout says how much of it to validate on. It may hold train.rec and val.rec instead, as MXNet's im2rec
writes them. Images are packed once, into .packed in the folder or --pack-dir.
"""

from pathlib import Path
from typing import Any

from training import errors
from training.begin import begin
from training.config import recipe as recipes
from training.config.inputs import ImagesData
from training.config.options import Parser, choose_recipe, parse_options, training_parser
from training.runs.folder import RunFolder


def make_parser() -> Parser:
    parser = training_parser(__doc__, 'recipe: configs/images/VERSION.yaml (default finetune)')
    parser.add_argument('--strict', action='store_true', help='stop if an image file cannot be read')
    parser.add_argument('--repack', action='store_true', help='pack anew what was packed of other images')
    return parser


def main(argv: list[str]) -> int:
    # Recipe, device, run folder. mxnet is imported only after devices.prepare.
    actions, overrides = parse_options(make_parser(), recipes.ImagesRecipe, argv)
    version = 'finetune' if actions['version'] is None else actions['version']
    folder = RunFolder(overrides.get('output_dir') or Path('output') / f'images-{version}')
    recipe, recipe_file = choose_recipe('images', version, recipes.ImagesRecipe, folder, actions, overrides)
    if actions['test']:
        choose_test_images(recipe.data, overrides)
    device, workers = begin(recipe, recipe_file, version, folder, overrides)

    from training.data import datasets
    from training.loop.zoo_run import run_zoo_net
    from training.nets.sizes import usual_size

    # Images, then net, loss, schedules and the training itself.
    recipe.data.image_size = recipe.data.image_size or usual_size(recipe.model.model)
    splits = datasets.load_splits(recipe.data, strict=actions['strict'], again=actions['repack'])
    return run_zoo_net(recipe, device, workers, folder, actions, splits)


def choose_test_images(data: ImagesData, overrides: dict[str, Any]) -> None:
    """Have a run tested on the test set, if there is one, rather than on what it was validated on."""
    root = Path(data.data_dir or '').expanduser()
    if {'holdout', 'validate_on'} & set(overrides):
        return
    if any((root / name).exists() for name in ('test', 'test.rec')):
        data.holdout, data.validate_on = 0, 'test'


if __name__ == '__main__':
    errors.exit_with(main)
