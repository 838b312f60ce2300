"""Checkpoints and weights: one file each, written atomically, nothing ever unpickled."""

import io
import json
import os
import struct
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Optional, Union

import mxnet as mx
import numpy as np
from boltons.fileutils import atomic_save
from pydantic import Field, TypeAdapter, ValidationError

from training.errors import UserError
from training.machine.cluster import Workers
from training.runs.weights import check_match, named_parameters

Content = tuple[dict[str, np.ndarray], dict[str, Any]]  # arrays and state
FORMAT = 1  # of checkpoints; files without a number are of this one too


@dataclass
class State:
    """What a checkpoint holds beside arrays, as JSON."""

    epoch: Annotated[int, Field(ge=0)]  # epochs done
    step: Annotated[int, Field(ge=0)]  # steps of the next one done
    totals: Annotated[list[float], Field(min_length=2, max_length=2)]  # as EpochResult.totals, over these
    seconds: float  # that these took
    history: list[dict[str, Union[int, float, None]]]  # rows of metrics.csv
    update_counts: list[dict[int, int]]  # of each trainer, by the number of the parameter
    data: Optional[str] = None  # digest of images and labels; files of earlier versions have none


class Damaged(Exception):
    """A file is no whole checkpoint."""


def save_checkpoint(
    path: Path,
    blocks: dict[str, Any],
    trainers: list[Any],
    state: dict[str, Any],
    further: Optional[dict[str, np.ndarray]] = None,
) -> None:
    """Write parameters, optimizer state and `state` (JSON values) into one .npz file.

    Parameters
    ----------
    path : Path
    blocks : dict of str to Block
        The blocks whose parameters to keep, under these names.
    trainers : list of gluon.Trainer
    state : dict
        The fields of `State` but for update_counts.
    further : dict of str to array or None
        Arrays to keep as well, under these names.

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
    np.savez(buffer, state=np.array(json.dumps(state)), **arrays, **(further or {}))
    new = path.with_name(f'{path.name}.new')
    with atomic_save(str(new), overwrite_part=True) as file:
        file.write(buffer.getvalue())
    if path.exists():
        os.replace(path, before(path))
    os.replace(new, path)


def before(path: Path) -> Path:
    """Where the checkpoint before the one in `path` is kept."""
    return Path(path).with_suffix('.before.npz')


def load_checkpoint(
    path: Path,
    blocks: dict[str, Any],
    trainers: list[Any],
    workers: Workers = Workers(),  # noqa: B008 of one process
    further: Optional[dict[str, np.ndarray]] = None,
) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote, on every context, and return its `state`.

    A file that is missing or damaged in its format is passed over for the one before: rank 0 decides
    that and says so, and in the end renames the damaged file.

    Parameters
    ----------
    path, blocks, trainers
        As in `save_checkpoint`.
    workers : training.machine.cluster.Workers
        All of them must call it.
    further : dict of str to array or None
        Arrays to fill with those kept under these names.

    Raises
    ------
    UserError
        If neither file is whole, or one cannot be read, or the checkpoint is of another model, optimizer or
        format.
    """
    newest = path = Path(path)
    reason = failure = None
    if workers.is_rank_zero:
        try:
            path, reason, content = _last_whole(newest)
        except UserError as error:
            failure = error
    uses_before, failed = workers.sum([path != newest, failure is not None])
    if failed:
        raise failure or UserError(f'{newest}: rank 0 cannot resume from it')
    if not workers.is_rank_zero:
        path = before(newest) if uses_before else newest
        try:
            content = _read(path)
        except (Damaged, FileNotFoundError) as error:
            raise UserError(
                f'{path}: {error}, though rank 0 could read it; all must see one folder'
            ) from None
    arrays, state = content
    parameters = named_parameters(blocks)
    stored = {
        name[len('parameter/') :]: array for name, array in arrays.items() if name.startswith('parameter/')
    }
    check_match(path, parameters, {name: array.shape for name, array in stored.items()})
    _check_optimizers(path, trainers, arrays, state['update_counts'])
    for name, array in (further or {}).items():
        if name not in arrays or arrays[name].shape != array.shape:
            raise UserError(f'{path}: does not fit this run: {name} of shape {array.shape} is missing')
        array[:] = arrays[name]
    for name, array in stored.items():
        parameters[name].set_data(mx.nd.array(array, dtype=array.dtype))
    for number, (trainer, counts) in enumerate(zip(trainers, state['update_counts'])):
        for updater, context in zip(_updaters(trainer), trainer._contexts):
            _restore_states(updater, context, f'optimizer/{number}', len(trainer._params), arrays)
            updater.optimizer._set_current_context(context.device_id)
            updater.optimizer._index_update_count.update(counts)
            updater.optimizer.num_update = max(counts.values(), default=0)
    if reason:
        moved = f', now in {_put_aside(newest).name}' if newest.exists() else ''
        print(f'{newest}: {reason}{moved}; {path.name} is used')
    return state


def _last_whole(newest: Path) -> tuple[Path, Optional[str], Content]:
    """(path, reason, content) of the newest checkpoint that is whole; why that is not `newest`, or None."""
    try:
        return newest, None, _read(newest)
    except (Damaged, FileNotFoundError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = 'missing' if missing else str(error)
    try:
        return before(newest), reason, _read(before(newest))
    except FileNotFoundError:
        problem = (
            'there is no checkpoint to resume from' if missing else f'{reason}, and there is none before it'
        )
        raise UserError(f'{newest}: {problem}') from None
    except Damaged as error:
        raise UserError(f'{newest}: {reason}, and {before(newest).name}: {error}') from None


def _put_aside(path: Path) -> Path:
    """Rename a damaged file, and return its new path."""
    aside, number = path.with_name(f'{path.name}.damaged'), 1
    while aside.exists():
        aside, number = path.with_name(f'{path.name}.damaged.{number}'), number + 1
    return path.rename(aside)


def _read(path: Path) -> Content:
    """(arrays, state) of a checkpoint file.

    Everything is taken into memory first: a failure of the disk then cannot pass for damage.
    """
    try:
        content = io.BytesIO(Path(path).read_bytes())
        with zipfile.ZipFile(content) as archive:
            bad = archive.testzip()  # before an array is made: its header might ask for any memory
        if bad:
            raise ValueError(f'wrong checksum of {bad}')
        content.seek(0)
        with np.load(content, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        state = json.loads(str(arrays.pop('state')))
        if any(array.dtype.kind not in 'fiu' for array in arrays.values()):
            raise ValueError('it holds other things than numbers')
        if isinstance(state, dict) and state.get('format', FORMAT) != FORMAT:
            raise UserError(
                f'{path}: a checkpoint of format {state["format"]!r}, and this version reads '
                f'format {FORMAT}; resume it with the version that wrote it'
            )
        state = asdict(TypeAdapter(State).validate_python(state))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror}); no checkpoint was changed') from None
    except MemoryError:
        raise UserError(f'{path}: the memory is too small to read it; no checkpoint was changed') from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = '.'.join(map(str, problem['loc']))
        raise Damaged(f'damaged checkpoint (its state: {where}: {problem["msg"]})') from None
    except (
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
    ) as error:
        raise Damaged(f'damaged checkpoint ({" ".join(str(error).split())})') from None
    return arrays, state


def _check_optimizers(
    path: Path, trainers: list[Any], arrays: dict[str, np.ndarray], counts: list[dict[int, int]]
) -> None:
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


def _updaters(trainer: Any) -> list[Any]:
    if not trainer._kv_initialized:
        trainer._init_kvstore()
    return trainer._updaters


def _restore_states(
    updater: Any, context: mx.Context, prefix: str, count: int, arrays: dict[str, np.ndarray]
) -> None:
    for index in range(count):
        parts = [
            mx.nd.array(arrays[name], ctx=context, dtype=arrays[name].dtype)
            for name in (f'{prefix}/{index}/{part}' for part in range(2))
            if name in arrays
        ]
        if parts:
            updater.states[index] = parts[0] if len(parts) == 1 else tuple(parts)
            updater.states_synced[index] = True
