"""Checkpoints and weights: one file each, written atomically, nothing ever unpickled."""

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import mxnet as mx
import numpy as np
from boltons.fileutils import atomic_save

from training.errors import UserError
from training.runs.weights import check_match, named_parameters

FORMAT = 1  # of checkpoints; files without a number are of this one too


def save_checkpoint(path, blocks, trainers, state):
    """Write parameters, optimizer state and `state` (JSON values) into one .npz file.

    Parameters
    ----------
    path : Path
    blocks : dict of str to Block
        The blocks whose parameters to keep, under these names.
    trainers : list of gluon.Trainer
    state : dict
        Whatever else the run needs to continue: epoch, step, history, scores.

    The file that was there before is kept beside it, for the case that this one gets damaged.
    """
    arrays = {
        f'parameter/{name}': parameter.list_data()[0].asnumpy()
        for name, parameter in named_parameters(blocks).items()
    }
    counts = []
    for number, trainer in enumerate(trainers):
        updater = _updaters(trainer)[0]
        for index, value in updater.states.items():
            for part, array in enumerate(value if isinstance(value, (list, tuple)) else [value]):
                if array is not None:
                    arrays[f'optimizer/{number}/{index}/{part}'] = array.asnumpy()
        counts.append({str(index): count for index, count in updater.optimizer._index_update_count.items()})
    state = dict(state, update_counts=counts, format=FORMAT)
    buffer = io.BytesIO()
    np.savez(buffer, state=np.array(json.dumps(state)), **arrays)
    path = Path(path)
    part = path.with_name(f'{path.name}.new')
    with atomic_save(str(part), overwrite_part=True) as file:
        file.write(buffer.getvalue())
    if path.exists():
        os.replace(path, before(path))
    os.replace(part, path)


def before(path):
    """Where the checkpoint before the one in `path` is kept."""
    return Path(path).with_suffix('.before.npz')


def load_checkpoint(path, blocks, trainers, blank=None):
    """Restore what `save_checkpoint` wrote, on every context, and return its `state`.

    A damaged or missing file is passed over for the one before, and that is said.

    Parameters
    ----------
    path, blocks, trainers
        As in `save_checkpoint`.
    blank : dict or None
        The state of a run not yet begun: the stored one must have its fields, of the same types.

    Raises
    ------
    UserError
        If neither can be read, or the checkpoint is of another model, optimizer or format.
    """
    path = newest = Path(path)
    try:
        arrays, state = _read(path)
    except UserError as error:
        path = before(path)
        if not path.exists():
            raise
        arrays, state = _read(path)
        print(f'{error}; the one before it is used')
    if state.get('format', FORMAT) != FORMAT:
        raise UserError(
            f'{path}: a checkpoint of format {state["format"]!r}, and this version reads '
            f'format {FORMAT}; resume it with the version that wrote it'
        )
    for name, value in {**(blank or {}), 'update_counts': []}.items():
        if type(state.get(name)) is not type(value):
            raise UserError(f'{path}: damaged checkpoint (its {name} is {state.get(name)!r})')
    parameters = named_parameters(blocks)
    stored = {
        name[len('parameter/') :]: array for name, array in arrays.items() if name.startswith('parameter/')
    }
    check_match(path, parameters, {name: array.shape for name, array in stored.items()})
    _check_optimizers(path, trainers, arrays, state['update_counts'])
    for name, array in stored.items():
        parameters[name].set_data(mx.nd.array(array, dtype=array.dtype))
    for number, (trainer, counts) in enumerate(zip(trainers, state['update_counts'])):
        counts = {int(index): count for index, count in counts.items()}
        for updater, context in zip(_updaters(trainer), trainer._contexts):
            _restore_states(updater, context, f'optimizer/{number}', len(trainer._params), arrays)
            updater.optimizer._set_current_context(context.device_id)
            updater.optimizer._index_update_count.update(counts)
            updater.optimizer.num_update = max(counts.values(), default=0)
    if path != newest and newest.is_file():
        newest.unlink(missing_ok=True)  # damaged; the next save would keep it as the one before
    return state


def _read(path):
    """(arrays, state) of a checkpoint file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        state = json.loads(str(arrays.pop('state')))
        if not isinstance(state, dict) or any(a.dtype.kind not in 'fiu' for a in arrays.values()):
            raise ValueError('it holds other things than a run')
    except FileNotFoundError:
        raise UserError(f'{path}: there is no checkpoint to resume from') from None
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        MemoryError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
    ) as error:
        raise UserError(f'{path}: damaged checkpoint ({" ".join(str(error).split())})') from None
    return arrays, state


def _check_optimizers(path, trainers, arrays, counts):
    """Refuse optimizer states whose arrays do not fit the parameters they belong to."""
    if len(counts) != len(trainers):
        raise UserError(f'{path}: does not hold the state of {len(trainers)} optimizer(s)')
    shapes = {
        f'{number}/{index}': parameter.shape
        for number, trainer in enumerate(trainers)
        for index, parameter in enumerate(trainer._params)
    }
    for name, array in arrays.items():
        if name.startswith('optimizer/'):
            shape = shapes.get(name[len('optimizer/') :].rpartition('/')[0])
            if array.shape != shape:
                raise UserError(
                    f'{path}: does not fit this model: {name} has shape {array.shape}, not {shape}'
                )


def _updaters(trainer):
    if not trainer._kv_initialized:
        trainer._init_kvstore()
    return trainer._updaters


def _restore_states(updater, context, prefix, count, arrays):
    for index in range(count):
        parts = [
            mx.nd.array(arrays[name], ctx=context, dtype=arrays[name].dtype)
            for name in (f'{prefix}/{index}/{part}' for part in range(2))
            if name in arrays
        ]
        if parts:
            updater.states[index] = parts[0] if len(parts) == 1 else tuple(parts)
            updater.states_synced[index] = True
