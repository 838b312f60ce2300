"""From a recipe to the device it computes on and the workers of its run."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from training import errors
from training.config import recipe as recipes
from training.machine import devices, parameter_server
from training.machine.cluster import Workers


def join(recipe: Any, device: devices.Device) -> Workers:
    """The workers of the run that this process belongs to; a server or scheduler never returns.

    Parameters
    ----------
    recipe : CifarRecipe or MnistRecipe
        Its `run.workers` is filled in.
    device : training.machine.devices.Device

    Raises
    ------
    UserError
        If the workers have different recipes or precisions.
    """
    workers = Workers(recipe.run.kvstore)
    recipe.run.workers = workers.size
    if workers.distributed:
        errors.departure = workers.leave
        if not workers.is_rank_zero:
            sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 for the whole process
        common = replace(
            recipe,
            data=replace(recipe.data, data_dir=None),
            run=replace(recipe.run, output_dir=None, device=f'{len(device.ids)} {device.kind}'),
        )
        workers.agree(
            recipes.to_yaml(common),
            'the workers of this run have different recipes, '
            'numbers of devices or precisions; start all with the same options',
        )
    return workers


def begin(
    recipe: recipes.Recipe, recipe_file: Path, version: str, folder: Any, overrides: dict[str, Any]
) -> tuple[devices.Device, Workers]:
    """Set the runtime up as the recipe says, write the outcome into it, and say what is in use.

    And which of the overrides have no effect. A process that is to be a server of a distributed
    run does not come back from here.

    Returns
    -------
    (training.machine.devices.Device, training.machine.cluster.Workers)
    """
    serves = parameter_server.check_environment(recipe.run.kvstore)
    if serves:
        parameter_server.serve(_server_optimizer)
    one_each = recipe.run.kvstore.startswith('dist') and devices.parse_device(recipe.run.device)[1] is None
    device = devices.prepare(recipe.run.device, recipe.run.dtype)
    recipe.run.version = recipe.run.version or version
    recipe.run.output_dir = str(folder.path)
    recipe.run.device = device.kind if one_each else str(device)
    recipe.run.dtype = device.dtype  # type: ignore[assignment]
    workers = join(recipe, device)
    together = f', {workers.size} workers ({recipe.run.kvstore})' if workers.distributed else ''
    print(
        f'recipe {recipe_file}, device {device}{together}, {device.dtype}, {devices.threads()} '
        f'threads, seed {recipe.run.seed}'
    )
    for name, need in recipes.without_effect(recipe, overrides).items():
        print(f'--{name.replace("_", "-")}: has no effect here, it needs {need}')
    return device, workers


def _server_optimizer(**message: Any) -> Any:
    from training.optim.trainer import server_optimizer

    return server_optimizer(**message)
