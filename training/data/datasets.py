"""Image data sets as arrays: one uint8 array and one label array per split."""

import hashlib
import math
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from training.data import download, sources
from training.errors import UserError

CLASSES = {'cifar10': 10, 'cifar100': 100, 'mnist': 10, 'fashion': 10, 'idx': 10}
IMAGE_SHAPES = {
    'cifar10': (3, 32, 32),
    'cifar100': (3, 32, 32),
    'mnist': (1, 28, 28),
    'fashion': (1, 28, 28),
    'idx': (1, 28, 28),
}
TITLES = {
    'cifar10': 'CIFAR-10',
    'cifar100': 'CIFAR-100',
    'mnist': 'MNIST',
    'fashion': 'Fashion-MNIST',
    'idx': 'Digits of your own',
}
CLASS_NAMES = {
    'cifar10': ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'),
    'cifar100': tuple(map(str, range(100))),
    'mnist': tuple('0123456789'),
    'idx': tuple('0123456789'),
    'fashion': (
        't-shirt',
        'trouser',
        'pullover',
        'dress',
        'coat',
        'sandal',
        'shirt',
        'sneaker',
        'bag',
        'ankle boot',
    ),
}
HOLDOUT_SEED = 20180613  # fixed, so that every run holds out the same images


@dataclass
class Split:
    """images: uint8 (N, channels, height, width), or training.data.records.Records; labels: int32 (N,)."""

    images: Any
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: Any) -> 'Split':
        return Split(self.images[index], self.labels[index])


def digest(*splits: Split) -> str:
    """A digest of the images and labels of splits: equal for equal content, wherever it is kept."""
    content = hashlib.sha256()
    for split in splits:
        content.update(repr(split.images.shape).encode())
        if isinstance(split.images, np.ndarray):
            content.update(np.ascontiguousarray(split.images).data)
        else:
            split.images.update(content)
        content.update(np.ascontiguousarray(split.labels).data)
    return content.hexdigest()


@dataclass(frozen=True)
class Facts:
    """What nets and pages need to know of a data set: its title, images (channels, H, W) and classes."""

    title: str
    shape: tuple[int, int, int]
    names: tuple[str, ...]


def facts(settings: Any) -> Facts:
    """The Facts of a training.config.images.Data; of images of one's own, once they have been loaded."""
    name = settings.dataset
    if name == 'images':
        size = settings.image_size
        title = Path(settings.data_dir or '').expanduser().resolve().name
        return Facts(f'Images in {title}', (3, size, size), tuple(settings.classes))
    return Facts(TITLES[name], IMAGE_SHAPES[name], CLASS_NAMES[name])


def load_splits(settings: Any, **how: bool) -> tuple[Split, Split]:
    """(training Split, validation Split) of a training.config.images.Data.

    Further settings, of images of one's own, are those of training.data.images.load_images.
    """
    if settings.dataset == 'images':
        from training.data.images import load_images

        return tuple(Split(part, part.labels) for part in load_images(settings, **how))  # type: ignore
    loader = {'cifar10': load_cifar10, 'cifar100': load_cifar100}.get(
        settings.dataset, lambda *rest: load_mnist(settings.dataset, *rest)
    )
    return loader(settings.data_dir, settings.num_samples, settings.holdout)


def load_first(settings: Any, count: int, data_dir: Optional[str] = None) -> Any:
    """The first `count` training and test images of a training.config.images.Data, two Splits.

    From `data_dir` if given.
    """
    return load_splits(
        replace(settings, data_dir=data_dir or settings.data_dir, holdout=0, num_samples=count)
    )


def load_cifar10(
    data_dir: Optional[str] = None, num_samples: Optional[int] = None, holdout: int = 0
) -> tuple[Split, Split]:
    """CIFAR-10's training and validation splits.

    Parameters
    ----------
    data_dir : str or None
        Folder of the binary batches; None is MXNet's own data folder. Missing or damaged files
        are fetched.
    num_samples : int or None
        Keep only the first so many images of each split.
    holdout : int
        If not 0, take so many images out of the training set and validate on them; otherwise
        validate on the test set.

    Returns
    -------
    (Split, Split)
    """
    folder = download.ensure_files(sources.CIFAR10, data_dir)
    names = list(sources.CIFAR10.digests)
    return _choose(
        _read_cifar([folder / name for name in names[:5]]),
        _read_cifar([folder / names[5]]),
        num_samples,
        holdout,
    )


def load_cifar100(
    data_dir: Optional[str], num_samples: Optional[int] = None, holdout: int = 0
) -> tuple[Split, Split]:
    """CIFAR-100's training and validation splits, with the labels of its 100 fine classes.

    Parameters
    ----------
    data_dir : str
        Folder of train.bin and test.bin, the binary version's files.
    num_samples, holdout
        As in `load_cifar10`.
    """
    if data_dir is None:
        raise UserError('--dataset cifar100: name the folder of its train.bin and test.bin with --data-dir')
    folder = Path(data_dir).expanduser()
    return _choose(  # type: ignore[call-arg]
        *(
            _read_cifar([folder / name], label_bytes=2, classes=CLASSES['cifar100'])
            for name in ('train.bin', 'test.bin')
        ),
        num_samples,
        holdout,
    )


def load_mnist(
    dataset: str = 'mnist',
    data_dir: Optional[str] = None,
    num_samples: Optional[int] = None,
    holdout: int = 0,
) -> tuple[Split, Split]:
    """MNIST's training and validation splits, or those of a set in the same format.

    Parameters
    ----------
    dataset : {'mnist', 'fashion', 'idx'}
        MNIST's files are verified and fetched; others are taken from `data_dir` as they are.
    data_dir, num_samples, holdout
        As in `load_cifar10`. Files may be raw IDX or .gz.

    Returns
    -------
    (Split, Split)
        Images of shape (N, 1, 28, 28).
    """
    if dataset == 'mnist':
        folder = download.ensure_files(sources.MNIST, data_dir)
    elif data_dir is None:
        raise UserError(f'--dataset {dataset}: name the folder of its IDX files with --data-dir')
    else:
        folder = Path(data_dir).expanduser()
    splits = []
    for part in ('train', 't10k'):
        images = _read_idx(folder, f'{part}-images-idx3-ubyte', dimensions=3)
        labels = _read_idx(folder, f'{part}-labels-idx1-ubyte', dimensions=1)
        if len(images) != len(labels) or images.shape[1:] != (28, 28):
            raise UserError(
                f'{folder}: {part} has images of shape {images.shape} and '
                f'{len(labels)} labels, not N x 28 x 28 and N'
            )
        if not len(labels):
            raise UserError(f'{folder}: {part} has no images')
        if labels.max() >= CLASSES[dataset]:
            raise UserError(
                f'{folder}: {part} has a label {labels.max()}; labels must be 0 to {CLASSES[dataset] - 1}'
            )
        splits.append(Split(images[:, None], labels.astype(np.int32)))
    return _choose(*splits, num_samples, holdout)  # type: ignore[call-arg]


def _choose(train: Split, test: Split, num_samples: Any, holdout: Any) -> tuple[Split, Split]:
    if holdout >= len(train):
        raise UserError(f'--holdout {holdout}: must be less than the {len(train)} images of the training set')
    if holdout:
        order = np.random.default_rng(HOLDOUT_SEED).permutation(len(train))
        train, test = train.select(np.sort(order[holdout:])), train.select(order[:holdout])
    return train.select(slice(num_samples)), test.select(slice(num_samples))


def _read(folder: Path, name: str) -> bytes:
    """The bytes of a data file, which may be there as NAME or as NAME.gz."""
    try:
        return download.read(folder, name)
    except FileNotFoundError:
        stem, hint = Path(name).stem, ''
        if stem != name and (folder / stem).is_file():
            hint = f'; its file {stem} is of the version for Python, and the binary version is needed'
        raise UserError(f'{folder}: neither {name} nor {name}.gz is there{hint}') from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f'{folder}/{name}: cannot be read ({error})') from None


def _read_idx(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """An IDX file of bytes (big-endian header: 0, 0, 8, dimensions, then each extent)."""
    content = _read(folder, name)
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise UserError(f'{folder}/{name}: no IDX file of bytes in {dimensions} dimensions')
    shape = struct.unpack(f'>{dimensions}I', content[4:header])
    if len(content) != header + math.prod(shape):
        raise UserError(
            f'{folder}/{name}: holds {len(content) - header} bytes of data, its header '
            f'says {math.prod(shape)}'
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read_cifar(paths: list[Path], label_bytes: int = 1, classes: int = 10) -> Split:
    """Binary batches: each row some label bytes, the last one the class, and three colour planes."""
    rows = []
    for path in paths:
        content = np.frombuffer(_read(path.parent, path.name), np.uint8)
        if not len(content) or len(content) % (label_bytes + 3072):
            raise UserError(
                f'{path}: holds {len(content)} bytes, which is no number of images of '
                f'{label_bytes} + 3072 bytes'
            )
        rows.append(content.reshape(-1, label_bytes + 3072))
    rows = np.concatenate(rows)
    labels = rows[:, label_bytes - 1]
    if labels.max() >= classes:
        raise UserError(
            f'{paths[0].parent}: there is a label {labels.max()}; labels must be 0 to {classes - 1}'
        )
    return Split(rows[:, label_bytes:].reshape(-1, 3, 32, 32), labels.astype(np.int32))
