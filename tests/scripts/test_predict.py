"""predict.py on real test images written as files."""

import csv
import json
import os

import numpy as np
import pytest
from conftest import RECORD
from PIL import Image

from training.data import datasets
from training.data.datasets import CLASS_NAMES

RUN = RECORD / 'cifar-fast-seed0'


@pytest.fixture(scope='module')
def pictures(cifar, tmp_path_factory):
    """A folder of 60 real test images, with one in grey, one enlarged, and one that is broken."""
    folder = tmp_path_factory.mktemp('pictures')
    _, test = cifar
    for number in range(60):
        image = Image.fromarray(test.images[number].transpose(1, 2, 0))
        image.save(folder / f'{number:02d}.png')
    Image.open(folder / '00.png').resize((96, 64)).convert('L').save(folder / 'grey.jpg')
    (folder / 'broken.png').write_bytes((folder / '01.png').read_bytes()[:100])
    (folder / 'notes.txt').write_text('no image')
    return folder, [CLASS_NAMES['cifar10'][label] for label in test.labels[:60]]


def test_folder_is_classified_and_what_is_broken_is_named(pictures, run_here, capsys, tmp_path):
    folder, labels = pictures
    assert run_here('predict', RUN, folder, '--output', tmp_path / 'out.csv') == 1
    printed = capsys.readouterr()
    assert 'broken.png: left out' in printed.err and '61 of 62 images' in printed.out
    with open(tmp_path / 'out.csv') as file:
        rows = list(csv.DictReader(file))
    assert [row['file'] for row in rows][-1].endswith('grey.jpg') and len(rows) == 61
    right = np.mean([row['class'] == label for row, label in zip(rows, labels)])
    assert right > 0.85
    assert all(
        0 < float(row['probability']) <= 1 and np.isfinite(float(row['log_likelihood'])) for row in rows
    )


def test_batches_change_nothing(pictures, run_here, tmp_path, monkeypatch, capsys):
    folder, _ = pictures
    (tmp_path / 'broken.png').write_bytes(b'none')
    for name, size in (('whole', 500), ('parts', 10)):
        monkeypatch.setattr(datasets, 'MOST_AT_ONCE', size)
        assert (
            run_here(
                'predict',
                RUN,
                tmp_path / 'broken.png',
                *sorted(folder.glob('[01]?.png')),
                '--output',
                tmp_path / f'{name}.csv',
            )
            == 1
        )
        assert capsys.readouterr().err.count('broken.png: left out') == 1
    whole, parts = (list(csv.DictReader(open(tmp_path / f'{name}.csv'))) for name in ('whole', 'parts'))
    assert len(whole) == 20
    for row, other in zip(whole, parts):
        assert (row['file'], row['class']) == (other['file'], other['class'])
        assert float(row['probability']) == pytest.approx(float(other['probability']), abs=1e-4)


@pytest.mark.parametrize('output', ['out.csv', 'out.json'])
def test_names_of_whatever_bytes_cost_no_results(pictures, run_here, tmp_path, output):
    folder, _ = pictures
    (tmp_path / os.fsdecode(b'caf\xe9.png')).write_bytes((folder / '05.png').read_bytes())
    assert run_here('predict', RUN, tmp_path, '--output', tmp_path / output) == 0
    assert 'caf' in (tmp_path / output).read_text(encoding='utf-8')


def test_json_and_thresholds_of_a_run_that_has_them(pictures, run_here, tmp_path):
    folder, _ = pictures
    run = tmp_path / 'run'
    run.mkdir()
    for name in ('config.yaml', 'last.params'):
        (run / name).write_bytes((RUN / name).read_bytes())
    summary = json.loads((RUN / 'summary.json').read_text())
    (run / 'summary.json').write_text(
        json.dumps(dict(summary, likelihood_thresholds={'0.05': 1e9, '0.1': -1e9}))
    )
    for rate, flag in (('0.05', True), ('0.1', False)):
        assert (
            run_here(
                'predict',
                run,
                folder / '05.png',
                '--output',
                tmp_path / 'out.json',
                '--false-alarm-rate',
                rate,
            )
            == 0
        )
        (row,) = json.loads((tmp_path / 'out.json').read_text())
        assert row['unlike_training'] is flag and row['file'].endswith('05.png')
