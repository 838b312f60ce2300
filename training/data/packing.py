"""Image files packed into RecordIO at a small size, once: every epoch then reads one file.

Beside NAME.rec and NAME.idx, which MXNet's own readers take too, NAME.json holds what was packed.
While packing, files end in .part; a packing that was interrupted goes on where it stopped.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Optional

from boltons.fileutils import atomic_save
from boltons.iterutils import chunked
from filelock import FileLock
from mxnet import recordio
from tqdm import tqdm

from training.data.folders import Listing, as_text, list_of_some
from training.data.pictures import PictureError, open_picture
from training.data.record_file import framed
from training.data.records import Records, packed_records
from training.errors import UserError, unwinding
from training.machine.devices import usable_cores

QUALITY = 95
AT_ONCE = 64  # images that are encoded before they are written
CONTENT = 16  # hexadecimal digits of a file's digest


@dataclass
class Packed:
    """An image file as a JPEG of its small form, or the reason why there is none."""

    jpeg: Optional[bytes]
    content: str = ''  # digest of the file
    problem: str = ''


def pack(listing: Listing, path: Path, short_side: int, strict: bool, again: bool) -> Records:
    """The images of a listing as Records, packed now if they are not yet.

    Parameters
    ----------
    listing : training.data.folders.Listing
    path : Path
        Of the .rec file.
    short_side : int
        Larger images are reduced to it.
    strict : bool
        Whether a file that cannot be read is an error; otherwise it is named and left out.
    again : bool
        Whether to pack anew what was packed of other files.

    Raises
    ------
    UserError
        If the file cannot be written, no image can be read, or it was packed of other files.
    """
    wanted = {'short_side': short_side, 'names': listing.names, 'files': listing.fingerprint()}
    facts_file = path.with_suffix('.json')
    if not _read_json(facts_file):
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix('.lock')), unwinding():
                if not _read_json(facts_file):  # another worker may have packed it meanwhile
                    _pack(listing, path, wanted)
    facts = _read_json(facts_file)
    change = _difference(facts, wanted)
    if change:
        if not again:
            raise UserError(
                f'{path}: was packed of other images than {listing.root} has now ({change}); pack '
                'anew with --repack, or choose another --pack-dir'
            )
        with _writing(path):
            facts_file.unlink()
        return pack(listing, path, short_side, strict, False)
    problems = [f'{listing.root / name}: {reason}' for name, reason in facts['problems'].items()]
    if problems and strict:
        raise UserError(f'--strict: {len(problems)} files cannot be read: {list_of_some(problems)}')
    for problem in problems:
        print(as_text(problem), file=sys.stderr)
    if problems:
        print(
            f'{listing.root}: {len(problems)} of {len(listing.files)} files left out, as they cannot be read'
        )
    if len(problems) == len(listing.files):
        raise UserError(f'{listing.root}: none of its {len(problems)} image files can be read')
    return packed_records(path, facts)


def _pack(listing: Listing, path: Path, wanted: dict[str, Any]) -> None:
    """Write .rec, .idx and .json, in this order under their own names, from what is done already."""
    part, log = path.with_suffix('.rec.part'), path.with_suffix('.log.part')
    done, size = _done(log, part, wanted)
    with (
        open(part, 'ab') as records,
        open(log, 'a') as lines,
        ThreadPoolExecutor(usable_cores()) as pool,
        tqdm(total=len(listing.files), initial=len(done), desc=f'packing {listing.root}', unit=' images',
             disable=None, leave=False) as bar,
    ):  # fmt: skip
        records.truncate(size)
        if not done:
            lines.write(json.dumps(wanted) + '\n')
        for chunk in chunked(list(enumerate(listing.files))[len(done) :], AT_ONCE):
            small = pool.map(lambda item: _small(listing.root / item[1][0], wanted['short_side']), chunk)
            for (number, (_, label)), image in zip(chunk, small):
                offset = records.tell()
                if image.jpeg:
                    records.write(framed(recordio.pack(recordio.IRHeader(0, label, number, 0), image.jpeg)))
                done.append([number, offset, records.tell(), label, image.content, image.problem])
            records.flush()
            lines.writelines(json.dumps(row) + '\n' for row in done[-len(chunk) :])
            lines.flush()
            bar.update(len(chunk))
    good = [row for row in done if not row[5]]
    facts = {
        **wanted,
        'size': part.stat().st_size,
        'rows': [row[:5] for row in good],
        'problems': {listing.files[row[0]][0]: row[5] for row in done if row[5]},
    }
    os.replace(part, path)
    with atomic_save(str(path.with_suffix('.idx')), text_mode=True, overwrite_part=True) as file:
        file.writelines(f'{row[0]}\t{row[1]}\n' for row in good)
    with atomic_save(str(path.with_suffix('.json')), text_mode=True, overwrite_part=True) as file:
        json.dump(facts, file)
    log.unlink()


def _done(log: Path, part: Path, wanted: dict[str, Any]) -> tuple[list[list], int]:
    """Rows of the files that an interrupted packing has written, and how many bytes they take."""
    rows: list[list] = []
    if log.exists() and part.exists():
        try:
            first, *rest = [json.loads(line) for line in log.read_text().splitlines(keepends=True)
                            if line.endswith('\n')]  # fmt: skip
            if first == wanted:
                length = part.stat().st_size
                rows = [row for row in rest if row[2] <= length]
                print(f'{part}: {len(rows)} images are packed already')
        except (ValueError, LookupError, TypeError):
            rows = []
    if not rows:
        log.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
    return rows, rows[-1][2] if rows else 0


def _small(path: Path, short_side: int) -> Packed:
    try:
        buffer = BytesIO()
        open_picture(path, short_side=short_side).save(buffer, 'JPEG', quality=QUALITY)
        return Packed(buffer.getvalue(), hashlib.sha1(path.read_bytes()).hexdigest()[:CONTENT])
    except PictureError as error:
        return Packed(None, problem=str(error))


def _difference(facts: dict[str, Any], wanted: dict[str, Any]) -> str:
    """How two lists of packed files differ, in words; '' if not."""
    if facts['short_side'] != wanted['short_side']:
        return f'at a short side of {facts["short_side"]}, not {wanted["short_side"]}'
    before, now = ({tuple(row) for row in part['files']} for part in (facts, wanted))
    changed = sorted({row[0] for row in before ^ now})
    if changed:
        return f'changed: {as_text(list_of_some(changed))}'
    return '' if facts['names'] == wanted['names'] else 'other classes'


def _read_json(path: Path) -> dict[str, Any]:
    """What `pack` wrote; {} if there is none or it is damaged."""
    try:
        facts = json.loads(path.read_text())
        whole = path.with_suffix('.rec').stat().st_size == facts['size']
        return facts if whole and path.with_suffix('.idx').exists() else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f'{path}: cannot be packed ({error.strerror or error}); choose another --pack-dir, or make room '
            'and start again: it goes on where it stopped'
        ) from None
