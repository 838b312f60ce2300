"""The teacher of a distillation: a saved run, or a pretrained model of GluonCV's zoo."""

from pathlib import Path
from typing import Any, Optional

from mxnet.context import Context
from mxnet.gluon import HybridBlock

from training.data import datasets
from training.errors import UserError, naming
from training.machine.devices import Device
from training.nets import zoo
from training.runs.folder import RunFolder
from training.runs.restore import restore_model
from training.runs.weights import require_same_data


def load_teacher(
    name: str, data: Any, device: Device, contexts: list[Context], student: Optional[RunFolder] = None
) -> HybridBlock:
    """A hybridised block from normalised images to logits (B, C).

    Parameters
    ----------
    name : str
        A run folder of the same script, or a model's name.
    data : training.config.inputs.CifarData or ImagesData
        Of the student: the teacher sees its images, normalised as they are.
    device : training.machine.devices.Device
    contexts : list of Context
    student : RunFolder or None
        Where the run that learns is kept.

    Raises
    ------
    UserError
        If there is neither such a run nor such a model, it saw other images or other pixel values, or
        it is the student.
    """
    with naming(f'--teacher {name}'):
        is_run = Path(name).is_dir()
    if is_run:
        if student and Path(name).resolve() == student.path.resolve():
            # The run there would be moved aside, and after --resume the student teach itself.
            raise UserError(f'--teacher {name}: is the folder of this run; choose another --output-dir')
        teacher = RunFolder(name)
        same = 'dataset', 'normalisation', 'classes', 'image_size'
        require_same_data(f'--teacher {name}', teacher.require_run(), data, *same)
        model, _ = restore_model(teacher, device, contexts)
        return model.classifier
    usual = 'imagenet' if data.dataset == 'images' else 'cifar10'
    if data.normalisation != usual:
        raise UserError(f'--teacher {name}: was pretrained with --normalisation {usual}; choose that')
    if Path(name).parent != Path('.'):
        raise UserError(f'--teacher {name}: there is no such run folder')
    classes = len(datasets.facts(data).names)
    teacher = zoo.pretrained_model(f'--teacher {name}', name, classes, ctx=contexts)
    teacher.collect_params().setattr('grad_req', 'null')
    teacher.hybridize(static_alloc=True, static_shape=True)
    return teacher
