"""What train_cifar.py and train_images.py do once they have a recipe and images: train or test a net."""

from pathlib import Path
from typing import Any, Optional

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from training.config.schema import ImagesRecipe
from training.data import augment, batches, datasets
from training.data.hard_examples import HardExamples
from training.loop.fit import fit
from training.loop.job import Job
from training.loop.rates import Rates
from training.loop.validation import Validation
from training.machine.cluster import Workers
from training.machine.devices import Device
from training.metrics.accuracy import accuracies, extract_features
from training.metrics.classes import ClassReport, class_report
from training.model import Model, build_model, initialize, normaliser
from training.nets import zoo
from training.optim import schedules
from training.optim.average import build_moving_average
from training.optim.trainer import build_trainer, make_trainer
from training.runs import class_pages, tables
from training.runs.background_plots import BackgroundPlots
from training.runs.folder import RunFolder
from training.runs.teacher import load_teacher
from training.runs.weights import (
    load_backbone,
    load_weights,
    named_parameters,
    read_arrays,
    require_same_data,
)

IMAGENET_CLASSES = 1000
CLASSES_SAID = 20


def run_zoo_net(
    recipe: Any,
    device: Device,
    workers: Workers,
    folder: RunFolder,
    actions: dict[str, Any],
    splits: tuple[datasets.Split, datasets.Split],
) -> int:
    """Train, or with the action `test` only evaluate; return the exit code.

    Parameters
    ----------
    recipe : CifarRecipe or ImagesRecipe
    device, workers
        What training.begin.begin returned.
    folder : training.runs.folder.RunFolder
    actions : dict
        Those of training.config.options.training_parser, and `plotting`.
    splits : (Split, Split)
        Training and validation images.
    """
    contexts = device.contexts()
    mx.random.seed(recipe.run.seed)
    train_split, val_split = splits
    augmentation, normalise = augment.build(recipe.data), normaliser(recipe, contexts)
    augmentation.initialize(ctx=contexts)
    augmentation.hybridize(static_alloc=True)
    val_data = batches.DeviceData(val_split, contexts, workers)
    print(
        f'{recipe.data.dataset}: {len(train_split)} training images, {val_data.count} '
        f'{recipe.data.validation_split} images'
    )

    # Net and loss, and the weights to begin with.
    classes = len(datasets.facts(recipe.data).names)
    counts = np.maximum(1, np.bincount(train_split.labels, minlength=classes))
    model = build_model(recipe, device, counts)
    initialize(model, recipe, contexts)
    weights = actions['weights'] or (folder.weights if actions['test'] else None)
    if weights:
        load_weights(weights, model.weights, contexts)
        if (config := RunFolder(Path(weights).parent).config).is_file():
            same = 'normalisation', 'classes'
            require_same_data(f'--weights {weights}', config, recipe.data, *same)
    elif not actions['resume']:
        begin_with_backbone(model, recipe)
    if actions['test']:
        values = accuracies(model.classifier, normalise, val_data)
        text = ', '.join(f'{value:.4f} by {name}' for name, value in zip(model.methods, values))
        print(f'{weights}: accuracy {text} on {val_data.count} {recipe.data.validation_split} images')
        if isinstance(recipe, ImagesRecipe):
            found = report_classes(model, recipe, normalise, val_data)
            say(found)
            if (
                weights == folder.weights
                and folder.summary.exists()
                and recipe.data.validation_split == 'test'
            ):
                folder.write_summary({**folder.read_summary(), 'test': found.test_summary()})
        return 0

    # Batches, and the teacher that looks at them too.
    refinement = recipe.refinement
    teacher_net = None
    if refinement.teacher:
        teacher_net = load_teacher(refinement.teacher, recipe.data, device, contexts, folder)
    hard_examples = None
    if refinement.hard_epochs:
        first = recipe.optimisation.epochs - refinement.hard_epochs
        hard_examples = HardExamples(len(train_split), refinement.hard_share, first)
    train_data = batches.TrainingData(
        train_split,
        contexts,
        augmentation,
        recipe.data.flip,
        recipe.optimisation.batch_size * len(contexts) * workers.size,
        recipe.run.seed,
        refinement.mixup,
        teacher_net,
        class_sizes=model.center_loss is not None,
        workers=workers,
        resolutions=recipe.data.resolutions,
        hard_examples=hard_examples,
    )
    if teacher_net:
        (accuracy,) = accuracies(teacher_net, normalise, val_data)
        print(f'teacher {refinement.teacher}: accuracy {accuracy:.4f}')

    # Schedules and optimizers: the net's, and one of their own for the centers.
    learning_rate = schedules.learning_rate(
        recipe.optimisation, train_data.steps_per_epoch, train_data.batch_size
    )
    parts = {'net': model.net, **({'mixture': model.mixture} if model.mixture else {})}
    trainers = [build_trainer(named_parameters(parts).values(), recipe.optimisation, workers)]
    if model.center_loss is not None:
        trainers.append(make_trainer(model.center_loss.collect_params(), 'sgd', {'wd': 0}, workers))
    of_centers = schedules.rate_of_centers(
        recipe.loss, recipe.optimisation, train_data.batch_size, learning_rate
    )
    rates = Rates(
        [learning_rate, of_centers],
        trainers,
        model,
        schedules.margin(recipe.loss),
    )

    # What is validated and kept: the weights, or their moving average.
    average = build_moving_average(model, recipe, device, contexts)
    validated = average.model if average else model
    validation = Validation(validated, normalise, val_data, model.loss_fn, recipe.run.validate_with_label)

    def report(figures: BackgroundPlots) -> dict[str, Any]:
        if not isinstance(recipe, ImagesRecipe):
            return {}
        found = report_classes(validated, recipe, normalise, val_data)
        say(found)
        class_pages.write_classes(folder, found)
        records, split = val_split.images, recipe.data.validation_split
        class_pages.write_mistakes(
            folder, found, val_split.labels, split, records.centre, lambda number: records.name(number)
        )
        title = f'{folder.path.name}, {split} images'
        figures.submit(folder.write_figure, 'classes.png', class_pages.class_figure, found, title)
        return found.summary()

    job = Job(
        recipe=recipe,
        device=device,
        folder=folder,
        model=model,
        trainers=trainers,
        data=train_data,
        data_digest=datasets.digest(train_split, val_split),
        rates=rates,
        validation=validation,
        average=average,
        plotting=actions['plotting'],
        report=report,
    )
    return fit(job, actions['resume'], actions['tensorboard'])


def begin_with_backbone(model: Model, recipe: Any) -> None:
    """Load the weights that a recipe's net is to begin with, if any, into an initialised model."""
    if not isinstance(recipe, ImagesRecipe):
        return
    source: Optional[str] = recipe.model.backbone
    if source:
        arrays = read_arrays(Path(source))
    elif recipe.model.pretrained:
        source = f'--pretrained {recipe.model.model}'
        stock = zoo.pretrained_model('--pretrained', recipe.model.model, IMAGENET_CLASSES)
        arrays = {name: parameter.data() for name, parameter in stock._collect_params_with_prefix().items()}
    if source:
        load_backbone(source, arrays, model.net)
    elif recipe.model.freeze_backbone:
        print('--freeze-backbone: keeps a body with random weights; give --pretrained or --backbone FILE')


def report_classes(
    model: Model, recipe: Any, normalise: HybridBlock, data: batches.DeviceData
) -> ClassReport:
    """What a model says of validation images, class by class."""

    def logits(images: Any) -> Any:
        outputs = model.classifier(images)
        return outputs[0] if isinstance(outputs, (list, tuple)) else outputs

    outputs, labels = extract_features(logits, normalise, data)
    return class_report(outputs, labels, datasets.facts(recipe.data).names)


def say(report: ClassReport) -> None:
    """Print a report; of many classes, those that are recognised worst."""
    print(f'top-1 {report.top1:.4f}, top-5 {report.top5:.4f}, balanced {report.balanced:.4f}')
    rows = report.rows()
    if len(rows) > CLASSES_SAID:
        rows = [rows[k] for k in np.argsort(np.nan_to_num(report.recalls, nan=2))[:CLASSES_SAID]]
        print(f'the {CLASSES_SAID} classes that are recognised worst, of {len(report.names)}:')
    cells = [['-' if value is None else str(value) for value in row.values()] for row in rows]
    print(tables.markdown([name.replace('_', ' ') for name in rows[0]], cells), end='')
