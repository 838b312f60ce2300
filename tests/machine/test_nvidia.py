"""The driver and the CUDA libraries, with stand-ins for both."""

import subprocess

from conftest import ROOT

from training.machine import nvidia


def test_probe_reads_capabilities_from_a_driver(tmp_path, monkeypatch):
    """A stand-in libcuda with two GPUs, 8.6 and 9.0."""
    source = tmp_path / 'cuda.c'
    source.write_text("""
        int cuInit(unsigned f) { return 0; }
        int cuDeviceGetCount(int *n) { *n = 2; return 0; }
        int cuDeviceGet(int *d, int i) { *d = i; return 0; }
        int cuDriverGetVersion(int *v) { *v = 11040; return 0; }
        int cuDeviceGetAttribute(int *v, int a, int d) {
            *v = a == 75 ? (d ? 9 : 8) : (d ? 0 : 6); return 0; }""")
    library = tmp_path / 'libcuda.so.1'
    subprocess.run(['cc', '-shared', '-fPIC', '-o', library, source], check=True)
    real = nvidia.ctypes.CDLL
    monkeypatch.setattr(
        nvidia.ctypes, 'CDLL', lambda name, *a: real(str(library) if 'libcuda' in name else name, *a)
    )
    assert nvidia.probe() == ([(8, 6), (9, 0)], None) and nvidia.driver_version() == 11040


def test_cuda_libraries_are_loaded_from_the_wheels_in_order(tmp_path, monkeypatch):
    for library in nvidia.CUDA_LIBRARIES[:2]:
        path = tmp_path / library
        path.parent.mkdir(parents=True)
        path.write_bytes(b'')
    loaded = []
    monkeypatch.setattr(
        nvidia.importlib.util,
        'find_spec',
        lambda name: type('Spec', (), {'submodule_search_locations': [str(tmp_path)]}),
    )
    monkeypatch.setattr(nvidia.ctypes, 'CDLL', lambda path, mode: loaded.append((path, mode)))
    nvidia.load_cuda_libraries()
    assert loaded == [
        (str(tmp_path / library), nvidia.ctypes.RTLD_GLOBAL) for library in nvidia.CUDA_LIBRARIES[:2]
    ]


def test_gpu_requirements_hold_every_library_that_is_loaded():
    text = (ROOT / 'requirements.txt').read_text()
    for library in nvidia.CUDA_LIBRARIES:
        package = 'nvidia-' + library.split('/')[0].replace('_', '-') + '-cu11=='
        assert package in text, library
