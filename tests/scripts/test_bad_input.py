"""Every mistake is one clear line and exit code 2, and costs nothing that was there before.

The scripts run in this process, in a folder with small data sets, a finished run and a picture, all
of which are compared before and after.
"""

import hashlib
import re
import shlex
import shutil

import numpy as np
import pytest
from conftest import RECORD, write_cifar100, write_fashion
from damaged_files import CHECKPOINTS, CIFAR_FILES, IDX_FILES, RECIPES, RUN_FILES, WEIGHTS
from PIL import Image

ALWAYS = {
    'train_cifar': '--dataset cifar100 --data-dir data --batch-size 8 --epochs 1 --dtype float32 '
    '--device cpu --output-dir run',
    'train_mnist': '--dataset fashion --data-dir digits --batch-size 8 --epochs 1 --dtype float32 '
    '--device cpu --output-dir digits-run',
    'predict': '',
    'compare': '',
    'ablate': '',
    'detect': '',
    'export': '',
}

COMMAND_LINES = [
    ('train_cifar', '--version v7', 'there are baseline, best, fast, paper, v1, v3, v4, v5, v6$'),
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
    ('train_cifar', '--epochs 1.5', r'optimisation.epochs: .* valid integer.* \(--epochs\)'),
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
    ('train_cifar', '--variance-init 2', '--variance-init: unknown option'),
    ('train_cifar', '--kvstore dist_async', 'optimizer: the servers of dist_async hold no kernels'),
    (
        'train_cifar',
        '--kvstore dist_async --optimizer nag --weight-average 0.99',
        'weight_average: under dist_async each worker',
    ),
    ('train_cifar', '--covariance inverse-sum', 'covariance inverse-sum goes with euclidean'),
    ('train_cifar', '--loss softmax --validate-with-label', 'softmax has no margin'),
    ('train_cifar', '--model resnet19_v1', '--model resnet19_v1: no image classifier of GluonCV'),
    ('train_cifar', '--model ssd_300_vgg16_atrous_voc', 'no image classifier of GluonCV'),
    ('train_cifar', '--model vgg11', '--shortcut pool: vgg11 has no .*; use --shortcut conv$'),
    ('train_cifar', '--model alexnet --shortcut conv', '--model alexnet: cannot take images of 32 x 32'),
    ('train_cifar', '--teacher nosuch', '--teacher nosuch: neither a run folder nor a classifier'),
    ('train_cifar', '--teacher no/such', '--teacher no/such: there is no such run folder'),
    ('train_cifar', '--teacher data', 'data: there is no run in this folder'),
    (
        'train_cifar',
        '--model vgg11 --shortcut conv --resolutions 16:1',
        'cannot take images of 16 x 16',
    ),
    (
        'train_cifar',
        '--weights run/best.params --normalisation symmetric',
        '--weights run/best.params: was trained with normalisation cifar10, not symmetric; choose others or ',
    ),
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
    (
        'train_cifar',
        '--resume --epochs 2',
        'a cosine schedule over 1 epochs, of which 1 are done; .* --weights run/',
    ),
    ('train_mnist', '--loss triplet', "'softmax', 'softmax-center', .* got 'triplet'"),
    ('train_mnist', '--version triplet', 'there are center, lgm-distance'),
    ('train_mnist', '--version ""', 'no such recipe; there are center'),
    ('train_mnist', '--data-dir digits --second-train', 'best.params: there is no such weights file'),
    ('train_mnist', '--version center --data-dir digits', 'best.params: there is no such weights file'),
    (
        'train_mnist',
        '--version two-phase --first-phase-epochs 40',
        'first_phase_epochs: two-phase needs more',
    ),
    ('train_mnist', '--version two-phase --first-phase-epochs 0', 'first_phase_epochs: .* equal to 1'),
    (
        'train_mnist',
        '--version two-phase',
        'two-phase needs more epochs than its first phase has, got 1 and 1',
    ),
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
    ('predict', 'run data', 'data: there is no image in this folder'),
    ('predict', 'run photo.png --output out.txt', 'ends in .csv or .json'),
    ('predict', 'run photo.png --output no/out.csv', '--output no/out.csv: there is no folder no$'),
    ('predict', 'run photo.png --output /sys/out.csv', '/sys: .*; choose another --output$'),
    ('predict', 'run photo.png --output folder.csv', '--output folder.csv: is a folder'),
    ('predict', f'run {"x" * 300}', 'xxx: File name too long$'),
    ('predict', f'{"x" * 300} photo.png', 'xxx: File name too long$'),
    ('compare', f'{"x" * 300}', 'xxx: File name too long$'),
    ('detect', f'{"x" * 300}', 'xxx: File name too long$'),
    ('export', f'{"x" * 300}', 'xxx: File name too long$'),
    (
        'ablate',
        f'plan.yaml --output-dir {"x" * 300}',
        'xxx: File name too long; choose another --output-dir$',
    ),
    ('ablate', f'{"x" * 300}.yaml', 'xxx.yaml: cannot be read as YAML: .*File name too long'),
    ('train_cifar', f'--teacher {"x" * 300}', '--teacher xxx.*: File name too long$'),
    ('train_cifar', f'--test --weights {"x" * 300}', 'xxx: File name too long$'),
    ('train_cifar', f'--weights {"x" * 300}/w', 'xxx/w: File name too long$'),
    ('train_cifar', f'--data-dir {"x" * 300}', 'xxx/train.bin: cannot be read .*File name too long'),
    (
        'train_cifar',
        f'--dataset cifar10 --data-dir {"x" * 300}',
        'xxx: File name too long; choose another --data-',
    ),
    (
        'train_cifar',
        '--lr-decay 0.5',
        "--lr-decay: unknown option, gluon_GMLoss's --lr-decay is --decay-factor here",
    ),
    ('train_cifar', '--mult 0.01', "gluon_GMLoss's --mult is --variance-lr-mult here$"),
    ('train_cifar', '--lr-mode step', "gluon_GMLoss's --lr-mode is --schedule here$"),
    (
        'train_cifar',
        '--lr_decay_epoch=100,150',
        "gluon_GMLoss's --lr-decay-epoch is --decay-epochs 100 150 here$",
    ),
    ('train_cifar', '--lamda 0.1', "gluon_GMLoss's --lamda is --likelihood-weight here$"),
    ('train_mnist', '--gpus 0,1', "gluon_GMLoss's --gpus is --device gpu:0,1 here$"),
    ('train_cifar', '--workers 8', "gluon_GMLoss's --workers is not needed, as images are augmented"),
    ('train_cifar', '--model hrnet_w48_s', 'no image classifier of GluonCV'),
    ('train_cifar', '--teacher yolo3_darknet53_coco', 'neither a run folder nor a classifier of GluonCV'),
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
    ('detect', 'run --softmax-run run', 'trained by softmax; this one is lgm on cifar100'),
    (
        'detect',
        f'{RECORD}/mnist-softmax-center --softmax-run {RECORD}/mnist-center',
        'trained by softmax; this one is center on mnist',
    ),
    ('export', 'nothing', 'nothing: there is no run in this folder'),
    ('export', 'run --output-dir photo.png', 'photo.png: File exists'),
    ('ablate', 'nothing.yaml', 'nothing.yaml: cannot be read as YAML: .*No such file'),
    ('ablate', '--epochs 1 plan.yaml', '--epochs: options for the training come after the plan$'),
    ('ablate', 'plan.yaml --seeds a', "--seeds: invalid int value: 'a'"),
    ('ablate', 'plan.yaml --only rough', '--only rough: no such variant; there are base'),
    ('ablate', 'plan.yaml --lrr 3', '--lrr: unknown option, the nearest known one is --lr$'),
    ('ablate', 'plan.yaml --resume', '--resume: differs from run to run'),
    ('ablate', 'plan.yaml --epoch 3', '--epoch: unknown option, .* is --epochs$'),
    ('ablate', 'plan.yaml --weights run/last.params', '--weights: differs from run to run'),
    ('train_cifar', '--test --weights .', '[.]: '),
    ('train_cifar', '--test --weights ""', '--weights: expected the name'),
    ('train_cifar', '--test --version v4', '--version v4: the run in run is of fast'),
    ('train_cifar', '--resume --version v4', '--version v4: the run in run is of fast'),
]

TABLE = [(script, words, None, message) for script, words, message in COMMAND_LINES]
TABLE += [('train_cifar', '--test', damage, message) for _, damage, message in RECIPES]
TABLE += [('train_cifar', '', damage, message) for _, damage, message in CIFAR_FILES]
TABLE += [('train_mnist', '', damage, message) for _, damage, message in IDX_FILES]
TABLE += [('train_cifar', words, damage, message) for _, damage, words, message in WEIGHTS]
TABLE += [('train_cifar', '--resume', damage, message) for _, damage, message in CHECKPOINTS]
TABLE += RUN_FILES
IDS = [f'{script} {words[:40]}' for script, words, _ in COMMAND_LINES]
for group, rows in (
    ('recipe', RECIPES),
    ('CIFAR file', CIFAR_FILES),
    ('IDX file', IDX_FILES),
    ('weights', WEIGHTS),
    ('checkpoint', CHECKPOINTS),
):
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
    (place / 'folder.csv').mkdir()
    write_fashion(place / 'digits', 24)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(place / 'photo.png')
    (place / 'plan.yaml').write_text('version: fast\nvariants: {base: {}}')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert script('train_cifar', '') == 0
    return place


def contents(place):
    return {
        str(path.relative_to(place)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in place.rglob('*')
        if path.is_file() and not path.is_symlink()
    } | {str(path.relative_to(place)): 'folder' for path in place.rglob('*') if path.is_dir()}


@pytest.mark.parametrize('name, words, damage, message', TABLE, ids=IDS)
def test_a_mistake_is_one_clear_line_and_changes_nothing(
    shelf, script, tmp_path, monkeypatch, capfd, name, words, damage, message
):
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


@pytest.mark.parametrize(
    'words',
    [
        ('train_cifar.py', '--weights', 'README.md'),
        ('train_mnist.py', '--device', 'tpu'),
        ('predict.py', 'nothing', 'README.md'),
        ('compare.py', '--runs'),
        ('ablate.py', 'README.md'),
    ],
)
def test_a_process_of_its_own_says_no_more(run_script, tmp_path, words):
    folder = () if words[0] == 'predict.py' else ('--output-dir', tmp_path / 'run')
    result = run_script(*words, *folder)
    assert result.returncode == 2 and result.stderr.startswith('error: ')
    assert len(result.stderr.splitlines()) == 1 and not (tmp_path / 'run').exists()
