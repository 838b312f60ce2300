"""The faster precision of a CPU: measured once and kept."""

import json

import pytest

from training.machine import precision


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """(The cache folder, what has been measured); bfloat16 is the faster one."""
    asked = []
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setenv('OMP_NUM_THREADS', '2')
    seconds = {'float32': 0.17, 'bfloat16': 0.1}
    monkeypatch.setattr(precision, '_seconds', lambda dtype: asked.append(dtype) or seconds[dtype])
    return tmp_path / 'gmloss', asked


def test_is_measured_once_for_each_cpu_and_number_of_threads(measured, monkeypatch, capsys):
    _, asked = measured
    assert [precision.faster_on('One') for _ in range(3)] == ['bfloat16'] * 3
    assert asked == ['float32', 'bfloat16']
    assert capsys.readouterr().out == 'bfloat16 trains 1.7 times as fast as float32 on this CPU\n'
    precision.faster_on('Other')
    monkeypatch.setenv('OMP_NUM_THREADS', '4')
    precision.faster_on('One')
    assert len(asked) == 6


@pytest.mark.parametrize('content', ['', '[1]', '{"One, 2 threads": "int8"}', '{"One, 2 thr'])
def test_a_cache_that_makes_no_sense_is_written_anew(measured, content):
    folder, asked = measured
    folder.mkdir()
    (folder / 'precision.json').write_text(content)
    assert precision.faster_on('One') == 'bfloat16' and len(asked) == 2
    assert json.loads((folder / 'precision.json').read_text()) == {'One, 2 threads': 'bfloat16'}


def test_a_home_that_cannot_be_written_to_is_no_obstacle(measured):
    folder, asked = measured
    folder.write_text('a file where the folder would be')
    assert precision.faster_on('One') == 'bfloat16' and len(asked) == 2


def test_a_real_measurement():
    assert 1e-4 < precision._seconds('float32') < 60
