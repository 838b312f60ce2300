"""The command lines of the projects that this one reimplements."""

import argparse
from pathlib import Path
from typing import Any, Optional

from training.errors import UserError

# gluon_GMLoss's options that have another name here, and what stands for them.
GLUON_GMLOSS = {
    '--gpus': 'is --device gpu:0,1 here',
    '--lamda': 'is --likelihood-weight here',
    '--lr-decay': 'is --decay-factor here',
    '--lr-decay-epoch': 'is --decay-epochs 100 150 here',
    '--lr-mode': 'is --schedule here',
    '--mult': 'is --variance-lr-mult here',
    '--workers': 'is not needed, as images are augmented on the device',
}
SHORTEST_LR_STEP = 0.01  # epochs
OF_CENTER_LOSS = {'alpha': 'margin', 'lmbd': 'likelihood_weight'}  # and what may be meant by it


def hint(option: str) -> Optional[str]:
    """What stands for an option of gluon_GMLoss, in words; None for any other one."""
    meaning = GLUON_GMLOSS.get(option)
    return meaning and f"gluon_GMLoss's {option} {meaning}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of Center_Loss_in_MXNet that are neither fields nor shared actions."""
    group = parser.add_argument_group("Center_Loss_in_MXNet's other options")
    group.add_argument('--center-loss', action='store_true', help='--version softmax-center')
    group.add_argument(
        '--prefix', help='run folder output/mnist-PREFIX; with --second-train output/mnist-PREFIX-second'
    )
    group.add_argument('--lr-step', type=float, help='decay the learning rate every N epochs')
    group.add_argument('--lr-factor', help='--decay-factor')
    group.add_argument('--use-gpu', choices=('True', 'False'), help='True: --device auto; False: cpu')
    group.add_argument('--num-classes', type=int, choices=(10,), help='MNIST has 10')
    for name in ('--ckpt-dir', '--out-dir'):
        group.add_argument(name, help='parent of the run folder')


def choose(actions: dict[str, Any], overrides: dict[str, Any]) -> tuple[str, Path]:
    """Version and path of the run folder, from the options of this project and of Center_Loss_in_MXNet.

    Aliases of fields are put into `overrides`.
    """
    implied = 'center' if actions['second_train'] else 'softmax-center' if actions['center_loss'] else None
    if implied and actions['version'] not in (None, implied):
        raise UserError(
            f'--version {actions["version"]}: not with '
            f'--{"second-train" if actions["second_train"] else "center-loss"}, which is '
            f'--version {implied}'
        )
    if actions['train'] and actions['test']:
        raise UserError('--train: not allowed with --test')
    if actions['eval_method'] and not actions['test']:
        raise UserError('--eval-method: goes with --test; a training records all there are')
    version = implied if actions['version'] is None else actions['version']
    if version is None:  # its commands name a prefix, and mean plain softmax by themselves
        version = 'softmax' if actions['prefix'] else 'softmax-center'
    name = f'mnist-{actions["prefix"] or version}'
    if actions['second_train'] and actions['prefix']:
        name += '-second'
    if actions['lr_step'] is not None and not actions['lr_step'] >= SHORTEST_LR_STEP:  # nor NaN
        raise UserError(f'--lr-step {actions["lr_step"]:g}: must be at least {SHORTEST_LR_STEP}')
    parents = {actions['ckpt_dir'], actions['out_dir']} - {None} or {'output'}
    if len(parents) > 1:
        raise UserError(
            f'--ckpt-dir {actions["ckpt_dir"]}, --out-dir {actions["out_dir"]}: a run has '
            'one folder for all it writes; give one of them'
        )
    path = Path(overrides.get('output_dir') or Path(parents.pop()) / name)
    for alias, name in (
        ('use_gpu', 'device'),
        ('lr_factor', 'decay_factor'),
        ('lr_step', 'decay_epochs'),
        ('prefix', 'output_dir'),
        ('ckpt_dir', 'output_dir'),
        ('out_dir', 'output_dir'),
    ):
        if actions[alias] is not None and name in overrides:
            raise UserError(
                f'--{alias.replace("_", "-")}: not allowed with '
                f'--{name.replace("_", "-")}, which it stands for'
            )
    if actions['use_gpu']:
        overrides['device'] = 'auto' if actions['use_gpu'] == 'True' else 'cpu'
    if actions['lr_factor'] is not None:
        overrides['decay_factor'] = actions['lr_factor']
    return version, path


def every(step: float, epochs: int) -> list[float]:
    """The decay epochs that --lr-step stands for."""
    return [step * i for i in range(1, int(epochs / step) + 1)]
