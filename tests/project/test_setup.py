"""make setup and pip install."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.fixture
def project(tmp_path):
    for name in ('Makefile', 'requirements.txt', 'requirements-cpu.txt'):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder, *words, **settings):
    return subprocess.run(
        ['make', *words], cwd=folder, capture_output=True, text=True, env=dict(os.environ, **settings)
    )


def stand_in(folder, name, script):
    path = folder / name
    path.write_text('#!/bin/sh\n' + script)
    path.chmod(0o755)
    return path


def test_unsuitable_python_is_one_clear_line(project):
    old = stand_in(project, 'python3.13', 'test "$1" = --version && echo Python 3.13.0; exit 1')
    result = make(project, 'setup', f'PYTHON={old}')
    errors = [line for line in result.stdout.splitlines() if line.startswith('error:')]
    assert result.returncode == 2
    assert errors == [
        'error: mxnet 1.9.1 needs Python 3.9 to 3.12, found Python 3.13.0; try make '
        'PYTHON=/path/to/python3.11'
    ]
    assert not (project / '.venv').exists()


@pytest.mark.parametrize(
    'listing, requirements',
    [
        ('libcuda.so.1 (libc6,x86-64) => /usr/lib/libcuda.so.1', 'requirements.txt'),
        ('libc.so.6 => /lib/libc.so.6', 'requirements-cpu.txt'),
    ],
)
def test_requirements_follow_the_driver(project, listing, requirements):
    stand_in(project, 'ldconfig', f'echo "{listing}"')
    result = make(project, '-n', 'setup', PATH=f'{project}:{os.environ["PATH"]}')
    assert f'-r {requirements}' in result.stdout


def test_second_setup_does_nothing(project):
    (project / '.venv').mkdir()
    (project / '.venv' / 'ready-requirements-cpu.txt').touch()
    stand_in(project, 'ldconfig', 'true')
    result = make(project, 'setup', PATH=f'{project}:{os.environ["PATH"]}')
    assert 'Nothing to be done' in result.stdout


@pytest.mark.parametrize('name', ['requirements.txt', 'requirements-cpu.txt'])
def test_requirements_are_locked(name):
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith('#')]
    assert len(lines) > 100
    for line in lines:
        assert re.fullmatch(r'[\w.-]+==[\w.]+( ; [^#@]+)?', line), line


def test_pip_installs_the_loss_packages_alone(tmp_path):
    source = tmp_path / 'source'
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns('.venv', '.git', 'output'))
    subprocess.run(
        [
            sys.executable,
            '-m',
            'pip',
            'install',
            '--quiet',
            '--no-deps',
            '--no-build-isolation',
            '--target',
            tmp_path / 'site',
            source,
        ],
        check=True,
    )
    installed = {path.name for path in (tmp_path / 'site').iterdir() if path.suffix != '.dist-info'}
    assert installed == {'gmloss', 'center_loss'}
    subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            '-c',
            'import gmloss, center_loss; '
            f'assert gmloss.__file__.startswith({str(tmp_path)!r}); '
            'center_loss.CenterLoss(2, 2)',
        ],
        check=True,
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(tmp_path / 'site')),
    )
