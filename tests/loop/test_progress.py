"""What a run prints between the ends of its epochs."""

import pytest

from training.loop import progress as module
from training.loop.epoch import STEPS_IN_FLIGHT
from training.loop.progress import Progress, duration


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test lets pass."""
    now = [100.0]
    monkeypatch.setattr(module.time, 'perf_counter', lambda: now[0])
    return now


def run(clock, progress, epoch, steps, seconds, weight=1.0, images=10_000, done=0):
    with progress.epoch(epoch, images, done, weight) as update:
        for step in range(steps):
            clock[0] += 20 if step == 0 else seconds  # the first one traces
            update(100)


def test_estimate_comes_once_and_counts_what_is_left_of_all_epochs(clock, capsys):
    progress = Progress([10_000] * 3)
    run(clock, progress, 0, 100, 1)
    # After 10 steps, 100 images/s: 9,000 of this epoch and 20,000 of the others.
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'about 5 min to go on this machine, at 100 images/s'
    assert sum('about' in line for line in lines) == 1
    run(clock, progress, 1, 100, 1)
    assert 'about' not in capsys.readouterr().out


def test_steps_that_are_only_under_way_are_no_part_of_the_rate(clock, capsys):
    progress = Progress([10_000])
    with progress.epoch(0, 10_000, 0, 1.0) as update:
        for step in range(100):
            clock[0] += 1 if step > STEPS_IN_FLIGHT else 0.01  # not yet waited for
            update(100)
    assert capsys.readouterr().out.startswith('about 2 min to go on this machine, at 100 images/s')


def test_a_line_every_30_seconds_where_there_is_no_terminal(clock, capsys):
    run(clock, Progress([10_000] * 3), 0, 100, 1)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[0] == 'epoch 1/3: 1200 of 10000 images, 100 images/s, 88 s left, 5 min to the end of the run'
    assert len(lines) == 3  # 119 seconds


def test_smaller_images_are_counted_by_what_they_take(clock, capsys):
    progress = Progress([2_500, 10_000])
    run(clock, progress, 0, 12, 1, weight=0.25)  # 100 small images/s are 25 large ones
    assert capsys.readouterr().out.startswith('about 8 min to go')  # 90 s and 400 s


def test_resumed_epoch_counts_what_is_left(clock, capsys):
    run(clock, Progress([10_000] * 2), 1, 12, 1, done=2_000)
    assert capsys.readouterr().out.startswith('about 70 s to go')


def test_short_runs_and_other_workers_say_nothing(clock, capsys):
    run(clock, Progress([2_000]), 0, 20, 0.1, images=2_000)
    run(clock, Progress([10_000] * 9, quiet=True), 0, 100, 1)
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    'seconds, words', [(3, '3 s'), (89.4, '89 s'), (95, '2 min'), (5000, '83 min'), (12345, '3 h 26 min')]
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words
