"""Threads, devices and precision of this process.

Nothing here imports mxnet at module level, because `prepare` must run before that import.
"""

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from training.errors import UserError
from training.machine import nvidia, precision

CPU_CONTEXTS = 64  # mxnet hangs on an id that does not fit its integers

PLACE = 'GMLOSS_PLACE'  # N/M: Nth of M processes of its role on this machine; set by launch.py


@dataclass(frozen=True)
class Device:
    """Where and how a run computes."""

    kind: str  # 'cpu' or 'gpu'
    ids: tuple  # one context each
    dtype: str  # 'float32', 'bfloat16' or 'float16'

    def contexts(self) -> list[Any]:
        import mxnet as mx

        return [mx.Context(self.kind, i) for i in self.ids]

    def __str__(self) -> str:
        return (
            self.kind
            if self.kind == 'cpu' and self.ids == (0,)
            else f'{self.kind}:{",".join(map(str, self.ids))}'
        )


def prepare(device: str = 'auto', dtype: str = 'float32') -> Device:
    """Set the process up for mxnet and choose the device; call before mxnet is imported.

    Parameters
    ----------
    device : str
        'auto', 'cpu', 'gpu', or a list of ids such as 'gpu:0,1' or 'cpu:0,1'.
    dtype : str
        'float32', 'bfloat16' (CPU), 'float16' (GPU), or 'auto': the faster one on this device.

    Returns
    -------
    Device

    Raises
    ------
    UserError
        If the device or precision is not available.
    """
    if 'mxnet' in sys.modules:
        raise RuntimeError('training.machine.devices.prepare must run before mxnet is imported')
    share_cores()
    os.environ.setdefault('MXNET_SUBGRAPH_VERBOSE', '0')
    chosen = choose(device, dtype)
    if chosen.kind == 'gpu' and nvidia.driver_version() < nvidia.COMPILER:
        # mxnet compiles the kernels that it fuses
        os.environ.setdefault('MXNET_USE_FUSION', '0')
    try:
        mx = import_mxnet()
    except OSError as error:
        raise UserError(
            f'mxnet cannot be loaded: {error}; with requirements.txt it needs the '
            'NVIDIA driver, with requirements-cpu.txt it does not'
        ) from None
    if chosen.kind == 'gpu' and mx.context.num_gpus() == 0:
        raise UserError('this mxnet sees no GPU: install requirements.txt (mxnet-cu112), or use --device cpu')
    if chosen.dtype != 'float32':
        from mxnet.contrib import amp

        amp.init(chosen.dtype)
    return chosen


def choose(device: str, dtype: str = 'float32') -> Device:
    """The Device that these options select on this machine; see `prepare`."""
    kind, ids = parse_device(device)
    capabilities: list[tuple[int, int]] = []
    if kind != 'cpu':
        capabilities, problem = nvidia.probe()
        kind, ids = choose_device(kind, ids, capabilities, problem, place()[0])
    return Device(
        kind, ids, choose_dtype(dtype, kind, [capabilities[i] for i in ids] if kind == 'gpu' else [])
    )


def place() -> tuple[int, int]:
    """(N, M): this process is the Nth, from 0, of M workers or servers of its run on this machine."""
    number, _, of = os.environ.get(PLACE, '0/1').partition('/')
    return int(number), int(of)


def import_mxnet() -> Any:
    """Import mxnet 1.9 with what it expects, and without imports that would take a third of the time."""
    if importlib.util.find_spec('nvidia') is not None:
        nvidia.load_cuda_libraries()
        os.environ.setdefault('MXNET_CUDNN_LIB_CHECKING', '0')  # of the version: it is a later 8
    import numpy as np

    if 'bool' not in np.__dict__:
        np.bool = bool  # type: ignore[attr-defined] # the alias that numpy 1.24 removed
    with hidden('scipy', 'sklearn'):  # only its test utilities and old Model class use them
        import mxnet
    return mxnet


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """A context in which imports fail as if these packages were not installed."""
    kept = {name: sys.modules.pop(name, None) for name in packages}
    sys.modules.update(dict.fromkeys(packages))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in kept.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def share_cores() -> None:
    """Set the OpenMP threads: the usable cores, divided among the run's workers on this machine."""
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, usable_cores() // place()[1])))


def threads() -> str:
    """OpenMP threads in use."""
    return os.environ['OMP_NUM_THREADS']


def usable_cores() -> int:
    """Number of cores this process may use: its affinity, limited by the container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    try:
        quota, period = Path('/sys/fs/cgroup/cpu.max').read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2, or no quota ("max")
    return cores


def parse_device(text: str) -> tuple[str, Optional[tuple[int, ...]]]:
    """'gpu:0,1' -> ('gpu', (0, 1)); 'cpu' -> ('cpu', (0,)); 'gpu' and 'auto' have ids None."""
    match = re.fullmatch(r'(auto|cpu|gpu)(?::(\d+(?:,\d+)*))?', text)
    if not match or (match[1] == 'auto' and match[2]):
        raise UserError(f'--device {text}: expected auto, cpu, gpu, or ids such as gpu:0,1')
    ids = tuple(int(i) for i in match[2].split(',')) if match[2] else None
    if ids and len(set(ids)) != len(ids):
        raise UserError(f'--device {text}: an id is given twice')
    if match[1] == 'cpu':
        ids = ids or (0,)
        if max(ids) >= CPU_CONTEXTS:
            raise UserError(f'--device {text}: expected ids from 0 to {CPU_CONTEXTS - 1}')
    return match[1], ids


def choose_device(
    kind: str,
    ids: Optional[tuple[int, ...]],
    capabilities: list[tuple[int, int]],
    problem: Optional[str],
    number: int = 0,
) -> tuple[str, tuple[int, ...]]:
    """Resolve 'auto' and 'gpu' by what `nvidia.probe` returned; see `prepare` for the errors.

    Workers with different `number` on one machine take the usable GPUs in turn.
    """
    usable = [
        i
        for i, capability in enumerate(capabilities)
        if nvidia.FIRST_CAPABILITY <= capability < nvidia.FIRST_UNSUPPORTED_CAPABILITY
    ]
    if kind == 'auto':
        if usable and nvidia.has_gpu_mxnet():
            return 'gpu', (usable[number % len(usable)],)
        if usable:
            print(
                'the GPU is not used, because this mxnet is built for the CPU; install requirements.txt to '
                'use it',
                file=sys.stderr,
            )
        return 'cpu', (0,)
    if problem:
        raise UserError(f'--device gpu: {problem}; use --device cpu')
    if ids is None:
        ids = (usable[number % len(usable)] if usable else 0,)
    for i in ids:
        if i >= len(capabilities):
            raise UserError(f'--device gpu:{i}: this machine has GPUs 0 to {len(capabilities) - 1}')
        if i not in usable:
            major, minor = capabilities[i]
            raise UserError(
                f'--device gpu:{i}: its compute capability is {major}.{minor}, and '
                "mxnet 1.9.1's wheels hold code for 5.0 to 8.9 only; use --device cpu"
            )
    return kind, ids


def choose_dtype(dtype: str, kind: str, capabilities: list[tuple[int, int]]) -> str:
    """Resolve 'auto', and refuse a precision that the device does not have."""
    if dtype == 'auto':
        if kind == 'cpu':
            return 'bfloat16' if cpu_is_faster_in_bfloat16() else 'float32'
        fast = min(capabilities) >= nvidia.FIRST_CAPABILITY_WITH_FAST_FLOAT16
        return 'float16' if fast else 'float32'
    if dtype == 'bfloat16' and kind == 'gpu':
        raise UserError('--dtype bfloat16: mxnet 1.9 has it on the CPU only; use float16 on a GPU')
    if dtype == 'float16' and kind == 'cpu':
        raise UserError('--dtype float16: mxnet 1.9 has it on the GPU only; use bfloat16 on a CPU')
    if dtype == 'bfloat16' and not cpu_has_bfloat16():
        raise UserError('--dtype bfloat16: this CPU lacks avx512_bf16; use float32')
    return dtype


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has the avx512_bf16 instructions (Linux; elsewhere False)."""
    return 'avx512_bf16' in _cpu_description()


def cpu_is_faster_in_bfloat16() -> bool:
    """Whether nets train faster in bfloat16 than in float32 here, by measurement where both can be."""
    if not cpu_has_bfloat16():
        return False
    share_cores()
    name = re.search(r'^model name\s*: (.*)$', _cpu_description(), re.MULTILINE)
    return precision.faster_on(name[1] if name else 'CPU') == 'bfloat16'


def _cpu_description() -> str:
    try:
        return Path('/proc/cpuinfo').read_text()
    except OSError:
        return ''
