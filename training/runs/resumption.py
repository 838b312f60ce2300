"""What may change between a run and its resumption."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from training.config import recipe as recipes
from training.config.schema import Recipe
from training.errors import UserError
from training.runs.folder import RunFolder, write_text

# What a run settles itself, by the value that leaves it open.
LEFT_OPEN = {'device': 'auto', 'dtype': 'auto', 'image_size': 0, 'validate_on': None, 'classes': []}
# Fields that do not change the result.
FREE_ON_RESUME = ('data_dir', 'pack_dir', 'output_dir', 'reported_val_acc')


def check_same(folder: RunFolder, recipe: Recipe, free: Sequence[str] = ()) -> Recipe:
    """Refuse to go on with another recipe than the one a run began with.

    Fields that its config.yaml lacks, since an earlier version of the project began it, are taken to
    be at their defaults.

    Parameters
    ----------
    folder : training.runs.folder.RunFolder
    recipe : CifarRecipe or MnistRecipe
        The one to go on with.
    free : sequence of str
        Names of fields that may differ, beside FREE_ON_RESUME and what is left open.

    Returns
    -------
    CifarRecipe or MnistRecipe
        The one that the run began with.

    Raises
    ------
    UserError
        Naming the differing fields.
    """
    begun = recipes.load_recipe(folder.config, type(recipe), {})
    wanted = recipes.values(recipe)
    settled = [name for name, value in LEFT_OPEN.items() if name in wanted and wanted[name] == value]
    changed = recipes.differences(begun, recipe, ignored=[*FREE_ON_RESUME, *settled, *free])
    if changed:
        raise UserError(f'{folder.path}: was begun with other values (begun / now): ' + ', '.join(changed))
    return begun


def check_resumable(folder: RunFolder, recipe: Recipe) -> Recipe:
    """As `check_same`, but the run may get longer, and its decay epochs to come may move."""
    begun = recipes.load_recipe(folder.config, type(recipe), {}).optimisation.epochs
    if recipe.optimisation.epochs < begun:
        raise UserError(
            f'--epochs {recipe.optimisation.epochs}: the run in {folder.path} is one of {begun}, and can '
            'only get longer'
        )
    longer = recipe.optimisation.epochs > begun
    return check_same(folder, recipe, ('epochs', 'decay_epochs') if longer else ())


def resume(
    folder: RunFolder,
    recipe: Recipe,
    state: dict[str, Any],
    data: str,
    steps_per_epoch: int,
    write: bool = True,
) -> None:
    """Hold a run's state against the data and the recipe it is to go on with, and say where it goes on.

    A longer run is written to config.yaml.

    Parameters
    ----------
    folder : training.runs.folder.RunFolder
    recipe : CifarRecipe or MnistRecipe
        The one to go on with, which `check_resumable` has passed.
    state : dict
        As training.runs.checkpoint.load_checkpoint returned it.
    data : str
        Digest of the images and labels, as training.data.datasets.digest gives it.
    steps_per_epoch : int
    write : bool
        Whether this worker writes the files.

    Raises
    ------
    UserError
        If the data are others, or the epochs done would have had other learning rates.
    """
    if state.get('data') not in (None, data):
        raise UserError(
            f'{folder.path}: was begun with other images or labels than these; go on with the same data '
            '(--data-dir), or begin a new run'
        )
    begun = recipes.load_recipe(folder.config, type(recipe), {})
    if recipe.optimisation.epochs > begun.optimisation.epochs:
        _lengthen(folder, begun, recipe, state['epoch'] + state['step'] / steps_per_epoch, write)
    print(f'resuming at epoch {state["epoch"] + 1}, step {state["step"]}')


def _lengthen(folder: RunFolder, begun: Recipe, recipe: Recipe, done: float, write: bool) -> None:
    """Refuse it if learning rates of the epochs `done` change; else say what they are from now on."""
    old, new = begun.optimisation, recipe.optimisation
    first_phase = begun.loss.first_phase_epochs if begun.loss.loss == 'two-phase' else 0
    done_of_last_phase = max(0, done - first_phase)
    if old.schedule == 'step':
        # Decay epochs are meant within each phase.
        passed = max(done_of_last_phase, min(done, first_phase))
        kept, now = ([epoch for epoch in o.decay_epochs if epoch < passed] for o in (old, new))
        if kept != now:
            raise UserError(
                f'--decay-epochs: {done:g} epochs of the run in {folder.path} are done, with decays at '
                f'{kept}, which must stay; got {now}'
            )
        coming = [f'{epoch:g}' for epoch in new.decay_epochs if epoch >= done_of_last_phase]
        how = f'decays at {", ".join(coming)}' if coming else 'stays as it is'
    elif done_of_last_phase > (0 if old.warmup == 'none' else old.warmup_epochs):
        raise UserError(
            f'--epochs {new.epochs}: the run in {folder.path} has a {old.schedule} schedule over '
            f'{old.epochs} epochs, of which {done:g} are done; to train longer, begin a new run from its '
            f'weights: --weights {folder.weights} --epochs N --output-dir OTHER'
        )
    else:
        how = f'has a {new.schedule} schedule over {new.epochs}'
    print(f'{old.epochs} epochs become {new.epochs}: the learning rate {how}')
    if write:
        longer = replace(old, epochs=new.epochs, decay_epochs=new.decay_epochs)
        write_text(folder.config, recipes.to_yaml(replace(begun, optimisation=longer)))
