"""Weights in Gluon's own format, written atomically and checked before they are read."""

import errno
import math
import struct
from pathlib import Path
from typing import Any

import mxnet as mx
from boltons.fileutils import atomic_save

from training.config.inputs import Data
from training.config.recipe import load_run
from training.errors import UserError, naming

# mxnet's weights files: magic numbers, and bytes an element by type number.
WEIGHTS_MAGIC, ARRAY_MAGIC = 0x112, 0xF993FAC9
ELEMENT_BYTES = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8}
MOST_DIMENSIONS = 32
SHOWN = 6  # names of arrays in a message


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
    check_match(path, classifier._collect_params_with_prefix(), _check_file(path))
    classifier.load_parameters(str(path), ctx=contexts, cast_dtype=True)


def _check_file(path: Path) -> dict[str, tuple]:
    """{name: shape} of a weights file; UserError if it is none."""
    with naming(path):
        if not Path(path).is_file():
            raise UserError(f'{path}: there is no such weights file')
    try:
        return stored_shapes(path)
    except (OSError, ValueError, struct.error) as error:
        raise UserError(f'{path}: cannot be read as weights ({error})') from None


def load_backbone(source: str, arrays: dict[str, Any], net: Any) -> None:
    """Load what fits of stored arrays into a net's backbone and embedding, and say what does not.

    Parameters
    ----------
    source : str
        What to call them.
    arrays : dict of str to NDArray
        Under the names that GluonCV gives them, or a run of this project.
    net : training.nets.zoo.FeatureNet
        Initialised.

    Raises
    ------
    UserError
        If nothing fits.
    """
    ours = {
        name: parameter
        for name, parameter in net._collect_params_with_prefix().items()
        if not name.startswith('output.')
    }

    def renamed(before: str, after: str) -> dict[str, Any]:
        named = {name: f'{after}{name[len(before) :]}' for name in arrays if name.startswith(before)}
        return {
            new: name
            for name, new in named.items()
            if new in ours and arrays[name].shape == tuple(ours[new].shape)
        }

    # A run has its net below `net` or by itself; not all of GluonCV's nets have their body in `features`.
    fits = max((renamed(*way) for way in (('', ''), ('net.', ''), ('', 'features.'))), key=len)
    if not fits:
        raise UserError(
            f'{source}: none of its {len(arrays)} arrays fits this net; choose the --model that it is of'
        )
    for new, name in fits.items():
        ours[new].set_data(arrays[name].astype('float32'))
    print(f'{source}: {len(fits)} of {len(ours)} arrays of the net loaded')
    for words, names in (
        ('begin anew, as it has none that fit', [name for name in ours if name not in fits]),
        ('of the file left out', [name for name in arrays if name not in fits.values()]),
    ):
        if names:
            print(f'{words}: {", ".join(names[:SHOWN])}' + ' ...' * (len(names) > SHOWN))


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a weights file by name; UserError if it is none."""
    _check_file(path)
    return {name.partition(':')[2] or name: array for name, array in mx.nd.load(str(path)).items()}


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
        theirs, ours = (getattr(part, field, None) for part in (load_run(config).data, data))
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
