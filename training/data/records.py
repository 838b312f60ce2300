"""Images in a RecordIO file, decoded, cropped and resized by threads while the net computes."""

import mmap
import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
from mxnet import nd, recordio
from mxnet.context import Context

from training.data.crops import centre_crop, random_box, resized
from training.data.datasets import batch_size
from training.data.folders import as_text, list_of_some
from training.errors import UserError, naming
from training.machine.devices import usable_cores

MAGIC, ALIGNMENT = struct.pack('<I', 0xCED7230A), 4
LENGTH_BITS = (
    29  # the three bits above say whether a record is whole, or the first, a middle or the last part
)
MOST_CLASSES = 10**6
STEPS_AHEAD = 2  # that are decoded while one is computed


@dataclass
class Records:
    """Images in a .rec file: what training.data.datasets.Split takes for its images.

    Attributes
    ----------
    path : Path
    content : mmap
        The whole file, of which the system keeps in memory what it has room for.
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
    """

    path: Path
    content: Any
    offsets: np.ndarray
    labels: np.ndarray
    files: Optional[np.ndarray] = None
    digests: Optional[np.ndarray] = None
    size: int = 224
    smallest_area: Optional[float] = None

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
        """Feed the images' content to a digest of hashlib."""
        if self.digests is not None:
            digest.update('\n'.join(self.digests).encode())
        else:
            for offset in self.offsets:
                digest.update(read_record(self.content, int(offset)))

    def name(self, number: int) -> str:
        """What to call an image: the file it was packed from, or its place among the records."""
        return f'record {number}' if self.files is None else as_text(self.files[number])

    def image(self, number: int) -> np.ndarray:
        """An image as it is stored: uint8 (height, width, 3), blue first."""
        _, jpeg = recordio.unpack(read_record(self.content, int(self.offsets[number])))
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise UserError(f'{self.path}: record {number} holds no image that can be read')
        return image

    def centre(self, number: int) -> np.ndarray:
        """The middle of an image, as validation sees it: uint8 (3, size, size), red first."""
        return planes(centre_crop(self.image(number), self.size))

    def crop(self, number: int, flip: bool, key: list[int]) -> np.ndarray:
        """A random crop of an image, perhaps mirrored: uint8 (3, size, size), red first.

        It depends on `key` alone, numbers that are a seed.
        """
        if self.smallest_area is None:
            return self.centre(number)
        image = self.image(number)
        height, width = image.shape[:2]
        box = random_box(height, width, self.smallest_area, np.random.default_rng(key))
        return planes(resized(image[:, ::-1] if flip else image, box, self.size))


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
        content = _mapped(path)
        lines = index.read_text(errors='replace').split('\n')
    try:
        offsets = np.array([int(line.split('\t')[1]) for line in lines if line], np.int64)
        headers = [recordio.unpack(read_record(content, int(offset)))[0] for offset in offsets]
        labels = np.array([np.ravel(header.label)[0] for header in headers])
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
        content = _mapped(path)
    files = np.array([facts['files'][number][0] for number in numbers], object)
    return Records(
        path,
        content,
        np.array(offsets, np.int64),
        np.array(labels, np.int32),
        files,
        np.array(digests, object),
    )


def _mapped(path: Path) -> Any:
    with open(path, 'rb') as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # of a length of 0
            raise UserError(f'{path}: is empty') from None


def read_record(content: Any, offset: int) -> bytes:
    """The record at an offset; ValueError where there is none, or it is cut."""
    parts = []
    while True:
        head = content[offset : offset + 8]
        if len(head) < 8 or head[:4] != MAGIC:
            raise ValueError(f'no record at byte {offset}')
        (word,) = struct.unpack('<I', head[4:])
        kind, length = word >> LENGTH_BITS, word & (1 << LENGTH_BITS) - 1
        part = content[offset + 8 : offset + 8 + length]
        if len(part) < length:
            raise ValueError(f'the record at byte {offset} is cut')
        parts.append(part)
        if kind in (0, 3):
            return MAGIC.join(parts)
        offset += 8 + length + -length % ALIGNMENT


def framed(content: bytes) -> bytes:
    """A record as MXNet writes it: in parts where the magic number occurs at a multiple of 4 bytes."""
    cuts, place = [], content.find(MAGIC)
    while place >= 0:
        cuts += [place] if place % ALIGNMENT == 0 else []
        place = content.find(MAGIC, place + (ALIGNMENT if place % ALIGNMENT == 0 else 1))
    starts, ends = [0, *(cut + len(MAGIC) for cut in cuts)], [*cuts, len(content)]
    kinds = [1, *[2] * (len(cuts) - 1), 3] if cuts else [0]
    parts = []
    for kind, start, end in zip(kinds, starts, ends):
        head = struct.pack('<I', kind << LENGTH_BITS | end - start)
        parts += [MAGIC, head, content[start:end], bytes((start - end) % ALIGNMENT)]
    return b''.join(parts)


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
        self, order: np.ndarray, flips: np.ndarray, key: list[int], places: list[list[slice]]
    ) -> Iterator[list[Any]]:
        """Random crops of the images of each step, a list of arrays, one on each context."""
        waiting: deque = deque()
        coming = iter(places)
        try:
            while True:
                while len(waiting) <= STEPS_AHEAD and (step := next(coming, None)) is not None:
                    waiting.append([
                        [
                            self._pool.submit(
                                self.records.crop, int(order[place]), bool(flips[place]), [*key, place]
                            )
                            for place in range(device.start, device.stop)
                        ]
                        for device in step
                    ])  # fmt: skip
                if not waiting:
                    return
                yield [
                    nd.array(np.stack([image.result() for image in images]), ctx=context, dtype='uint8')
                    for context, images in zip(self.contexts, waiting.popleft())
                ]
        finally:  # asked to stop within the epoch
            for images in (part for step in waiting for part in step):
                for image in images:
                    image.cancel()
