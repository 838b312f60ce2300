"""Whole splits on the devices, and the shuffled, augmented batches that come from them."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Callable, Optional

import numpy as np
from mxnet import nd
from mxnet.context import Context
from mxnet.gluon import HybridBlock

from training.data.augment import draw_flips
from training.data.datasets import Split, batch_size
from training.data.hard_examples import HardExamples
from training.data.mixup import Mixup
from training.data.records import Records, Streamed
from training.data.resample import Downscale
from training.errors import UserError
from training.machine.cluster import Workers


class Resident:
    """Images as whole uint8 arrays (N, channels, H, W) on every context.

    Attributes
    ----------
    batch : int
        How many are looked at together outside of the training.
    """

    def __init__(self, images: np.ndarray, contexts: list[Context]) -> None:
        self.batch = batch_size(images.shape[1:])
        self.arrays = [nd.array(images, ctx=ctx, dtype='uint8') for ctx in contexts]

    def part(self, device: int, here: slice) -> nd.NDArray:
        """Some of the images, as they are, on the context of this number."""
        return self.arrays[device][here]

    def steps(
        self, order: np.ndarray, flips: np.ndarray, key: list[int], places: list[list[slice]], size: int
    ) -> Iterator[list[nd.NDArray]]:
        """The images of each training step: a list of arrays, one on each context.

        Parameters
        ----------
        order : int array (count,)
            Numbers of the images, in their order of use.
        flips : array of 0 and 1, shape (count,)
            Which to mirror, where that is not left to the augmentation.
        key : list of int
            Seed of what is random in an image, beside its place.
        places : list of list of slice
            Of each step, which of the order each context gets.
        size : int
            Height and width at which training sees them; these are of full size, to be reduced later.
        """
        index = [nd.array(order, ctx=array.context, dtype='int32') for array in self.arrays]
        for step in places:
            yield [nd.take(array, index[device][here])
                   for device, (array, here) in enumerate(zip(self.arrays, step))]  # fmt: skip


class DeviceData:
    """A split for every context: images uint8, held there or decoded when needed; labels int32.

    Parameters
    ----------
    split : training.data.datasets.Split
    contexts : list of Context
    workers : training.machine.cluster.Workers
        Who shares the work on it.

    Raises
    ------
    UserError
        If there are fewer images than workers.
    """

    def __init__(self, split: Split, contexts: list[Context], workers: Workers = Workers()) -> None:
        if len(split) < workers.size:
            raise UserError(f'{len(split)} images cannot be shared by {workers.size} workers')
        self.count, self.contexts, self.workers = len(split), contexts, workers
        self.full_size = split.images.shape[-1]
        self.images: Any
        if isinstance(split.images, Records):
            self.images = Streamed(split.images, contexts)
        else:
            self.images = Resident(split.images, contexts)
        self.labels = [nd.array(split.labels, ctx=ctx, dtype='int32') for ctx in contexts]
        self._smaller: dict[int, Downscale] = {}

    def downscale(self, size: int) -> Downscale:
        """The block that reduces images of full size, on every context."""
        if size not in self._smaller:
            block = self._smaller[size] = Downscale(size, self.full_size)
            block.initialize(ctx=self.contexts)
            block.hybridize(static_alloc=True)
        return self._smaller[size]


class TrainingData(DeviceData):
    """A split that comes in shuffled, augmented batches.

    Parameters
    ----------
    split, contexts, workers
        As in :class:`DeviceData`.
    augment : block of training.data.augment
    flip : {'random', 'alternating'}
        As in training.data.augment.draw_flips.
    batch_size : int
        Images a step over all contexts of all workers.
    seed : int
    mixup : float, default 0
        If not 0, images are mixed with weights from Beta(mixup, mixup), and each pair is followed
        by its weight, shape (1,).
    teacher : block or None
        If given, its logits for the images come last in each pair; those in memory it sees at full size.
    class_sizes : bool, default False
        Whether each pair is followed by how many images of the step, over all devices, are of the
        same class as each image, (B,).
    resolutions : list of (int, float), default ()
        Image sizes and for how many epochs each; the last one stays. Empty: full size.
    hard_examples : training.data.hard_examples.HardExamples or None
        Decides which images come twice. It must be told all losses: `record_losses`, `end_epoch`.

    Raises
    ------
    UserError
        If the split does not fill one batch.
    """

    def __init__(
        self,
        split: Split,
        contexts: list[Context],
        augment: HybridBlock,
        flip: str,
        batch_size: int,
        seed: int,
        mixup: float = 0.0,
        teacher: Optional[Callable] = None,
        class_sizes: bool = False,
        workers: Workers = Workers(),
        resolutions: Sequence[tuple[int, float]] = (),
        hard_examples: Optional[HardExamples] = None,
    ) -> None:
        super().__init__(split, contexts, workers)
        self.resolutions = resolutions
        self.augment, self.flip, self.seed = augment, flip, seed
        self.known_labels = split.labels if class_sizes else None
        self.mixup, self.teacher, self.hard_examples = mixup, teacher, hard_examples
        self.mix = Mixup()
        self.mix.hybridize(static_alloc=True)
        if batch_size > len(split):
            raise UserError(
                f'--batch-size: a step takes {batch_size} images on '
                f'{len(contexts) * workers.size} device(s), and the training set has '
                f'only {len(split)}'
            )
        self.batch_size = batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Full batches only: the last, shorter one is left out, as each epoch shuffles anew."""
        return self.count // self.batch_size

    def image_size(self, epoch: int) -> int:
        """Height and width of the images of an epoch, counted from 0.

        Sizes change between epochs: an epoch of which two have a share is at the later, so that the
        last epoch of a run is at the last size.
        """
        if not self.resolutions:
            return self.full_size
        ends = np.cumsum([epochs for _, epochs in self.resolutions[:-1]])
        return self.resolutions[int(np.sum(epoch + 1 > ends + 1e-6))][0]

    def validation_size(self, epoch: int) -> int:
        """At which to validate after an epoch: its own size until the last one comes, then full size.

        A net that has only seen small images does badly on large ones.
        """
        size = self.image_size(epoch)
        return size if self.resolutions and size != self.resolutions[-1][0] else self.full_size

    def work(self, size: int) -> float:
        """What an image of a size takes, relative to one at full size: roughly, as measured on a CPU.

        Less than the square, because convolutions of small images reach fewer operations a second.
        """
        return (size / self.full_size) ** 1.7

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[list]:
        """Yield, step by step, a list of [augmented images, labels, ...], one list a context.

        Order and augmentation depend on seed, epoch and, with hard examples, losses of earlier epochs
        alone; each worker gets its share of every batch.
        """
        rng = np.random.default_rng([self.seed, epoch])
        used = self.steps_per_epoch * self.batch_size
        order = self.hard_examples.order(rng, epoch) if self.hard_examples else rng.permutation(self.count)
        order = self._order = order[:used]
        flips = draw_flips(self.flip, rng, epoch, order, self.seed)
        draws = self.augment.draw(rng, flips)
        arrays: Any = {'index': order.astype(np.int32)}
        if draws is not None:
            arrays['draws'] = draws
        if self.known_labels is not None:
            classes = self.known_labels[order].astype(np.int64)
            classes += np.arange(used) // self.batch_size * (classes.max() + 1)  # apart, by step
            arrays['size'] = np.bincount(classes)[classes].astype(np.float32)
        # All of the epoch goes to the devices at once; a step copies nothing.
        arrays = [
            {name: nd.array(array, ctx=context, dtype=array.dtype) for name, array in arrays.items()}
            for context in self.contexts
        ]
        weights = None
        if self.mixup:
            drawn = rng.beta(self.mixup, self.mixup, self.steps_per_epoch)
            weights = [nd.array(drawn, ctx=context) for context in self.contexts]
        share = self.workers.share(self.batch_size)
        size = self.image_size(epoch)
        is_reduced = size != self.full_size and isinstance(self.images, Resident)  # others come reduced
        downscale = self.downscale(size) if is_reduced else None
        ends = np.ceil(np.linspace(share.start, share.stop, len(self.contexts) + 1)).astype(int)
        steps = range(first_step, self.steps_per_epoch)
        places = [
            [slice(step * self.batch_size + a, step * self.batch_size + b) for a, b in zip(ends, ends[1:])]
            for step in steps
        ]
        images = self.images.steps(order, flips, [self.seed, epoch], places, size)
        with closing(images):
            for step, here, pictures in zip(steps, places, images):
                yield [
                    self._part(
                        device,
                        pictures[device],
                        downscale,
                        weights and weights[device][step : step + 1],
                        **{name: array[here[device]] for name, array in arrays[device].items()},
                    )
                    for device in range(len(self.contexts))
                ]

    def record_losses(self, first_step: int, losses: list[list[nd.NDArray]]) -> None:
        """Note the losses of an epoch's images for its hard examples; every worker must call it.

        Parameters
        ----------
        first_step : int
            Step of the first losses.
        losses : list of list of NDArray
            Of each step, one array on each context.
        """
        if not self.hard_examples:
            return
        share, found = self.workers.share(self.batch_size), np.zeros(self.count, np.float32)
        for step, parts in enumerate(losses, first_step):
            places = slice(step * self.batch_size + share.start, step * self.batch_size + share.stop)
            found[places] = np.concatenate([part.asnumpy() for part in parts])
        self.hard_examples.running += self.workers.sum(found)

    def end_epoch(self) -> None:
        """Say that all steps of an epoch are done and their losses recorded."""
        if self.hard_examples:
            self.hard_examples.end_epoch(self._order)

    def _part(
        self,
        device: int,
        images: Any,
        downscale: Optional[Downscale],
        weight: Any,
        index: Any,
        draws: Any = None,
        size: Any = None,
    ) -> list:
        """What the graph takes of a batch on one device: a list of arrays."""
        images = self.augment(images) if draws is None else self.augment(images, draws)
        rest = [nd.take(self.labels[device], index)]
        if size is not None:
            rest.append(size)
        if weight is not None:
            images = self.mix(images, weight)
            rest.append(weight)
        if self.teacher is not None:
            rest.append(self.teacher(images))
        return [images if downscale is None else downscale(images), *rest]
