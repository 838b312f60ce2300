"""Threads, devices and precision, with stand-ins for the drivers that are not here."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from training import errors
from training.errors import UserError
from training.machine import devices, nvidia, parameter_server

AMPERE, HOPPER, PASCAL, KEPLER = (8, 6), (9, 0), (6, 1), (3, 7)


@pytest.mark.parametrize(
    'text, expected',
    [
        ('auto', ('auto', None)),
        ('cpu', ('cpu', (0,))),
        ('cpu:0,1', ('cpu', (0, 1))),
        ('gpu', ('gpu', None)),
        ('gpu:2', ('gpu', (2,))),
        ('gpu:0,1,3', ('gpu', (0, 1, 3))),
    ],
)
def test_device_names(text, expected):
    assert devices.parse_device(text) == expected


@pytest.mark.parametrize('text', ['', 'tpu', 'gpu:', 'gpu:a', 'gpu:0,', 'auto:0', 'cpu:-1', 'gpu:1,1'])
def test_bad_device_names_are_refused(text):
    with pytest.raises(UserError, match='--device'):
        devices.parse_device(text)


def test_auto_takes_the_first_gpu_that_has_code_else_the_cpu(monkeypatch, capsys):
    monkeypatch.setattr(nvidia, 'has_gpu_mxnet', lambda: True)
    choose = devices.choose_device
    assert choose('auto', None, [HOPPER, AMPERE], None) == ('gpu', (1,))
    assert choose('auto', None, [HOPPER, KEPLER], None) == ('cpu', (0,))
    assert choose('auto', None, [], 'no driver') == ('cpu', (0,))
    taken = [
        choose(kind, None, [HOPPER, AMPERE, AMPERE], None, number)
        for kind in ('auto', 'gpu')
        for number in range(3)
    ]
    assert taken == [('gpu', (1,)), ('gpu', (2,)), ('gpu', (1,))] * 2, 'workers take them in turn'
    assert not capsys.readouterr().err
    monkeypatch.setattr(nvidia, 'has_gpu_mxnet', lambda: False)
    assert choose('auto', None, [AMPERE], None) == ('cpu', (0,))
    assert 'the GPU is not used' in capsys.readouterr().err


@pytest.mark.parametrize('place, threads', [(None, 8), ('1/3', 2), ('0/20', 1)])
def test_workers_of_one_machine_share_its_cores(monkeypatch, place, threads):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(devices, 'usable_cores', lambda: 8)
    monkeypatch.setenv(devices.PLACE, place) if place else monkeypatch.delenv(devices.PLACE, raising=False)
    devices.share_cores()
    assert devices.threads() == str(threads)


@pytest.mark.parametrize(
    'ids, capabilities, problem, message',
    [
        (None, [], 'the NVIDIA driver (libcuda.so.1) is not installed', 'driver.*--device cpu'),
        (None, [HOPPER], None, 'compute capability is 9.0.*--device cpu'),
        ((1,), [AMPERE, (12, 0)], None, 'gpu:1: its compute capability is 12.0'),
        (None, [KEPLER], None, 'compute capability is 3.7, .* 5.0 to 8.9'),
        ((3,), [AMPERE, AMPERE], None, 'GPUs 0 to 1'),
    ],
)
def test_gpu_that_cannot_be_used_is_one_clear_line(ids, capabilities, problem, message):
    with pytest.raises(UserError, match=message) as error:
        devices.choose_device('gpu', ids, capabilities, problem)
    assert '\n' not in str(error.value)


def test_dtype_auto_and_refusals(monkeypatch):
    choose = devices.choose_dtype
    assert choose('auto', 'gpu', [AMPERE]) == 'float16'
    assert choose('auto', 'gpu', [AMPERE, PASCAL]) == 'float32'
    monkeypatch.setattr(devices, '_cpu_description', lambda: 'model name\t: One\nflags: avx512_bf16')
    for auto in 'float32', 'bfloat16':
        asked = []
        monkeypatch.setattr(devices.precision, 'faster_on', lambda cpu: asked.append(cpu) or auto)
        assert choose('auto', 'cpu', []) == auto and asked == ['One']
    assert choose('bfloat16', 'cpu', []) == 'bfloat16' and asked == ['One'], 'what is named is not measured'
    monkeypatch.setattr(devices, '_cpu_description', lambda: '')
    assert choose('auto', 'cpu', []) == 'float32' and asked == ['One'], 'nothing to choose from'
    for dtype, kind in (('bfloat16', 'gpu'), ('float16', 'cpu'), ('bfloat16', 'cpu')):
        with pytest.raises(UserError, match=f'--dtype {dtype}'):
            choose(dtype, kind, [AMPERE])


@pytest.fixture
def stand_in(tmp_path):
    """Write a module in place of mxnet; returns what puts it before the installed one."""

    def write(code):
        (tmp_path / 'mxnet.py').write_text(code)
        return {'PYTHONPATH': str(tmp_path)}

    return write


def fresh(code, **settings):
    environment = {name: value for name, value in os.environ.items() if name != 'OMP_NUM_THREADS'}
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=dict(environment, **settings),
    )


PREPARE = 'from training.machine import devices; devices.prepare("cpu")'
SHOW_THREADS = 'import os; print(os.environ["OMP_NUM_THREADS"])'  # those that mxnet would begin with


@pytest.mark.parametrize(
    'quota, cores',
    [
        ('max 100000', 4),
        ('200000 100000', 2),
        ('150000 100000', 1),
        ('50000 100000', 1),
        ('800000 100000', 4),
        (None, 4),
    ],
)
def test_cores_are_those_of_the_affinity_cut_to_the_quota(monkeypatch, tmp_path, quota, cores):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(4)))
    file = tmp_path / 'cpu.max'
    if quota:
        file.write_text(quota)
    monkeypatch.setattr(devices, 'Path', lambda _: file)
    assert devices.usable_cores() == cores


def test_threads_are_the_cores_this_process_may_use(stand_in):
    settings = stand_in(SHOW_THREADS)
    assert fresh(PREPARE, **settings).stdout.strip() == str(devices.usable_cores())
    pinned = 'import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]); ' + PREPARE
    assert fresh(pinned, **settings).stdout.strip() == '1'


def test_threads_that_the_user_set_are_kept(stand_in):
    assert fresh(PREPARE, **stand_in(SHOW_THREADS), OMP_NUM_THREADS='3').stdout.strip() == '3'


@pytest.mark.parametrize(
    'error, code, line',
    [
        (UserError('--lr: too high'), 2, 'error: --lr: too high\n'),
        (KeyboardInterrupt(), 130, ''),
    ],
)
def test_what_ends_a_script_is_at_most_one_line(monkeypatch, capsys, error, code, line):
    def main(argv):
        raise error

    monkeypatch.setattr(sys, 'argv', ['script'])
    with pytest.raises(SystemExit) as end:
        errors.exit_with(main)
    assert end.value.code == code and capsys.readouterr().err == line


@pytest.mark.parametrize('role', ['worker', 'server', 'scheduler'])
def test_every_process_has_the_alias_that_numpy_removed_before_it_imports_mxnet(stand_in, role):
    settings = stand_in('import sys, numpy; sys.exit(10 if "bool" in vars(numpy) else 11)')
    settings.update(dict.fromkeys(parameter_server.ENVIRONMENT, '1'), DMLC_ROLE=role)
    result = fresh('import train_cifar; train_cifar.main(["--kvstore", "dist_sync"])', **settings)
    assert result.returncode == 10, result.stderr


def test_prepare_after_mxnet_is_a_programming_error():
    with pytest.raises(RuntimeError, match='before mxnet is imported'):
        devices.prepare('cpu')


def test_mxnet_starts_without_the_packages_that_only_its_utilities_use():
    code = (
        f'{PREPARE}; import sys; '
        'assert not {"scipy", "sklearn"} & set(sys.modules); '
        'import mxnet, scipy.stats, sklearn.metrics; print(mxnet.nd.ones(2).sum().asscalar())'
    )
    assert fresh(code).stdout.strip() == '2.0'
