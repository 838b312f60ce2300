"""RecordIO, the format of MXNet's .rec files, read in parts of a file that stays on the disk."""

import os
import struct
from pathlib import Path
from typing import Union

from training.errors import UserError

MAGIC, ALIGNMENT = struct.pack('<I', 0xCED7230A), 4
LENGTH_BITS = 29  # the bits above say whether a record is whole, or the first, a middle or the last part


class Content:
    """The bytes of a file by slices, each read when it is asked for; UserError if there are none.

    It is not mapped into memory, as pages of a mapped file count as memory of the process.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, 'rb')  # noqa: SIM115 closed with the object
        self._size = os.fstat(self._file.fileno()).st_size
        if not self._size:
            raise UserError(f'{path}: is empty')

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, here: slice) -> bytes:
        return os.pread(self._file.fileno(), here.stop - here.start, here.start)


def read_record(content: Union[bytes, Content], offset: int) -> bytes:
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


def read_label(content: Content, offset: int) -> float:
    """The first label of the record at an offset; ValueError where there is none, or it is cut."""
    head = content[offset : offset + 36]
    magic, word, labels, label = struct.unpack('<4sIIf', head[:16])
    if magic != MAGIC or offset + 8 + (word & (1 << LENGTH_BITS) - 1) > len(content):
        raise ValueError(f'no whole record at byte {offset}')
    return struct.unpack('<f', head[32:])[0] if labels else label  # several are behind the header


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
