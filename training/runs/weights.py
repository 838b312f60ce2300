"""Weights in Gluon's own format, written atomically and checked before they are read."""

import errno
import math
import struct
from pathlib import Path
from typing import Any

import mxnet as mx
from boltons.fileutils import atomic_save

from training.config.images import Data
from training.config.recipe import load_run
from training.errors import UserError, naming

# mxnet's weights files: magic numbers, and bytes an element by type number.
WEIGHTS_MAGIC, ARRAY_MAGIC = 0x112, 0xF993FAC9
ELEMENT_BYTES = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8}
MOST_DIMENSIONS = 32


def save_weights(path: Path, classifier: Any) -> None:
    """Write the classifier's parameters in Gluon's own format; OSError if they cannot be."""
    part = f'{path}.part'
    with atomic_save(str(path), part_file=Path(part).name, overwrite_part=True):
        try:
            classifier.save_parameters(part)
            stored_shapes(part)  # mxnet does not notice when the last bytes do not fit on the disk
        except (mx.MXNetError, ValueError, struct.error):
            raise OSError(errno.EIO, 'cannot be written whole (is the disk full?)', str(path)) from None


def load_weights(path: Path, classifier: Any, contexts: list[Any]) -> None:
    """Load what `save_weights` wrote.

    Raises
    ------
    UserError
        If the file is missing, no weights file, or of another model; the message lists how.
    """
    with naming(path):
        if not Path(path).is_file():
            raise UserError(f'{path}: there is no such weights file')
    try:
        shapes = stored_shapes(path)
    except (OSError, ValueError, struct.error) as error:
        raise UserError(f'{path}: cannot be read as weights ({error})') from None
    check_match(path, classifier._collect_params_with_prefix(), shapes)
    classifier.load_parameters(str(path), ctx=contexts, cast_dtype=True)


def require_same_data(option: str, config: Path, data: Data, *fields: str) -> None:
    """Refuse the weights of a run that saw other images than those of `data` in one of these fields.

    Parameters
    ----------
    option : str
        How the user named the weights, as in '--weights run/best.params'.
    config : Path
        The run's config.yaml.
    """
    for field in fields:
        theirs, ours = getattr(load_run(config).data, field), getattr(data, field)
        if theirs != ours:
            raise UserError(
                f'{option}: was trained with {field} {theirs}, not {ours}; choose others '
                f'or --{field} {theirs}'
            )


def named_parameters(blocks: dict[str, Any]) -> dict[str, Any]:
    """{'<block>.<path>': Parameter} for a dict of blocks, in the order of their structure.

    Gluon's own names hold process-wide counters, so they neither identify nor order parameters.
    """
    return {
        f'{block_name}.{name}': parameter
        for block_name, block in blocks.items()
        for name, parameter in block._collect_params_with_prefix().items()
    }


def stored_shapes(path: Any) -> dict[str, tuple]:
    """{name: shape} of a weights file in mxnet's own format, with every length in it checked.

    mxnet's reader believes the lengths it finds, and takes memory for them until it is killed.
    """
    content, position = Path(path).read_bytes(), 0

    def take(layout: str) -> tuple[Any, ...]:
        nonlocal position
        if position > len(content):
            raise ValueError('it ends too early')
        values = struct.unpack_from(f'<{layout}', content, position)
        position += struct.calcsize(f'<{layout}')
        return values

    magic, _, count = take('QQQ')
    if magic != WEIGHTS_MAGIC:
        raise ValueError('it does not begin as one')
    shapes, names = [], []
    for _ in range(count):
        magic, storage, dimensions = take('III')
        if magic != ARRAY_MAGIC or storage != 0 or not 0 < dimensions <= MOST_DIMENSIONS:
            raise ValueError('it holds an array of unknown format')
        shapes.append(take(f'{dimensions}Q'))
        _, _, kind = take('III')  # after the device
        if kind not in ELEMENT_BYTES:
            raise ValueError(f'it holds an array of unknown type {kind}')
        position += ELEMENT_BYTES[kind] * math.prod(shapes[-1])
    for _ in range(*take('Q')):
        (length,) = take('Q')
        names.append(content[position : position + length].decode())
        position += length
    if position != len(content):
        raise ValueError('its length is not what it says')
    if len(set(names)) != len(shapes):
        raise ValueError('it holds arrays without names of their own')
    return dict(zip(names, shapes))


def check_match(path: Path, parameters: dict[str, Any], shapes: dict[str, tuple]) -> None:
    problems = [f'{name} is missing' for name in sorted(set(parameters) - set(shapes))]
    problems += [f'{name} is unknown' for name in sorted(set(shapes) - set(parameters))]
    problems += [
        f'{name} has shape {shapes[name]}, not {tuple(parameter.shape)}'
        for name, parameter in parameters.items()
        if name in shapes and shapes[name] != tuple(parameter.shape)
    ]
    if problems:
        shown = '; '.join(problems[:3]) + (f'; and {len(problems) - 3} more' if len(problems) > 3 else '')
        raise UserError(f'{path}: does not fit this model: {shown}')
