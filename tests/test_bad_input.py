"""Every mistake is one clear line and exit code 2, and costs nothing that was there before.

The scripts run in this process, in a folder with small data sets, a finished run and a picture, all
of which are compared before and after.
"""
import gzip
import hashlib
import json
import os
import pickle
import re
import shlex
import shutil
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

from conftest import RECORD, write_cifar100, write_fashion, write_idx

ALWAYS = {
    'train_cifar': '--dataset cifar100 --data-dir data --batch-size 8 --epochs 1 --dtype float32 '
                   '--device cpu --output-dir run',
    'train_mnist': '--dataset fashion --data-dir digits --batch-size 8 --epochs 1 --dtype float32 '
                   '--device cpu --output-dir digits-run',
    'predict': '', 'compare': '', 'ablate': '', 'detect': '', 'export': ''}
IMAGES, LABELS = 'train-images-idx3-ubyte', 'train-labels-idx1-ubyte'


class Pickled:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ('unpickled',)


# What is done to the folder before the command.

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


COMMAND_LINES = [
    ('train_cifar', '--version v7', 'there are baseline, best, fast, paper, v1, v3, v4, v5, v6$'),
    ('train_cifar', '--version v2', 'says nothing of v2'),
    ('train_cifar', '--version ""', 'no such recipe; there are'),
    ('train_cifar', '--version ../cifar/fast', 'no such recipe; there are'),
    ('train_cifar', '--lrr 0.1', '--lrr: unknown option, the nearest known one is --lr$'),
    ('train_cifar', '--batch_sise=3', '--batch-sise: unknown option, .* is --batch-size$'),
    ('train_cifar', '--epoch 3', '--epoch: unknown option, the nearest known one is --epochs$'),
    ('train_cifar', 'fast', 'fast: unknown option'),
    ('train_cifar', '--lr', '--lr: expected one argument'),
    ('train_cifar', '--tensorboard=3', "--tensorboard: ignored explicit argument '3'"),
    ('train_cifar', '--resume --test', '--test: not allowed with argument --resume'),
    ('train_cifar', '--resume --weights run/best.params', '--weights: not allowed with --resume'),
    ('train_cifar', '--lr abc', r"optimisation.lr: .* valid number, .* got 'abc' \(--lr\)$"),
    ('train_cifar', '--lr nan', "optimisation.lr: .* finite number, got 'nan'"),
    ('train_cifar', '--lr 1e400', "optimisation.lr: .* finite number, got '1e400'"),
    ('train_cifar', '--lr 0', 'optimisation.lr: .* greater than 0'),
    ('train_cifar', '--wd inf', 'optimisation.wd: .* finite'),
    ('train_cifar', '--momentum 0', 'momentum: muon makes its updates of a momentum above 0'),
    ('train_cifar', '--momentum 1', 'optimisation.momentum: .* less than 1'),
    ('train_cifar', '--epochs 1.5', r"optimisation.epochs: .* valid integer.* \(--epochs\)"),
    ('train_cifar', '--epochs 0', 'optimisation.epochs: .* greater than or equal to 1'),
    ('train_cifar', '--epochs true', "optimisation.epochs: .* valid integer, .* got 'true'"),
    ('train_cifar', f'--epochs 1{"0" * 400}', 'optimisation.epochs: .* equal to 1000000'),
    ('train_cifar', '--batch-size -1', 'optimisation.batch_size: .* equal to 1'),
    ('train_cifar', '--batch-size 25', '--batch-size: a step takes 25 images .* has only 24'),
    ('train_cifar', '--device cpu:0,1 --batch-size 20', 'a step takes 40 images on 2 device'),
    ('train_cifar', '--decay-epochs a', "optimisation.decay_epochs.0: .* number, got 'a'"),
    ('train_cifar', '--decay-epochs 3 -1', 'optimisation.decay_epochs.1: .* equal to 0'),
    ('train_cifar', '--decay-epochs 5 2', r'decay_epochs: must ascend, got \[5.0, 2.0\]'),
    ('train_cifar', '--warmup-epochs 1e308', 'optimisation.warmup_epochs: .* equal to 1000000'),
    ('train_cifar', '--feature-size 0', 'model.feature_size: .* equal to 1'),
    ('train_cifar', '--feature-size 10000000000', 'model.feature_size: .* equal to 1000000'),
    ('train_cifar', '--padding 32', 'data.padding: .* equal to 31'),
    ('train_cifar', '--num-samples 0', 'data.num_samples: .* equal to 1'),
    ('train_cifar', '--holdout 24', '--holdout 24: must be less than the 24 images'),
    ('train_cifar', '--augmentation crop', "'none', 'pad-crop' or 'resized-crop', got 'crop'"),
    ('train_cifar', '--dtype int8', "run.dtype: .*'float16', got 'int8'"),
    ('train_cifar', '--dtype float16', '--dtype float16: .* use bfloat16 on a CPU'),
    ('train_cifar', '--device tpu', '--device tpu: expected auto, cpu, gpu'),
    ('train_cifar', '--device gpu:9', '--device gpu'),
    ('train_cifar', '--device cpu:9999999999999', 'expected ids from 0 to 63'),
    ('train_cifar', '--seed -1', 'run.seed: .* equal to 0'),
    ('train_cifar', '--seed 2147483648', 'run.seed: .* less than 2147483648'),
    ('train_cifar', '--margin -0.1', 'loss.margin: .* equal to 0'),
    ('train_cifar', '--margin 0 --margin-factor 2', 'margin: a growing margin must start above 0'),
    ('train_cifar', '--covariance diagonal --likelihood euclidean', 'goes with covariance identity'),
    ('train_cifar', '--covariance diagonal --variance-init 1e-4', 'variance_init: .* floor of 0.0001'),
    ('train_cifar', '--kvstore dist_async', 'optimizer: the servers of dist_async hold no kernels'),
    ('train_cifar', '--kvstore dist_async --optimizer nag --weight-average 0.99',
     'weight_average: under dist_async each worker'),
    ('train_cifar', '--covariance inverse-sum', 'covariance inverse-sum goes with euclidean'),
    ('train_cifar', '--loss softmax --validate-with-label', 'softmax has no margin'),
    ('train_cifar', '--model resnet19_v1', '--model resnet19_v1: no image classifier of GluonCV'),
    ('train_cifar', '--model ssd_300_vgg16_atrous_voc', 'no image classifier of GluonCV'),
    ('train_cifar', '--model vgg11', '--shortcut pool: vgg11 has no .*; use --shortcut conv$'),
    ('train_cifar', '--model alexnet --shortcut conv', '--model alexnet: cannot take images of 32 x 32'),
    ('train_cifar', '--teacher nosuch', '--teacher nosuch: neither a run folder nor a model'),
    ('train_cifar', '--teacher no/such', '--teacher no/such: there is no such run folder'),
    ('train_cifar', '--teacher data', 'data: there is no run in this folder'),
    ('train_cifar', '--teacher run', '--teacher run: is the folder of this run; choose another'),
    ('train_cifar', '--data-dir ""', 'data.data_dir: .* at least 1 character'),
    ('train_cifar', '--data-dir nowhere', 'nowhere: neither train.bin nor train.bin.gz is there'),
    ('train_cifar', '--output-dir ""', 'run.output_dir: .* at least 1 character'),
    ('train_cifar', '--output-dir photo.png', 'photo.png: .* choose another --output-dir'),
    ('train_cifar', '--output-dir photo.png/run', 'photo.png/run: .* choose another --output-dir'),
    ('train_cifar', f'--output-dir {"x" * 300}', 'name too long; choose another --output-dir'),
    ('train_cifar', f'--resume --output-dir {"x" * 300}', 'name too long'),
    ('train_cifar', '--output-dir /sys/run', '/sys/run: .* choose another --output-dir'),
    ('train_cifar', '--resume --output-dir data', 'data: there is no run in this folder'),
    ('train_cifar', '--test --output-dir data', 'data: there is no run in this folder'),
    ('train_cifar', '--version v4 --warmup linear', 'a linear warm-up has a length above 0; for no '),
    ('train_cifar', '--warmup-epochs 21', 'a warm-up of 21 epochs does not end in a run of '),
    ('train_cifar', '--resume --wd 0.1', r'begun with other values .*wd: 0.0005 / 0.1$'),
    ('train_mnist', '--loss triplet', "'softmax', 'softmax-center', .* got 'triplet'"),
    ('train_mnist', '--version triplet', 'there are center, lgm-distance'),
    ('train_mnist', '--version ""', 'no such recipe; there are center'),
    ('train_mnist', '--data-dir digits --second-train', 'best.params: there is no such weights file'),
    ('train_mnist', '--version center --data-dir digits', 'best.params: there is no such weights file'),
    ('train_mnist', '--version two-phase --first-phase-epochs 40', 'first_phase_epochs: two-phase needs more'),
    ('train_mnist', '--num-classes 7', '--num-classes: invalid choice: 7'),
    ('train_mnist', '--lr-step 0', '--lr-step 0: must be at least 0.01'),
    ('train_mnist', '--lr-step 3 --decay-epochs 2', '--lr-step: not allowed with --decay-epochs'),
    ('train_mnist', '--lr-factor .5 --decay-factor .1', '--lr-factor: not allowed with --decay-fac'),
    ('train_mnist', '--use-gpu False --device cpu', '--use-gpu: not allowed with --device, which'),
    ('train_mnist', '--prefix a --output-dir b', '--prefix: not allowed with --output-dir, which'),
    ('train_mnist', '--ckpt-dir a --output-dir b', '--ckpt-dir: not allowed with --output-dir'),
    ('train_mnist', '--out-dir a --output-dir b', '--out-dir: not allowed with --output-dir'),
    ('train_mnist', '--train --test', '--train: not allowed with --test'),
    ('train_mnist', '--version lgm-full --alpha 1', '--alpha: of the center loss, .* --margin$'),
    ('train_mnist', '--loss lgm --lmbd 1', '--lmbd: of the center loss, .* --likelihood-weight$'),
    ('train_mnist', '--lr-step nan', '--lr-step nan: must be at least 0.01'),
    ('train_mnist', '--lr-step a', "--lr-step: invalid float value: 'a'"),
    ('train_mnist', '--eval-method psychic', "--eval-method: invalid choice: 'psychic'"),
    ('train_mnist', '--eval-method knn', '--eval-method: goes with --test'),
    ('train_mnist', '--second-train --version lgm-full', '--version lgm-full: .* --version center$'),
    ('train_mnist', '--center-loss --version softmax', 'softmax: not with --center-loss, which is'),
    ('train_mnist', '--version softmax --validate-with-label', 'softmax has no margin'),
    ('train_mnist', '--feature-size 1.5', 'model.feature_size: .* valid integer'),
    ('train_mnist', '--plottin', '--plottin: unknown option, the nearest known one is --plotting'),
    ('predict', 'nothing photo.png', 'nothing: there is no run in this folder'),
    ('predict', 'run nothing.png', 'nothing.png: there is no such file'),
    ('predict', 'run data', 'data: there is no PNG or JPEG in this folder'),
    ('predict', 'run photo.png --output out.txt', 'ends in .csv or .json'),
    ('predict', 'run photo.png --output no/out.csv', '--output no/out.csv: no folder to write to'),
    ('predict', 'run photo.png --false-alarm-rate 2', "choose from '0.01', '0.05', '0.1'"),
    ('predict', 'run', 'the following arguments are required: images'),
    ('predict', 'run photo.png --device gpux', '--device gpux: expected auto'),
    ('compare', 'nothing', 'nothing: there is no run in this folder'),
    ('compare', 'photo.png', 'photo.png: a run folder is expected'),
    ('compare', 'run --output-dir photo.png', 'photo.png: .* choose another --output-dir'),
    ('compare', 'run --output-dirs x', '--output-dirs: unknown option, .* is --output-dir$'),
    ('compare', 'run run/metrics.csv --output-dir data/train.bin/x', 'choose another --output-dir'),
    ('detect', 'nothing', 'nothing: there is no run in this folder'),
    ('detect', 'run --samples 0', 'at least one sample'),
    ('detect', 'run --softmax-run run', 'trained by softmax, this one is lgm on cifar100'),
    ('detect', f'{RECORD}/mnist-softmax-center --softmax-run {RECORD}/mnist-center',
     'trained by softmax, this one is center on mnist'),
    ('export', 'nothing', 'nothing: there is no run in this folder'),
    ('export', 'run --output-dir photo.png', 'photo.png: File exists'),
    ('ablate', 'nothing.yaml', 'nothing.yaml: cannot be read as YAML: .*No such file'),
    ('ablate', '--epochs 1 plan.yaml', '--epochs: options for train_cifar.py come after the plan$'),
    ('ablate', 'plan.yaml --seeds a', "--seeds: invalid int value: 'a'"),
    ('ablate', 'plan.yaml --only rough', '--only rough: no such variant; there are base'),
    ('ablate', 'plan.yaml --lrr 3', '--lrr: unknown option, the nearest known one is --lr$'),
]

RECIPES = [
    ('empty', put('run/config.yaml', b''), 'expected NAME: VALUE pairs, got None'),
    ('binary', put('run/config.yaml', bytes(range(256))), 'cannot be read as YAML'),
    ('a list', put('run/config.yaml', b'[1, 2]'), r'expected NAME: VALUE pairs, got \[1, 2\]'),
    ('a number', put('run/config.yaml', b'3'), 'expected NAME: VALUE pairs, got 3'),
    ('not YAML', put('run/config.yaml', b'a: ['), 'cannot be read as YAML'),
    ('too deep', put('run/config.yaml', b'[' * 1500), 'cannot be read as YAML: .*recursion'),
    ('an impossible date', put('run/config.yaml', b'a: 2001-99-99'), 'cannot be read as YAML'),
    ('code', put('run/config.yaml', b'!!python/object/apply:os.mkdir [unpickled]'),
     'cannot be read as YAML'),
    ('a folder', folder('run/config.yaml'), 'there is no run in this folder'),
    ('unknown section', config('optimisation:', 'optimization:'),
     'optimization: unknown field, the nearest known one is optimisation'),
    ('unknown field', config('  lr:', '  lrr: 1\n  lr:'),
     'optimisation.lrr: unknown field, the nearest known one is lr'),
    ('section without fields', put('run/config.yaml', b'loss:'), 'loss: expected NAME: VALUE'),
    ('section a number', put('run/config.yaml', b'loss: 3'), 'loss: expected NAME: VALUE'),
    ('key a number', put('run/config.yaml', b'run: {1: 2}'), 'run.1: Keys should be strings'),
    ('truth for a count', config('epochs: 1', 'epochs: true'),
     'optimisation.epochs: expected a value other than true and false, got True'),
    ('truth in a list', config('decay_epochs: []', 'decay_epochs: [1, true]'),
     'decay_epochs: expected a value other than true and false'),
    ('number for a list', config('decay_epochs: []', 'decay_epochs: 3'),
     'decay_epochs: .* valid list, got 3'),
    ('text for truth', config('zero_gamma: false', 'zero_gamma: maybe'),
     "model.zero_gamma: .* valid boolean.*'maybe'"),
    ('number for text', config('device: cpu', 'device: 3'), 'run.device: .* valid string, got 3'),
    ('NaN in a list', config('decay_epochs: []', 'decay_epochs: [1, .nan]'),
     'decay_epochs.1: .* finite number'),
    ('infinite', config('seed: 0', 'seed: .inf'), 'run.seed: .* finite'),
    ('fraction for a count', config('seed: 0', 'seed: 1.5'), 'run.seed: .* valid integer'),
    ('nothing for a number', config('seed: 0', 'seed:'), 'run.seed: .* valid integer.*None'),
]

CIFAR_FILES = [
    ('missing', remove('data/train.bin'), 'data: neither train.bin nor train.bin.gz is there'),
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
    ('short', put(f'digits/{LABELS}', bytes([0, 0, 8, 1, 0, 0, 0, 24]) + bytes(23)),
     'holds 23 bytes of data, its header says 24'),
    ('label', idx(f'{LABELS}.gz', np.full(24, 10)), 'has a label 10; labels must be 0 to 9'),
    ('fewer labels', idx(f'{LABELS}.gz', np.zeros(23)), '23 labels, not N x 28 x 28 and N'),
    ('other extent', idx(f'{IMAGES}.gz', np.zeros((24, 27, 28))), r'\(24, 27, 28\)'),
    ('a folder', folder(f'digits/{IMAGES}'), 'cannot be read .*Is a directory'),
    ('unreadable', unreadable(f'digits/{IMAGES}.gz'), 'cannot be read'),
]

WEIGHTS = [
    ('missing', remove('run/last.params'), '--test --weights run/last.params',
     'last.params: there is no such weights file'),
    ('all missing', remove('run/best.params', 'run/last.params'), '--test',
     'run/best.params: there is no such'),
    ('a folder', folder('weights'), '--weights weights', 'weights: there is no such weights file'),
    ('empty', put('weights', b''), '--weights weights', 'weights: cannot be read as weights'),
    ('garbage', put('weights', b'garbage' * 99), '--weights weights', 'cannot be read as weights'),
    ('cut', cut('run/last.params', 500000), '--test', 'run/last.params: cannot be read as weights'),
    ('a checkpoint', None, '--weights run/checkpoint.npz', 'cannot be read'),
    ('without names', lambda: mx.nd.save('weights', [mx.nd.zeros(1)]), '--weights weights',
     'weights: .*holds arrays without names'),
    ('other shape', weights(lambda arrays: arrays.update({'mixture.mean': mx.nd.zeros((10, 64))})),
     '--weights weights', r'mixture.mean has shape \(10, 64\), not \(100, 64\)'),
    ('array missing', weights(lambda arrays: arrays.pop('mixture.mean')), '--weights weights',
     'mixture.mean is missing'),
    ('other model', None, '--model cifar_resnet56_v1 --weights run/best.params',
     r'run/best.params: does not fit this model: .*; and \d+ more'),
]

CHECKPOINTS = [
    ('missing', remove('run/checkpoint.npz'), 'there is no checkpoint to resume from'),
    ('a folder', folder('run/checkpoint.npz'), 'damaged checkpoint'),
    ('empty', put('run/checkpoint.npz', b''), 'damaged checkpoint'),
    ('garbage', put('run/checkpoint.npz', b'x' * 5000), 'damaged checkpoint'),
    ('cut', cut('run/checkpoint.npz', 5000), 'damaged checkpoint'),
    ('pickled state', lambda: np.savez('run/checkpoint.npz', state=np.array([Pickled()], object)),
     'damaged checkpoint'),
    ('pickled', put('run/checkpoint.npz', pickle.dumps(Pickled())),
     'damaged checkpoint'),
    ('one array', lambda: np.save(open('run/checkpoint.npz', 'wb'), np.zeros(3)),
     'damaged checkpoint'),
    ('no state', lambda: np.savez('run/checkpoint.npz', a=np.zeros(3)), 'damaged checkpoint'),
    ('texts', stored(lambda arrays, _: arrays.update({'parameter/x': np.array(['text'])})),
     'damaged checkpoint'),
    ('later format', stored(lambda _, state: state.update(format=2)),
     'a checkpoint of format 2, and this version reads format 1'),
    ('no epoch', stored(lambda _, state: state.pop('epoch')), 'damaged checkpoint .its epoch is None'),
    ('other history', stored(lambda _, state: state.update(history=3)), 'its history is 3'),
    ('other model', stored(lambda arrays, _: arrays.update(
        {'parameter/graph.x': arrays.pop('parameter/graph.classifier.mixture.mean')})),
     'does not fit this model: graph.classifier.mixture.mean is missing; graph.x is unknown'),
    ('other shape', stored(lambda arrays, _: arrays.update(
        {'optimizer/0/0/0': np.zeros((2, 2))})), r'optimizer/0/0/0 has shape \(2, 2\), not \(16,'),
    ('other optimizers', stored(lambda _, state: state.update(update_counts=[{}, {}])),
     'does not hold the state of 1 optimizer'),
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
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: fast\nvariants: {}'), 'variants: .*at least 1'),
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: [fast]\nvariants: {a: {}}'), 'version: '),
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: quick\nvariants: {a: {}}'), 'no such recipe'),
    ('ablate', 'plan.yaml --resume', None, '--resume: differs from run to run'),
    ('ablate', 'plan.yaml --epoch 3', None, '--epoch: unknown option, .* is --epochs$'),
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: fast\nvariants: {a: {smothing: 1}}'),
     'a: smothing is no field that a variant can change'),
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: fast\nvariants: {a: {seed: 1}}'), 'a: seed is'),
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: fast\nvariants: {a: {teacher: null}}'),
     'a: teacher: expected a value'),
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: fast\nvariants: {a/b: {}}'),
     'a/b: its runs are folders, whose names can have no slash'),
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: fast\nvariants: {a b: {}, a-b: {}}'),
     'a-b: its runs would have the folders of a b'),
    ('ablate', 'plan.yaml --weights run/last.params', None, '--weights: differs from run to run'),
    ('train_cifar', '--test --weights .', None, '[.]: '),
    ('train_cifar', '--test --weights ""', None, '--weights: expected the name'),
    ('train_cifar', '--test --version v4', None, '--version v4: the run in run is of fast'),
    ('train_cifar', '--resume --version v4', None, '--version v4: the run in run is of fast'),
    ('compare', 'run', put('run/summary.json', b'{}'), 'damaged'),
    ('compare', 'run', config('dataset: cifar100', 'dataset: cifar1000'), "got 'cifar1000'"),
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: fast\nvariants: {a: {mixup: -1}}'),
     r'error: plan.yaml: a: refinement.mixup: .*got -1$'),
    ('ablate', 'plan.yaml', put('plan.yaml', b'version: fast\nvariant: {a: {}}'), 'variant'),
]

TABLE = [(script, words, None, message) for script, words, message in COMMAND_LINES]
TABLE += [('train_cifar', '--test', damage, message) for _, damage, message in RECIPES]
TABLE += [('train_cifar', '', damage, message) for _, damage, message in CIFAR_FILES]
TABLE += [('train_mnist', '', damage, message) for _, damage, message in IDX_FILES]
TABLE += [('train_cifar', words, damage, message) for _, damage, words, message in WEIGHTS]
TABLE += [('train_cifar', '--resume', damage, message) for _, damage, message in CHECKPOINTS]
TABLE += RUN_FILES
IDS = [f'{script} {words[:40]}' for script, words, _ in COMMAND_LINES]
for group, rows in (('recipe', RECIPES), ('CIFAR file', CIFAR_FILES), ('IDX file', IDX_FILES),
                    ('weights', WEIGHTS), ('checkpoint', CHECKPOINTS)):
    IDS += [f'{group}: {row[0]}' for row in rows]
IDS += [f'{script} {words}: {message}' for script, words, _, message in RUN_FILES]


@pytest.fixture(scope='module')
def script(run_here):
    """Run a script on a string of words after those that it always gets here."""
    return lambda name, words: run_here(name, *shlex.split(ALWAYS[name]), *shlex.split(words))


@pytest.fixture(scope='module')
def shelf(tmp_path_factory, script):
    """The folder that each mistake gets a copy of."""
    place = tmp_path_factory.mktemp('shelf')
    (place / 'data').mkdir()
    write_cifar100(place / 'data', 24, 24)
    (place / 'digits').mkdir()
    write_fashion(place / 'digits', 24)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(place / 'photo.png')
    (place / 'plan.yaml').write_text('version: fast\nvariants: {base: {}}')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert script('train_cifar', '') == 0
    return place


def contents(place):
    return {str(path.relative_to(place)): hashlib.sha1(path.read_bytes()).hexdigest()
            for path in place.rglob('*') if path.is_file() and not path.is_symlink()} | {
        str(path.relative_to(place)): 'folder' for path in place.rglob('*') if path.is_dir()}


@pytest.mark.parametrize('name, words, damage, message', TABLE, ids=IDS)
def test_a_mistake_is_one_clear_line_and_changes_nothing(shelf, script, tmp_path, monkeypatch, capfd,
                                                         name, words, damage, message):
    place = tmp_path / 'place'
    shutil.copytree(shelf, place)
    monkeypatch.chdir(place)
    if damage:
        damage()
    before = contents(place)
    capfd.readouterr()
    assert script(name, words) == 2
    error = capfd.readouterr().err
    assert error.startswith('error: ') and len(error.splitlines()) == 1, error
    assert re.search(message, error.strip()) and len(error) < 1000
    assert contents(place) == before


@pytest.mark.parametrize('words', [
    ('train_cifar.py', '--weights', 'README.md'), ('train_mnist.py', '--device', 'tpu'),
    ('predict.py', 'nothing', 'README.md'), ('compare.py', '--runs'), ('ablate.py', 'README.md')])
def test_a_process_of_its_own_says_no_more(run_script, tmp_path, words):
    folder = () if words[0] == 'predict.py' else ('--output-dir', tmp_path / 'run')
    result = run_script(*words, *folder)
    assert result.returncode == 2 and result.stderr.startswith('error: ')
    assert len(result.stderr.splitlines()) == 1 and not (tmp_path / 'run').exists()
