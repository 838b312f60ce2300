"""The teacher of a distillation: a saved run, or a pretrained model of GluonCV's zoo."""

from pathlib import Path

from training.data import datasets
from training.errors import UserError, naming
from training.nets import zoo
from training.runs.folder import RunFolder
from training.runs.restore import restore_model


def load_teacher(name, dataset, device, contexts, student=None):
    """A hybridised block from normalised images to logits (B, C).

    Parameters
    ----------
    name : str
        A run folder of train_cifar.py or a model's name.
    dataset : str
        As in training.data.datasets.CLASSES.
    device : training.machine.devices.Device
    contexts : list of Context
    student : RunFolder or None
        Where the run that learns is kept.

    Raises
    ------
    UserError
        If there is neither such a run nor such a model, it does not fit, or it is the student.
    """
    with naming(f'--teacher {name}'):
        is_run = Path(name).is_dir()
    if is_run:
        if student and Path(name).resolve() == student.path.resolve():
            # The run there would be moved aside, and after --resume the student teach itself.
            raise UserError(f'--teacher {name}: is the folder of this run; choose another --output-dir')
        model, recipe = restore_model(RunFolder(name), device, contexts)
        if recipe.data.dataset != dataset:
            raise UserError(f'--teacher {name}: was trained on {recipe.data.dataset}, not {dataset}')
        return model.classifier
    teacher = _pretrained(name, datasets.CLASSES[dataset], contexts)
    teacher.collect_params().setattr('grad_req', 'null')
    teacher.hybridize(static_alloc=True, static_shape=True)
    return teacher


def _pretrained(name, num_classes, contexts):
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
