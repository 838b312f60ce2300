"""Images in a RecordIO file, decoded, cropped and resized by threads while the net computes."""

import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Optional

import cv2
import numpy as np
from mxnet import nd, recordio
from mxnet.context import Context

from training.data.colours import Colours
from training.data.crops import centre_crop, middle_square, random_box, resized
from training.data.datasets import batch_size
from training.data.folders import as_text, list_of_some
from training.data.record_file import Content, read_label, read_record
from training.errors import UserError, naming
from training.machine.devices import usable_cores

MOST_CLASSES = 10**6
DIGESTED = 100  # records that tell a file from others
STEPS_AHEAD = 2  # that are decoded while one is computed


@dataclass
class Records:
    """Images in a .rec file: what training.data.datasets.Split takes for its images.

    Attributes
    ----------
    path : Path
    content : Content
        The file's bytes.
    offsets : int array (N,)
        Where each image's record begins.
    labels : int32 array (N,)
    files : array of str or None
        The files that they were packed from.
    digests : array of str or None
        Of these files' content.
    size : int
        Height and width in which images are given.
    smallest_area : float or None
        Share of an image that a random crop holds at least; None where nothing is random.
    colours : training.data.colours.Colours or None
        What training makes of the colours of a crop.
    """

    path: Path
    content: Content
    offsets: np.ndarray
    labels: np.ndarray
    files: Optional[np.ndarray] = None
    digests: Optional[np.ndarray] = None
    size: int = 224
    smallest_area: Optional[float] = None
    colours: Optional[Colours] = None

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), 3, self.size, self.size

    def __getitem__(self, index: Any) -> 'Records':
        parts = {name: getattr(self, name) for name in ('offsets', 'labels', 'files', 'digests')}
        return replace(self, **{name: part[index] for name, part in parts.items() if part is not None})

    def array(self, count: int) -> 'tuple[np.ndarray, np.ndarray]':
        """The middles of `count` images, uint8 (count, 3, size, size), chosen evenly; and their labels."""
        chosen = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)
        with ThreadPoolExecutor(usable_cores()) as pool:
            return np.stack(list(pool.map(self.centre, chosen))), self.labels[chosen]

    def update(self, digest: Any) -> None:
        """Feed what tells these images from others to a digest of hashlib.

        That is each file's own digest; or the places of the records, which tell their lengths, and some
        of them, as reading all takes minutes.
        """
        if self.digests is not None:
            digest.update('\n'.join(self.digests).encode())
        else:
            digest.update(self.offsets.tobytes())
            for offset in self.offsets[:: -(-len(self) // DIGESTED)]:
                digest.update(read_record(self.content, int(offset)))

    def name(self, number: int) -> str:
        """What to call an image: the file it was packed from, or its place among the records."""
        return f'record {number}' if self.files is None else as_text(self.files[number])

    def image(self, number: int) -> np.ndarray:
        """An image as it is stored: uint8 (height, width, 3), blue first."""
        try:
            _, jpeg = recordio.unpack(read_record(self.content, int(self.offsets[number])))
            image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        except (ValueError, struct.error, cv2.error):
            image = None
        if image is None:
            raise UserError(f'{self.path}: record {number} holds no image that can be read')
        return image

    def centre(self, number: int) -> np.ndarray:
        """The middle of an image, as validation sees it: uint8 (3, size, size), red first."""
        return planes(centre_crop(self.image(number), self.size))

    def crop(self, number: int, flip: bool, key: list[int], out: np.ndarray) -> None:
        """Write a random crop of an image, perhaps mirrored, normalised, to `out`.

        It depends on `key` alone, numbers that are a seed.

        Parameters
        ----------
        out : float32 array (3, size, size)
            Red first; of any size.
        """
        image, rng = self.image(number), Random(repr(key))  # numpy's takes ten times as long to make
        height, width = image.shape[:2]
        if self.smallest_area is None:
            box, flip = middle_square(height, width), False
        else:
            box = random_box(height, width, self.smallest_area, rng)
        small = resized(image, box, out.shape[-1])
        self.colours.put(cv2.flip(small, 1) if flip else small, rng, out)


def open_records(path: Path, names: Optional[list[str]] = None) -> tuple[Records, list[str]]:
    """A .rec file with the .idx beside it, as im2rec writes them, and the names of its classes.

    Parameters
    ----------
    path : Path
    names : list of str or None
        The classes of the training set. None: those in classes.txt beside it, a line each, or the
        numbers that occur.

    Raises
    ------
    UserError
        If a file is missing, cut or damaged, or a label is no class.
    """
    index = path.with_suffix('.idx')
    with naming(path):
        if not index.is_file():
            raise UserError(f"{path}: has no {index.name} beside it; write one with MXNet's tools/rec2idx.py")
        content = Content(path)
        lines = index.read_text(errors='replace').split('\n')
    try:
        offsets = np.array([int(line.split('\t')[1]) for line in lines if line], np.int64)
        labels = np.array([read_label(content, int(offset)) for offset in offsets])
    except (ValueError, LookupError, struct.error) as error:
        raise UserError(f'{path}: cut or damaged, or {index.name} is of another file ({error})') from None
    if not len(labels):
        raise UserError(f'{path}: has no images')
    listed = path.with_name('classes.txt')
    if names is None and listed.is_file():
        with naming(listed):
            names = listed.read_text(encoding='utf-8').split('\n')
        names = [name.strip() for name in names if name.strip()]
    count = len(names) if names else MOST_CLASSES
    wrong = sorted(set(labels[~((labels >= 0) & (labels < count) & (labels == np.floor(labels)))]))
    if wrong:
        raise UserError(
            f'{path}: labels must be whole numbers from 0 to {count - 1}, and there are '
            + list_of_some([f'{label:g}' for label in wrong])
        )
    labels = labels.astype(np.int32)
    return Records(path, content, offsets, labels), names or list(map(str, range(labels.max() + 1)))


def packed_records(path: Path, facts: dict[str, Any]) -> Records:
    """The file that training.data.packing has written, with what it noted of it."""
    numbers, offsets, _, labels, digests = zip(*facts['rows'])
    with naming(path):
        content = Content(path)
    files = np.array([facts['files'][number][0] for number in numbers], object)
    return Records(
        path,
        content,
        np.array(offsets, np.int64),
        np.array(labels, np.int32),
        files,
        np.array(digests, object),
    )


def planes(image: np.ndarray) -> np.ndarray:
    """(height, width, 3), blue first, as (3, height, width), red first."""
    return image[:, :, ::-1].transpose(2, 0, 1)


class Streamed:
    """The images of Records for every context, decoded when they are needed.

    See training.data.batches.Resident, which has the same methods.
    """

    def __init__(self, records: Records, contexts: list[Context]) -> None:
        self.records, self.contexts = records, contexts
        self.batch = batch_size(records.shape[1:])
        cv2.setNumThreads(0)  # an image is too small to be shared by threads
        self._pool = ThreadPoolExecutor(usable_cores(), thread_name_prefix='decode')

    def part(self, device: int, here: slice) -> Any:
        """The middle of some images, uint8 (B, 3, size, size), on a context."""
        images = list(self._pool.map(self.records.centre, range(*here.indices(len(self.records)))))
        return nd.array(np.stack(images), ctx=self.contexts[device], dtype='uint8')

    def steps(
        self, order: np.ndarray, flips: np.ndarray, key: list[int], places: list[list[slice]], size: int
    ) -> Iterator[list[Any]]:
        """Random crops of the images of each step, of a size, normalised: an array on each context."""
        waiting: deque = deque()
        coming = iter(places)
        try:
            while True:
                while len(waiting) <= STEPS_AHEAD and (step := next(coming, None)) is not None:
                    waiting.append([self._begin(order, flips, key, device, size) for device in step])
                if not waiting:
                    return
                parts = []
                for context, (images, work) in zip(self.contexts, waiting.popleft()):
                    for item in work:
                        item.result()
                    parts.append(nd.array(images, ctx=context))
                yield parts
        finally:  # asked to stop within the epoch
            for item in (item for step in waiting for _, work in step for item in work):
                item.cancel()

    def _begin(
        self, order: np.ndarray, flips: np.ndarray, key: list[int], here: slice, size: int
    ) -> tuple[np.ndarray, list[Future]]:
        """An array of crops, and the work that is still to fill it."""
        places = range(here.start, here.stop)
        images = np.empty((len(places), 3, size, size), np.float32)
        work = [
            self._pool.submit(self.records.crop, int(order[place]), bool(flips[place]), [*key, place], out)
            for place, out in zip(places, images)
        ]
        return images, work
