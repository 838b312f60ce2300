"""The NVIDIA driver and the installed wheels, looked at before mxnet is imported."""

import ctypes
import importlib.util
from pathlib import Path
from typing import Optional

# In load order: each library needs those before it.
CUDA_LIBRARIES = (
    'cuda_runtime/lib/libcudart.so.11.0',
    'cuda_nvrtc/lib/libnvrtc.so.11.2',
    'nvtx/lib/libnvToolsExt.so.1',
    'cublas/lib/libcublasLt.so.11',
    'cublas/lib/libcublas.so.11',
    'cufft/lib/libcufft.so.10',
    'curand/lib/libcurand.so.10',
    'cusolver/lib/libcusolver.so.11',
    'nccl/lib/libnccl.so.2',
    'cudnn/lib/libcudnn.so.8',
)
# The mxnet-cu112 wheels hold kernels for 5.0 to 8.6 and no PTX that a later GPU could compile.
FIRST_CAPABILITY, FIRST_UNSUPPORTED_CAPABILITY = (5, 0), (9, 0)
FIRST_CAPABILITY_WITH_FAST_FLOAT16 = (7, 0)
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
COMPILER = 11080  # CUDA version of requirements.txt's NVRTC, the oldest whose driver runs its output


def probe() -> tuple[list[tuple[int, int]], Optional[str]]:
    """Ask the NVIDIA driver itself, since an mxnet without GPU support cannot.

    Returns
    -------
    (capabilities, problem)
        A list with the compute capability (major, minor) of each GPU, and why it is empty, if it is.
    """
    try:
        driver = ctypes.CDLL('libcuda.so.1')
    except OSError:
        return [], 'the NVIDIA driver (libcuda.so.1) is not installed'
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return [], 'the NVIDIA driver does not respond'
    capabilities = []
    for index in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device)
        capabilities.append((major.value, minor.value))
    return capabilities, None if capabilities else 'the machine has no NVIDIA GPU'


def driver_version() -> int:
    """The CUDA version that the NVIDIA driver has, as 1000 * major + 10 * minor."""
    version = ctypes.c_int()
    ctypes.CDLL('libcuda.so.1').cuDriverGetVersion(ctypes.byref(version))
    return version.value


def has_gpu_mxnet() -> bool:
    """Whether the installed mxnet is a GPU build, without importing it."""
    spec = importlib.util.find_spec('mxnet')
    return (
        spec is not None
        and (Path(spec.origin).parent / 'libmxnet.so').exists()
        and any(name.startswith('mxnet_cu') for name in _distributions())
    )


def _distributions() -> list[str]:
    from importlib.metadata import distributions  # slow to import, and seldom needed

    return [d.metadata['Name'].replace('-', '_') for d in distributions() if d.metadata['Name']]


def load_cuda_libraries() -> None:
    """Load the CUDA libraries of the nvidia-*-cu11 wheels, which the linker would not find."""
    for root in importlib.util.find_spec('nvidia').submodule_search_locations:
        for library in CUDA_LIBRARIES:
            path = Path(root) / library
            if path.exists():
                ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
