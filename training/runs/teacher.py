"""The teacher of a distillation: a saved run, or a pretrained model of GluonCV's zoo."""

from pathlib import Path
from typing import Optional

from mxnet.context import Context
from mxnet.gluon import HybridBlock

from training.config.images import CifarData
from training.data import datasets
from training.errors import UserError, naming
from training.machine.devices import Device
from training.nets import zoo
from training.runs.folder import RunFolder
from training.runs.restore import restore_model
from training.runs.weights import require_same_data


def load_teacher(
    name: str, data: CifarData, device: Device, contexts: list[Context], student: Optional[RunFolder] = None
) -> HybridBlock:
    """A hybridised block from normalised images to logits (B, C).

    Parameters
    ----------
    name : str
        A run folder of train_cifar.py or a model's name.
    data : training.config.images.CifarData
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
        require_same_data(f'--teacher {name}', teacher.require_run(), data, 'dataset', 'normalisation')
        model, _ = restore_model(teacher, device, contexts)
        return model.classifier
    if data.normalisation != 'cifar10':
        raise UserError(f'--teacher {name}: was pretrained with --normalisation cifar10; choose that')
    teacher = _pretrained(name, datasets.CLASSES[data.dataset], contexts)
    teacher.collect_params().setattr('grad_req', 'null')
    teacher.hybridize(static_alloc=True, static_shape=True)
    return teacher


def _pretrained(name: str, num_classes: int, contexts: list[Context]) -> HybridBlock:
    if Path(name).parent != Path('.'):
        raise UserError(f'--teacher {name}: there is no such run folder')
    try:
        return zoo.zoo_model(name, num_classes, pretrained=True, ctx=contexts)
    except zoo.NoClassifier:
        raise UserError(f"--teacher {name}: neither a run folder nor a classifier of GluonCV's zoo") from None
    except AssertionError:  # of Gluon, on loading an output layer of another size
        raise UserError(
            f'--teacher {name}: its pretrained weights are not for {num_classes} classes; give a run folder'
        ) from None
    except (OSError, ValueError) as error:  # no network; none published
        raise UserError(f'--teacher {name}: its pretrained weights cannot be fetched: {error}') from None
