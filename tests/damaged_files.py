"""Files that are damaged one way each, and what the scripts say of them.

A row holds the name of the case, what does the damage in the folder of test_bad_input.py, in some
tables the words of the command, and the message.
"""

import gzip
import os
from pathlib import Path

import numpy as np
from conftest import write_idx

IMAGES, LABELS = 'train-images-idx3-ubyte', 'train-labels-idx1-ubyte'


class Pickled:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ('unpickled',)


def put(name, content):
    return lambda: Path(name).write_bytes(content)


def cut(name, length):
    return lambda: os.truncate(name, length)


def change(name, old, new):
    def damage():
        text = Path(name).read_text()
        assert old in text
        Path(name).write_text(text.replace(old, new))

    return damage


def remove(*names):
    return lambda: [Path(name).unlink() for name in names]


def gzipped(name, length):
    """In place of the file, the first `length` bytes of NAME.gz."""

    def damage():
        Path(f'{name}.gz').write_bytes(gzip.compress(Path(name).read_bytes())[:length])
        Path(name).unlink()

    return damage


def folder(name):
    def damage():
        Path(name).unlink(missing_ok=True)
        Path(name).mkdir()

    return damage


def unreadable(name):
    """Also to root, whom permissions do not stop."""

    def damage():
        Path(name).unlink()
        Path(name).symlink_to('/proc/self/mem')

    return damage


def idx(name, array):
    return lambda: write_idx(Path('digits') / name, np.asarray(array))


def config(old, new):
    return change('run/config.yaml', old, new)


def variants(text):
    """A plan for ablate.py with these variants of `fast`."""
    return put('plan.yaml', f'version: fast\nvariants: {text}'.encode())


RECIPES = [
    ('empty', put('run/config.yaml', b''), 'expected NAME: VALUE pairs, got None'),
    ('binary', put('run/config.yaml', bytes(range(256))), 'cannot be read as YAML'),
    ('a list', put('run/config.yaml', b'[1, 2]'), r'expected NAME: VALUE pairs, got \[1, 2\]'),
    ('a number', put('run/config.yaml', b'3'), 'expected NAME: VALUE pairs, got 3'),
    ('not YAML', put('run/config.yaml', b'a: ['), 'cannot be read as YAML'),
    ('too deep', put('run/config.yaml', b'[' * 1500), 'cannot be read as YAML: .*recursion'),
    ('an impossible date', put('run/config.yaml', b'a: 2001-99-99'), 'cannot be read as YAML'),
    ('code', put('run/config.yaml', b'!!python/object/apply:os.mkdir [unpickled]'), 'cannot be read as YAML'),
    ('a folder', folder('run/config.yaml'), 'there is no run in this folder'),
    (
        'unknown section',
        config('optimisation:', 'optimization:'),
        'optimization: unknown field, the nearest known one is optimisation',
    ),
    (
        'unknown field',
        config('  lr:', '  lrr: 1\n  lr:'),
        'optimisation.lrr: unknown field, the nearest known one is lr',
    ),
    ('section without fields', put('run/config.yaml', b'loss:'), 'loss: expected NAME: VALUE'),
    ('section a number', put('run/config.yaml', b'loss: 3'), 'loss: expected NAME: VALUE'),
    ('key a number', put('run/config.yaml', b'run: {1: 2}'), 'run.1: Keys should be strings'),
    (
        'truth for a count',
        config('epochs: 1', 'epochs: true'),
        'optimisation.epochs: expected a value other than true and false, got True',
    ),
    (
        'truth in a list',
        config('decay_epochs: []', 'decay_epochs: [1, true]'),
        'decay_epochs: expected a value other than true and false',
    ),
    (
        'number for a list',
        config('decay_epochs: []', 'decay_epochs: 3'),
        'decay_epochs: .* valid list, got 3',
    ),
    (
        'text for truth',
        config('zero_gamma: false', 'zero_gamma: maybe'),
        "model.zero_gamma: .* valid boolean.*'maybe'",
    ),
    ('number for text', config('device: cpu', 'device: 3'), 'run.device: .* valid string, got 3'),
    (
        'NaN in a list',
        config('decay_epochs: []', 'decay_epochs: [1, .nan]'),
        'decay_epochs.1: .* finite number',
    ),
    ('infinite', config('seed: 0', 'seed: .inf'), 'run.seed: .* finite'),
    ('fraction for a count', config('seed: 0', 'seed: 1.5'), 'run.seed: .* valid integer'),
    ('nothing for a number', config('seed: 0', 'seed:'), 'run.seed: .* valid integer.*None'),
]

CIFAR_FILES = [
    ('missing', remove('data/train.bin'), 'data: neither train.bin nor train.bin.gz is there'),
    (
        'version for Python',
        lambda: Path('data/train.bin').rename('data/train'),
        'data: neither train.bin .* is there; its file train is of the version for Python, and the binary',
    ),
    ('empty', cut('data/train.bin', 0), 'data/train.bin: holds 0 bytes, which is no number'),
    ('cut', cut('data/train.bin', 3074 * 24 - 1), 'which is no number of images'),
    ('label', put('data/train.bin', bytes([0, 100]) + bytes(3072)), 'a label 100; .* 0 to 99'),
    ('a folder', folder('data/train.bin'), 'data/train.bin: cannot be read .*Is a directory'),
    ('unreadable', unreadable('data/test.bin'), 'data/test.bin: cannot be read'),
    ('cut gzip', gzipped('data/test.bin', 99), 'data/test.bin: cannot be read'),
]

IDX_FILES = [
    ('missing', remove(f'digits/{IMAGES}.gz'), f'neither {IMAGES} nor {IMAGES}.gz is there'),
    ('cut gzip', cut(f'digits/{IMAGES}.gz', 30), 'cannot be read'),
    ('no gzip', put(f'digits/{IMAGES}.gz', b'IDX'), 'cannot be read'),
    ('empty', put(f'digits/{IMAGES}.gz', gzip.compress(b'')), 'no IDX file of bytes in 3'),
    ('other magic', put(f'digits/{IMAGES}', b'PNG and so on' * 100), 'no IDX file of bytes in 3'),
    ('labels for images', idx(f'{IMAGES}.gz', np.zeros(24)), 'no IDX file of bytes in 3'),
    (
        'short',
        put(f'digits/{LABELS}', bytes([0, 0, 8, 1, 0, 0, 0, 24]) + bytes(23)),
        'holds 23 bytes of data, its header says 24',
    ),
    ('label', idx(f'{LABELS}.gz', np.full(24, 10)), 'has a label 10; labels must be 0 to 9'),
    ('fewer labels', idx(f'{LABELS}.gz', np.zeros(23)), '23 labels, not N x 28 x 28 and N'),
    ('other extent', idx(f'{IMAGES}.gz', np.zeros((24, 27, 28))), r'\(24, 27, 28\)'),
    ('a folder', folder(f'digits/{IMAGES}'), 'cannot be read .*Is a directory'),
    ('unreadable', unreadable(f'digits/{IMAGES}.gz'), 'cannot be read'),
]
