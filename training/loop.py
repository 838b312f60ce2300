"""One epoch of training, one pass of evaluation."""
import signal
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from mxnet import autograd, gluon, nd
from tqdm import tqdm

from .augment import Mixup, draw_flips
from .cluster import Workers
from .runtime import UserError

STEPS_IN_FLIGHT = 4   # bounds memory and keeps the bar honest, without idling the engine
EVALUATION_BATCH = 500


@dataclass
class EpochResult:
    """What `train_epoch` did.

    Attributes
    ----------
    steps : int
        Steps of the epoch done by now, those before a resumption included.
    totals : list of float
        Summed loss and right predictions over those steps.
    loss, accuracy : float
        Their means over the images.
    images : int
        Images of this call.
    seconds : float
        Wall time of this call.
    """
    steps: int
    totals: list
    loss: float
    accuracy: float
    images: int
    seconds: float


class DeviceData:
    """A split as whole arrays on every context: images uint8, labels int32.

    Parameters
    ----------
    split : training.data.Split
    contexts : list of Context
    workers : training.cluster.Workers
        Who shares the work on it.

    Raises
    ------
    UserError
        If there are fewer images than workers.
    """

    def __init__(self, split, contexts, workers=Workers()):
        if len(split) < workers.size:
            raise UserError(f'{len(split)} images cannot be shared by {workers.size} workers')
        self.count, self.contexts, self.workers = len(split), contexts, workers
        self.images = [nd.array(split.images, ctx=ctx, dtype='uint8') for ctx in contexts]
        self.labels = [nd.array(split.labels, ctx=ctx, dtype='int32') for ctx in contexts]


class TrainingData(DeviceData):
    """A split that comes in shuffled, augmented batches.

    Parameters
    ----------
    split, contexts, workers
        As in :class:`DeviceData`.
    augment : block of training.augment
    flip : {'random', 'alternating'}
        As in training.augment.draw_flips.
    batch_size : int
        Images a step over all contexts of all workers.
    seed : int
    mixup : float, default 0
        If not 0, images are mixed with weights from Beta(mixup, mixup), and each pair is followed
        by its weight, shape (1,).
    teacher : block or None
        If given, its logits for the images come last in each pair.
    class_sizes : bool, default False
        Whether each pair is followed by how many images of the step, over all devices, are of the
        same class as each image, (B,).

    Raises
    ------
    UserError
        If the split does not fill one batch.
    """

    def __init__(self, split, contexts, augment, flip, batch_size, seed, mixup=0.0, teacher=None,
                 class_sizes=False, workers=Workers()):
        super().__init__(split, contexts, workers)
        self.augment, self.flip, self.seed = augment, flip, seed
        self.known_labels = split.labels if class_sizes else None
        self.mixup, self.teacher = mixup, teacher
        self.mix = Mixup()
        self.mix.hybridize(static_alloc=True)
        if batch_size > len(split):
            raise UserError(f'--batch-size: a step takes {batch_size} images on '
                            f'{len(contexts) * workers.size} device(s), and the training set has '
                            f'only {len(split)}')
        self.batch_size = batch_size

    @property
    def steps_per_epoch(self):
        """Full batches only: the last, shorter one is left out, as each epoch shuffles anew."""
        return self.count // self.batch_size

    def batches(self, epoch, first_step=0):
        """Yield, step by step, a list of [augmented images, labels, ...], one list a context.

        Order and augmentation depend on seed and epoch alone; each worker gets its share of every
        batch.
        """
        rng = np.random.default_rng([self.seed, epoch])
        used = self.steps_per_epoch * self.batch_size
        order = rng.permutation(self.count)[:used]
        flips = draw_flips(self.flip, rng, epoch, order, self.seed)
        draws = self.augment.draw(rng, flips)
        weights = [nd.array(rng.beta(self.mixup, self.mixup, self.steps_per_epoch), ctx=context)
                   for context in self.contexts] if self.mixup else None
        epoch_arrays = [nd.array(order, dtype='int32')]
        if self.known_labels is not None:
            classes = self.known_labels[order].astype(np.int64)
            classes += np.arange(used) // self.batch_size * (classes.max() + 1)  # apart, by step
            epoch_arrays.append(nd.array(np.bincount(classes)[classes]))
        epoch_arrays += [nd.array(draws)] if draws is not None else []
        share = self.workers.share(self.batch_size)
        for step in range(first_step, self.steps_per_epoch):
            here = slice(step * self.batch_size + share.start, step * self.batch_size + share.stop)
            parts = [gluon.utils.split_and_load(array[here], self.contexts, even_split=False)
                     for array in epoch_arrays]
            sizes = [[size] for size in parts.pop(1)] if self.known_labels is not None else \
                [[]] * len(self.contexts)
            batch = [[self.augment(nd.take(images, index), *draw), nd.take(labels, index), *size]
                     for images, labels, size, index, *draw in
                     zip(self.images, self.labels, sizes, *parts)]
            if weights:
                for part, weight in zip(batch, weights):
                    part[0] = self.mix(part[0], weight[step:step + 1])
                    part.append(weight[step:step + 1])
            if self.teacher is not None:
                for part in batch:
                    part.append(self.teacher(part[0]))
            yield batch


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; a second one acts as usual."""

    def __init__(self):
        self.signal = None

    def agree(self, workers):
        """Whether any worker is to stop; all must ask, and all get the same answer."""
        if workers.sum([self.signal is not None])[0] and self.signal is None:
            self.signal = signal.SIGINT
        return self.signal is not None

    @contextmanager
    def listening(self):
        def request(number, _):
            self.signal = number
            for previous_number, handler in previous.items():
                signal.signal(previous_number, handler)

        previous = {number: signal.signal(number, request)
                    for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def train_epoch(graph, data, trainers, epoch, first_step, totals, on_step, stop, loss_scale=1.0,
                description=''):
    """Train on what is left of one epoch; return an EpochResult.

    Parameters
    ----------
    graph : block
        What a batch holds to (loss per sample, statistics), one of training.graphs.
    data : TrainingData
    trainers : list of gluon.Trainer
    epoch, first_step : int
        Where to start.
    totals : (float, float)
        Summed loss and right predictions of the epoch's earlier steps, over all workers.
    on_step : callable
        Called with the global step before it runs; sets learning rate and margin.
    stop : StopRequest
        Ends the epoch after the current step; with several workers, all at the same one.
    loss_scale : float
        The loss is multiplied by it before backward, the gradients divided by it.
    description : str
        Left end of the progress bar.
    """
    started = time.perf_counter()
    workers = data.workers
    sums = [nd.zeros((2,), ctx=ctx) for ctx in data.contexts]
    if workers.is_chief:
        sums[0][:] = nd.array(totals)
    in_flight = deque()
    step = first_step
    with tqdm(total=data.steps_per_epoch * data.batch_size, initial=first_step * data.batch_size,
              desc=description, unit=' images', disable=None if workers.is_chief else True,
              leave=False) as bar:
        for batch in data.batches(epoch, first_step):
            on_step(epoch * data.steps_per_epoch + step)
            with autograd.record():
                outputs = [graph(*part) for part in batch]
                losses = [loss * loss_scale if loss_scale != 1 else loss for loss, _ in outputs]
            autograd.backward(losses)
            for trainer in trainers:
                trainer.step(data.batch_size * loss_scale)
            for total, (_, statistics) in zip(sums, outputs):
                total += statistics
            step += 1
            in_flight.append(outputs[-1][0])
            if len(in_flight) > STEPS_IN_FLIGHT:
                in_flight.popleft().wait_to_read()
            bar.update(data.batch_size)
            if workers.stop_requested(stop.signal is not None):
                break
    workers.end_steps()
    stop.agree(workers)
    totals = np.sum([total.asnumpy() for total in sums], axis=0)
    # Asynchronous workers may have stopped at different steps: the chief's counts.
    *totals, step = workers.sum([*totals, step * workers.is_chief]).tolist()
    step = int(step)
    nd.waitall()
    seen = step * data.batch_size
    return EpochResult(step, totals, totals[0] / seen, totals[1] / seen,
                       (step - first_step) * data.batch_size, time.perf_counter() - started)


def average_statistics(graph, data):
    """Give every device of every worker the mean of their BatchNorm statistics.

    Each device has seen other images of the same steps. Running means and variances are sums, so
    they may be averaged at any time without changing what they come to in the end.
    """
    running = [parameter for name, parameter in graph._collect_params_with_prefix().items()
               if name.endswith(('running_mean', 'running_var'))]
    devices = len(data.contexts) * data.workers.size
    if devices == 1 or not running:
        return
    here = np.sum([np.concatenate([array.asnumpy() for array in arrays]) for arrays in
                   zip(*(parameter.list_data() for parameter in running))], axis=0)
    ends = np.cumsum([parameter.shape[0] for parameter in running])[:-1]
    for parameter, mean in zip(running, np.split(data.workers.sum(here) / devices, ends)):
        parameter.set_data(nd.array(mean))


def evaluate(classifier, normalise, data, tell_label=False):
    """Top-1 accuracy over a DeviceData; one host read, at the end.

    Parameters
    ----------
    classifier : block
        Normalised images to logits, or to several of them.
    normalise : block
    data : DeviceData
    tell_label : bool
        Give the classifier the labels too: for training.classifiers.LabelledClassifier.

    Returns
    -------
    list of float
        One accuracy for each of the classifier's outputs.
    """
    right = [0.0] * len(data.contexts)
    in_flight = deque()
    share = data.workers.share(data.count)
    for number, start in enumerate(range(share.start, share.stop, EVALUATION_BATCH)):
        device = number % len(data.contexts)
        here = slice(start, min(start + EVALUATION_BATCH, share.stop))
        labels = data.labels[device][here].astype('float32')
        told = (labels,) if tell_label else ()
        outputs = classifier(normalise(data.images[device][here]), *told)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        hits = [(logits.argmax(axis=1) == labels).sum() for logits in outputs]
        right[device] = right[device] + nd.concat(*hits, dim=0)
        in_flight.append(outputs[0])
        if len(in_flight) > STEPS_IN_FLIGHT:
            in_flight.popleft().wait_to_read()
    totals = sum(count.asnumpy() for count in right if isinstance(count, nd.NDArray))
    return [float(total) / data.count for total in data.workers.sum(totals)]


def extract(net, normalise, data, count=None):
    """Features and labels of the first `count` images of a DeviceData, as NumPy arrays.

    Parameters
    ----------
    net : callable
        Normalised images to features (B, D).
    normalise : block
    data : DeviceData
    count : int or None
        None takes all.

    Returns
    -------
    (array (N, D), array (N,))
    """
    count = min(count or data.count, data.count)
    parts = [net(normalise(data.images[0][start:min(start + EVALUATION_BATCH, count)]))
             for start in range(0, count, EVALUATION_BATCH)]
    return np.concatenate([part.asnumpy() for part in parts]), data.labels[0][:count].asnumpy()
