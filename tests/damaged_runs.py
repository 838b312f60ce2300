"""Files of runs, each damaged in one way, and the message that names it."""

import json
import pickle

import mxnet as mx
import numpy as np
from damaged_files import Pickled, config, cut, folder, put, remove, unreadable, variants


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
