"""kill -9 at random moments, resumed until the run ends: nothing is lost, doubled or different."""

import random
import re
import signal
import time

import pytest
from small_runs import SMALL, run_fields, same_weights, start

from training.runs.folder import RunFolder

WORDS = ('--num-samples', 64, '--batch-size', 32)
EPOCH_SECONDS = 0.5  # or more


def kill_at(process, folder, moment, rng):
    """Kill a run at one of three kinds of moment; False if it had ended by itself before."""
    if moment == 'start':
        time.sleep(rng.uniform(0, 4))
    else:
        for line in process.stdout:
            if re.match(r'epoch|recipe', line) and rng.random() < 0.5:
                break
        if moment == 'write':  # while the next checkpoint, or what follows it, is being written
            while process.poll() is None and not list(folder.glob('checkpoint.npz.new*')):
                time.sleep(0.0005)
            time.sleep(rng.uniform(0, 0.01))
        else:
            time.sleep(rng.uniform(0, EPOCH_SECONDS))
    if process.poll() is not None:
        return False
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return True


def killed_and_resumed(folder, version, kills, epochs, seed=0):
    """Train with so many kills on the way; returns how many there were, and where they hit."""
    rng, done, halves = random.Random(seed), 0, 0
    while True:
        begun = RunFolder(folder).has_checkpoint
        process = start(folder, *WORDS, '--version', version, '--epochs', epochs, *['--resume'] * begun)
        if done < kills and kill_at(process, folder, rng.choice(('start', 'epoch', 'write')), rng):
            done += 1
            halves += bool(list(folder.glob('checkpoint.npz.new*')))
            continue
        output = process.communicate(timeout=600)[0]
        assert process.returncode == 0, output
        return done, halves


@pytest.mark.parametrize(
    'version, kills, epochs',
    [('fast', 3, 6), pytest.param('fast', 50, 100, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
)
def test_killed_run_ends_as_the_undisturbed_one(tmp_path, run_here, version, kills, epochs, no_figures):
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    words = (*SMALL, *WORDS, '--version', version, '--epochs', epochs, '--output-dir', whole)
    assert run_here('train_cifar', *words) == 0
    done, halves = killed_and_resumed(killed, version, kills, epochs)
    assert done == kills and (kills < 50 or halves > 0)
    rows = run_fields(killed)
    assert [row['epoch'] for row in rows] == [str(epoch + 1) for epoch in range(epochs)]
    assert rows == run_fields(whole)
    assert same_weights(killed, whole)
