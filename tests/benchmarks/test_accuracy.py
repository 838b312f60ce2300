"""The benchmark of time to an accuracy: its trainings on a few images, its table and its figure."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from mxnet import nd

from benchmarks import accuracy, baselines, blocks, trainings
from tests.written_run import ACCURACIES, write_run
from training.machine import devices


def rows_of(file):
    with open(file, newline='') as rows:
        return list(csv.DictReader(rows))


@pytest.mark.parametrize('name', ['gluoncv', 'v6'])
def test_trainings_run_and_measure_accuracy(name, monkeypatch):
    monkeypatch.setattr(devices, 'prepare', devices.choose)  # mxnet is imported already
    monkeypatch.setattr(trainings, 'BATCH', 32)
    loader = baselines.loader
    monkeypatch.setattr(baselines, 'loader', lambda *words: loader(*words, workers=1))
    _, epoch, found = trainings.TRAININGS[name](256)
    epoch(0)
    share = 256 * found()
    assert share == round(share) and 0 < share < 256


def test_v6_classifies_by_the_published_distance():
    rng = np.random.default_rng(0)
    x, mean, variance = (rng.uniform(0.5, 2, shape) for shape in ((5, 4), (3, 4), (3, 4)))
    block = blocks.BroadcastV6Loss(3, 4)
    block.initialize()
    block.mean.set_data(nd.array(mean))
    block.variance.set_data(nd.array(variance))
    squared = np.square(x[:, None] - mean).sum(axis=2)
    np.testing.assert_allclose(
        block.logits(nd.array(x)).asnumpy(), -squared / 2 * (1 / (variance + 1e-8)).sum(axis=1), rtol=1e-5
    )


def test_training_ends_with_its_last_epoch_or_after_its_time(tmp_path, monkeypatch):
    numbers = []
    monkeypatch.setitem(trainings.TRAININGS, 'made', lambda _: (3, numbers.append, lambda: 0.5))
    for minutes, epochs in ((60, 3), (0, 1)):
        numbers.clear()
        file = tmp_path / f'{minutes}.csv'
        trainings.run('made', file, minutes)
        assert [(int(row['epoch']), float(row['val_acc'])) for row in rows_of(file)] == [
            (number + 1, 0.5) for number in range(epochs)
        ]
        assert numbers == list(range(epochs)) and not file.with_suffix('.part').exists()


def test_rate_is_a_cosine_over_all_epochs():
    rates = [trainings.cosine(share * trainings.EPOCHS) for share in (0, 0.25, 0.5, 1)]
    half = trainings.LR / 2
    np.testing.assert_allclose(rates, [2 * half, half * (1 + math.sqrt(0.5)), half, 0], atol=1e-12)


def test_report_trains_what_is_missing_and_says_when_accuracies_were_reached(tmp_path, monkeypatch, capsys):
    started = []

    def start(*words):
        started.append(words)
        if '--output-dir' in words:
            write_run(Path(words[words.index('--output-dir') + 1]), 0, sizes=(16, 32, 32))
        else:
            rows = (f'{n},{value},{60 * n}' for n, value in enumerate(ACCURACIES[0], 1))
            Path(words[3]).write_text('\n'.join(['epoch,val_acc,seconds', *rows]))

    monkeypatch.setattr(accuracy, 'FOLDER', tmp_path)
    monkeypatch.setattr(accuracy, 'start', start)
    monkeypatch.setattr(accuracy.importlib.util, 'find_spec', lambda name: None)  # no torch
    accuracy.report(5)
    lines = capsys.readouterr().out.splitlines()
    assert len(started) == 4 and 'PyTorch loop: left out' in lines[0]
    table = [line.split() for line in lines if line.endswith('3.0 min')]
    assert [row[-6:] for row in table] == [['2.0', '-', '-', '0.8000,', '3.0', 'min']] * 4
    curve = accuracy.our_curve('fast', [])  # of the last size alone, after the time of all epochs
    np.testing.assert_array_equal(curve, [[120, 180], ACCURACIES[0][1:]])
    assert (tmp_path / 'time-to-accuracy.png').stat().st_size > 10_000
    accuracy.report(5)
    assert len(started) == 4
