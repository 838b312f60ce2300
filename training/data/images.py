"""Your own images as a data set: finds the parts and classes, and prints what they hold."""

from pathlib import Path
from typing import Any, Optional

import numpy as np

from training.data.augment import NORMALISATIONS
from training.data.colours import Colours
from training.data.datasets import HOLDOUT_SEED
from training.data.folders import as_text, find_parts, list_classes, list_of_some, require_classes
from training.data.packing import pack
from training.data.records import Records, open_records
from training.errors import UserError

LISTED = 20  # classes whose counts are printed one by one


def load_images(settings: Any, strict: bool = False, again: bool = False) -> tuple[Records, Records]:
    """Training and validation images of a training.config.inputs.ImagesData.

    Its `classes` are filled in if it has none, and `validate_on` too.

    Parameters
    ----------
    settings : training.config.inputs.ImagesData
        `image_size` above 0.
    strict, again
        As in training.data.packing.pack.

    Raises
    ------
    UserError
        If there is no such data set, its classes are not those of the settings, or it is damaged.
    """
    if settings.data_dir is None:
        raise UserError('--data-dir: name the folder of your images, with a folder for each class')
    if any(size > settings.image_size for size, _ in settings.resolutions):
        raise UserError(f'--resolutions: sizes go up to the --image-size, which is {settings.image_size}')
    parts = find_parts(settings.data_dir)
    if settings.validate_on is None and not settings.holdout:
        settings.validate_on = next(iter(parts.others), None)
    if not settings.holdout and settings.validate_on not in parts.others:
        there = f', has {" and ".join(parts.others)}' if parts.others else ''
        raise UserError(
            f'{settings.data_dir}: has no {settings.validate_on or "val, validation or test"} beside '
            f'train{there}; give --holdout 0.1 to validate on a tenth of the training images'
        )
    train, names = _load(parts.train, settings.classes or None, settings, strict, again)
    settings.classes = names
    if settings.holdout:
        train, validation = hold_out(train, settings.holdout)
    else:
        validation, _ = _load(parts.others[settings.validate_on], names, settings, strict, again)
        _say_shared_files(train, validation)
    train, validation = (_some(part, settings.num_samples) for part in (train, validation))
    _say_counts(names, train, validation, settings.validation_split)
    return train, validation


def _load(
    path: Path, names: Optional[list[str]], settings: Any, strict: bool, again: bool
) -> tuple[Records, list[str]]:
    """The images of a part of the data set, and the names of its classes."""
    if path.is_file():
        records, names = open_records(path, names)
        require_classes(names, path)
    else:
        listing = list_classes(path, names)
        folder = Path(settings.data_dir).expanduser()
        place = Path(settings.pack_dir or folder / '.packed').expanduser() / str(settings.short_side)
        name = path.name if path != folder else 'all'
        records, names = (
            pack(listing, place / f'{name}.rec', settings.short_side, strict, again),
            listing.names,
        )
    records.size = settings.image_size
    jitter = lighting = 0.0
    if settings.augmentation != 'none':
        records.smallest_area = settings.smallest_area
        jitter, lighting = settings.jitter, settings.lighting
    records.colours = Colours(jitter, lighting, **NORMALISATIONS[settings.normalisation])
    return records, names


def hold_out(records: Records, wanted: float) -> tuple[Records, Records]:
    """(rest, held out): a share of each class below 1, or about so many images, at least one of each class.

    UserError where that leaves nothing to train on.
    """
    count = len(records)
    share = wanted if wanted < 1 else wanted / count
    rng = np.random.default_rng(HOLDOUT_SEED)
    chosen = np.zeros(count, bool)
    for label in np.unique(records.labels):
        members = np.flatnonzero(records.labels == label)
        chosen[rng.permutation(members)[: max(1, round(share * len(members)))]] = True
        if chosen[members].all():
            raise UserError(
                f'--holdout {wanted:g}: leaves a class of {len(members)} images none to train on; give less, '
                'or more images of that class'
            )
    return records[~chosen], records[chosen]


def _some(records: Records, count: Optional[int]) -> Records:
    """`count` images chosen at random, always the same ones; None for all."""
    if count is None or count >= len(records):
        return records
    return records[np.sort(np.random.default_rng(HOLDOUT_SEED).permutation(len(records))[:count])]


def _say_shared_files(train: Records, validation: Records) -> None:
    if train.digests is None or validation.digests is None:
        return
    shared = np.isin(validation.digests, train.digests)
    if shared.any():
        names = [as_text(name) for name in validation.files[shared]]
        print(
            f'{len(names)} validation images are training images too, which makes the accuracy look better '
            f'than it is: {list_of_some(names)}'
        )


def _say_counts(names: list[str], train: Records, validation: Records, split: str) -> None:
    counts = [np.bincount(part.labels, minlength=len(names)) for part in (train, validation)]
    order = range(len(names)) if len(names) <= LISTED else np.argsort(-counts[0], kind='stable')
    rows = [f'{names[k]} {counts[0][k]} / {counts[1][k]}' for k in order]
    if len(rows) > LISTED:
        rows[LISTED // 2 : -LISTED // 2] = [f'... {len(rows) - LISTED} more ...']
    print(f'{len(names)} classes, training / {split} images: {", ".join(rows)}')
