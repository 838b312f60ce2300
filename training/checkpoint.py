"""Checkpoints and weights: one file each, written atomically, nothing ever unpickled."""
import errno
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

from .runtime import UserError


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
    arrays = {f'parameter/{name}': parameter.list_data()[0].asnumpy()
              for name, parameter in named_parameters(blocks).items()}
    counts = []
    for number, trainer in enumerate(trainers):
        updater = _updaters(trainer)[0]
        for index, value in updater.states.items():
            for part, array in enumerate(value if isinstance(value, (list, tuple)) else [value]):
                if array is not None:
                    arrays[f'optimizer/{number}/{index}/{part}'] = array.asnumpy()
        counts.append({str(index): count
                       for index, count in updater.optimizer._index_update_count.items()})
    state = dict(state, update_counts=counts)
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


def load_checkpoint(path, blocks, trainers):
    """Restore what `save_checkpoint` wrote, on every context, and return its `state`.

    A damaged or missing file is passed over for the one before, and that is said.

    Raises
    ------
    UserError
        If neither can be read, or the checkpoint is of another model.
    """
    try:
        arrays, state = _read(path)
    except UserError as error:
        if not before(path).exists():
            raise
        arrays, state = _read(before(path))
        print(f'{error}; the one before it is used')
    parameters = named_parameters(blocks)
    stored = {name[len('parameter/'):]: array for name, array in arrays.items()
              if name.startswith('parameter/')}
    _check_match(path, parameters, stored)
    for name, array in stored.items():
        parameters[name].set_data(mx.nd.array(array, dtype=array.dtype))
    for number, (trainer, counts) in enumerate(zip(trainers, state['update_counts'])):
        counts = {int(index): count for index, count in counts.items()}
        for updater, context in zip(_updaters(trainer), trainer._contexts):
            _restore_states(updater, context, f'optimizer/{number}', len(trainer._params), arrays)
            updater.optimizer._set_current_context(context.device_id)
            updater.optimizer._index_update_count.update(counts)
            updater.optimizer.num_update = max(counts.values(), default=0)
    return state


def _read(path):
    """(arrays, state) of a checkpoint file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays, json.loads(str(arrays.pop('state')))
    except FileNotFoundError:
        raise UserError(f'{path}: there is no checkpoint to resume from') from None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error,
            NotImplementedError, struct.error) as error:
        raise UserError(f'{path}: damaged checkpoint ({error})') from None


def save_weights(path, classifier):
    """Write the classifier's parameters in Gluon's own format; OSError if they cannot be."""
    part = f'{path}.part'
    with atomic_save(str(path), part_file=Path(part).name, overwrite_part=True):
        try:
            classifier.save_parameters(part)
            mx.nd.load(part)  # mxnet does not notice when the last bytes do not fit on the disk
        except mx.MXNetError:
            raise OSError(errno.EIO, 'cannot be written whole (is the disk full?)', str(path)) \
                from None


def load_weights(path, classifier, contexts):
    """Load what `save_weights` wrote.

    Raises
    ------
    UserError
        If the file is missing, no weights file, or of another model; the message lists how.
    """
    if not Path(path).is_file():
        raise UserError(f'{path}: there is no such weights file')
    try:
        stored = mx.nd.load(str(path))
    except (mx.MXNetError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f'{path}: cannot be read as weights ({reason})') from None
    if not isinstance(stored, dict):
        raise UserError(f'{path}: holds arrays without names, so it is no weights file')
    parameters = classifier._collect_params_with_prefix()
    _check_match(path, parameters, stored)
    classifier.load_parameters(str(path), ctx=contexts, cast_dtype=True)


def named_parameters(blocks):
    """{'<block>.<path>': Parameter} for a dict of blocks, in the order of their structure.

    Gluon's own names hold process-wide counters, so they neither identify nor order parameters.
    """
    return {f'{block_name}.{name}': parameter for block_name, block in blocks.items()
            for name, parameter in block._collect_params_with_prefix().items()}


def _check_match(path, parameters, stored):
    problems = [f'{name} is missing' for name in sorted(set(parameters) - set(stored))]
    problems += [f'{name} is unknown' for name in sorted(set(stored) - set(parameters))]
    problems += [f'{name} has shape {tuple(stored[name].shape)}, not {tuple(parameter.shape)}'
                 for name, parameter in parameters.items() if name in stored and
                 tuple(stored[name].shape) != tuple(parameter.shape)]
    if problems:
        shown = '; '.join(problems[:3]) + (f'; and {len(problems) - 3} more'
                                           if len(problems) > 3 else '')
        raise UserError(f'{path}: does not fit this model: {shown}')


def _updaters(trainer):
    if not trainer._kv_initialized:
        trainer._init_kvstore()
    return trainer._updaters


def _restore_states(updater, context, prefix, count, arrays):
    for index in range(count):
        parts = [mx.nd.array(arrays[name], ctx=context, dtype=arrays[name].dtype)
                 for name in (f'{prefix}/{index}/{part}' for part in range(2)) if name in arrays]
        if parts:
            updater.states[index] = parts[0] if len(parts) == 1 else tuple(parts)
            updater.states_synced[index] = True
