"""Folders of images by class: which parts a data set has, and which files are in them."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from training.errors import UserError, naming

ENDINGS = {'.jpg', '.jpeg', '.png', '.bmp', '.gif', '.webp', '.tif', '.tiff'}
VALIDATION_NAMES = 'val', 'validation', 'test'  # the first one there is, is validated on


@dataclass
class Listing:
    """The image files of a folder with a subfolder for each class.

    Attributes
    ----------
    root : Path
    names : list of str
        Of the classes, sorted.
    files : list of (str, int)
        Path relative to root, and class.
    """

    root: Path
    names: list[str]
    files: list[tuple[str, int]]

    def fingerprint(self) -> list[list]:
        """[path, size, time of the last change in ns] of each file; UserError where one is gone."""
        rows = []
        for name, _ in self.files:
            with naming(self.root / name):
                status = (self.root / name).stat()
            rows.append([name, status.st_size, status.st_mtime_ns])
        return rows


def list_classes(root: Path, names: Optional[list[str]] = None) -> Listing:
    """The images of a folder of classes; says what is left out.

    Parameters
    ----------
    root : Path
    names : list of str or None
        The classes of the training set, if this is another part of it.
    """
    with naming(root):
        folders = {
            as_text(child.name): child
            for child in sorted(root.iterdir())
            if not child.name.startswith('.') and child.is_dir()
        }
        found = {name: [str(file.relative_to(root)) for file in image_files(folder)]
                 for name, folder in sorted(folders.items())}  # fmt: skip
    if names is None:
        require_classes(list(folders), root)
        empty = [name for name, files in found.items() if not files]
        if empty:
            print(f'{root}: no images in {list_of_some(empty)}; left out')
        names = [name for name, files in found.items() if files]
        require_classes(names, root)
    else:
        others = [name for name, files in found.items() if files and name not in names]
        if others:
            count = sum(len(found[name]) for name in others)
            print(f'{root}: {list_of_some(others)}: not among the training classes; {count} images left out')
        missing = [name for name in names if not found.get(name)]
        if len(missing) == len(names):
            raise UserError(f'{root}: has no images of the training classes ({list_of_some(names)})')
        if missing:
            print(f'{root}: no images of {list_of_some(missing)}, whose accuracy is not measured')
    return Listing(
        root, names, [(file, label) for label, name in enumerate(names) for file in found.get(name, ())]
    )


@dataclass
class Parts:
    """Where a data set's training images are, and its others by name, such as 'test'."""

    train: Path
    others: dict[str, Path]


def find_parts(data_dir: str) -> Parts:
    """The parts of a folder, which are folders of classes, or .rec files; or of a single .rec file."""
    root = Path(data_dir).expanduser()
    with naming(root):
        if root.is_file():
            if root.suffix != '.rec':
                raise UserError(f'{root}: expected a folder of images by class, or a .rec file')
            return Parts(root, {})
        if not root.is_dir():
            raise UserError(f'{root}: there is no such folder')
        for ending in '.rec', '':
            train = root / f'train{ending}'
            if train.is_file() if ending else train.is_dir():
                others = {name: root / f'{name}{ending}' for name in VALIDATION_NAMES}
                return Parts(train, {name: path for name, path in others.items() if path.exists()})
    return Parts(root, {})


def image_files(folder: Path) -> Iterator[Path]:
    """The image files below a folder, sorted; hidden ones and other files are left out.

    Links to folders are followed, each folder once. OSError where one cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise error

    seen = set()
    for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        here = os.path.realpath(parent)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in sorted(files):
            if not name.startswith('.') and Path(name).suffix.lower() in ENDINGS:
                yield Path(parent, name)


def as_text(name: object) -> str:
    """A file's name as text that can be printed and written: composed, undecodable bytes escaped."""
    return unicodedata.normalize('NFC', str(name).encode(errors='backslashreplace').decode())


def list_of_some(names: list[str], most: int = 3) -> str:
    """The first few of a list of names, and how many more there are."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def require_classes(names: list[str], path: object) -> None:
    """UserError unless there are at least two classes."""
    if len(names) < 2:
        got = f'only {names[0]}' if names else 'none'
        raise UserError(f'{path}: expected a folder of images for each of at least two classes, found {got}')
