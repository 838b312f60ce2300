"""Files that are damaged one way each, and what the scripts say of them.

A row holds the name of the case, what does the damage in the folder of test_bad_input.py, in some
tables the words of the command, and the message.
"""

import gzip
import json
import os
import pickle
from pathlib import Path

import mxnet as mx
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


def stored(edit):
    """A checkpoint whose arrays and state went through edit(arrays, state)."""

    def damage():
        with np.load('run/checkpoint.npz') as archive:
            arrays = dict(archive)
        state = json.loads(str(arrays.pop('state')))
        edit(arrays, state)
        np.savez('run/checkpoint.npz', state=np.array(json.dumps(state)), **arrays)

    return damage


def weights(edit):
    def damage():
        arrays = mx.nd.load('run/best.params')
        edit(arrays)
        mx.nd.save('weights', arrays)

    return damage


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

WEIGHTS = [
    (
        'missing',
        remove('run/last.params'),
        '--test --weights run/last.params',
        'last.params: there is no such weights file',
    ),
    (
        'all missing',
        remove('run/best.params', 'run/last.params'),
        '--test',
        'run/best.params: there is no such',
    ),
    ('a folder', folder('weights'), '--weights weights', 'weights: there is no such weights file'),
    ('empty', put('weights', b''), '--weights weights', 'weights: cannot be read as weights'),
    ('garbage', put('weights', b'garbage' * 99), '--weights weights', 'cannot be read as weights'),
    ('cut', cut('run/last.params', 500000), '--test', 'run/last.params: cannot be read as weights'),
    ('a checkpoint', None, '--weights run/checkpoint.npz', 'cannot be read'),
    (
        'without names',
        lambda: mx.nd.save('weights', [mx.nd.zeros(1)]),
        '--weights weights',
        'weights: .*holds arrays without names',
    ),
    (
        'other shape',
        weights(lambda arrays: arrays.update({'mixture.mean': mx.nd.zeros((10, 64))})),
        '--weights weights',
        r'mixture.mean has shape \(10, 64\), not \(100, 64\)',
    ),
    (
        'array missing',
        weights(lambda arrays: arrays.pop('mixture.mean')),
        '--weights weights',
        'mixture.mean is missing',
    ),
    (
        'other model',
        None,
        '--model cifar_resnet56_v1 --weights run/best.params',
        r'run/best.params: does not fit this model: .*; and \d+ more',
    ),
]

CHECKPOINTS = [
    ('missing', remove('run/checkpoint.npz'), 'there is no checkpoint to resume from'),
    ('a folder', folder('run/checkpoint.npz'), 'run/checkpoint.npz: cannot be read .Is a directory.; no'),
    ('unreadable', unreadable('run/checkpoint.npz'), 'run/checkpoint.npz: cannot be read'),
    ('empty', put('run/checkpoint.npz', b''), 'damaged checkpoint'),
    ('garbage', put('run/checkpoint.npz', b'x' * 5000), 'damaged checkpoint'),
    ('cut', cut('run/checkpoint.npz', 5000), 'damaged checkpoint'),
    (
        'pickled state',
        lambda: np.savez('run/checkpoint.npz', state=np.array([Pickled()], object)),
        'damaged checkpoint',
    ),
    ('pickled', put('run/checkpoint.npz', pickle.dumps(Pickled())), 'damaged checkpoint'),
    ('one array', lambda: np.save(open('run/checkpoint.npz', 'wb'), np.zeros(3)), 'damaged checkpoint'),
    ('no state', lambda: np.savez('run/checkpoint.npz', a=np.zeros(3)), 'damaged checkpoint'),
    (
        'texts',
        stored(lambda arrays, _: arrays.update({'parameter/x': np.array(['text'])})),
        'damaged checkpoint',
    ),
    (
        'later format',
        stored(lambda _, state: state.update(format=2)),
        'a checkpoint of format 2, and this version reads format 1',
    ),
    (
        'no epoch',
        stored(lambda _, state: state.pop('epoch')),
        'damaged checkpoint .its state: epoch: Field required',
    ),
    (
        'other history',
        stored(lambda _, state: state.update(history=3)),
        'its state: history: Input should be a valid list',
    ),
    (
        'other model',
        stored(
            lambda arrays, _: arrays.update(
                {'parameter/graph.x': arrays.pop('parameter/graph.classifier.mixture.mean')}
            )
        ),
        'does not fit this model: graph.classifier.mixture.mean is missing; graph.x is unknown',
    ),
    (
        'other shape',
        stored(lambda arrays, _: arrays.update({'optimizer/0/0/0': np.zeros((2, 2))})),
        r'optimizer/0/0/0 has shape \(2, 2\), not \(16,',
    ),
    (
        'other optimizers',
        stored(lambda _, state: state.update(update_counts=[{}, {}])),
        'does not hold the state of 1 optimizer',
    ),
]

RUN_FILES = [
    ('compare', 'run', remove('run/config.yaml'), 'run: there is no run in this folder'),
    ('compare', 'run', remove('run/metrics.csv'), 'metrics.csv is missing'),
    ('compare', 'run', put('run/metrics.csv', b'epoch,val_acc\n1,\n'), 'damaged'),
    ('compare', 'run', put('run/metrics.csv', b''), 'damaged'),
    ('compare', 'run', put('run/summary.json', b'{'), 'damaged'),
    ('compare', 'run', put('run/summary.json', b'[]'), 'damaged'),
    ('compare', 'run', put('run/config.yaml', b'[]'), 'config.yaml: expected NAME: VALUE pairs'),
    ('compare', 'run', put('run/config.yaml', b'a: ['), 'config.yaml: cannot be read as YAML'),
    ('predict', 'run photo.png', put('run/summary.json', b'{'), 'run/summary.json: '),
    ('predict', 'run photo.png', put('run/summary.json', b'[]'), 'run/summary.json: '),
    ('predict', 'run photo.png', cut('run/last.params', 100), 'cannot be read as weights'),
    ('predict', 'run photo.png', config('lr:', 'lrr: 1\n  lr:'), 'lrr: unknown field'),
    ('train_cifar', '--teacher run --output-dir new', cut('run/last.params', 100), 'cannot be read as'),
    ('ablate', 'plan.yaml', put('plan.yaml', b'['), 'cannot be read as YAML'),
    ('ablate', 'plan.yaml', put('plan.yaml', b''), 'expected NAME: VALUE pairs'),
    ('ablate', 'plan.yaml', put('plan.yaml', b'variants: {a: {}}'), 'version: Field required'),
    ('ablate', 'plan.yaml', variants('{}'), 'variants: .*at least 1'),
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: [fast]\nvariants: {a: {}}'), 'version: '),
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: quick\nvariants: {a: {}}'), 'no such recipe'),
    (
        'ablate',
        'plan.yaml',
        variants('{a: {smothing: 1}}'),
        'a: smothing is no field that a variant can change',
    ),
    ('ablate', 'plan.yaml', variants('{a: {seed: 1}}'), 'a: seed is'),
    ('ablate', 'plan.yaml', variants('{a: {teacher: null}}'), 'a: teacher: expected a value'),
    (
        'ablate',
        'plan.yaml',
        variants('{a/b: {}}'),
        'a/b: its runs are folders, whose names can have no slash',
    ),
    ('ablate', 'plan.yaml', variants('{a b: {}, a-b: {}}'), 'a-b: its runs would have the folders of a b'),
    ('compare', 'run', put('run/summary.json', b'{}'), 'damaged'),
    ('compare', 'run', config('dataset: cifar100', 'dataset: cifar1000'), "got 'cifar1000'"),
    (
        'ablate',
        'plan.yaml',
        variants('{a: {mixup: -1}}'),
        r'error: plan.yaml: a: refinement.mixup: .*got -1$',
    ),
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: fast\nvariant: {a: {}}'), 'variant'),
]
