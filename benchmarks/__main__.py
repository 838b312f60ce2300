"""Print benchmarks: `make bench`, or `make bench ARGS="loss counts"` for some of them."""

import importlib.util
import os
import subprocess
import sys

from benchmarks import accuracy, counts, first_steps, images, scale, serve
from benchmarks.rounds import THREADS, measure, median, ratio
from benchmarks.subjects import BATCH, EPOCH_IMAGES, EPOCH_STEPS, LOSS_SHAPE, STEPS, TEST_IMAGES
from training import errors
from training.config.options import Parser
from training.errors import UserError
from training.machine import devices

REFINEMENTS = {
    'none': {},
    'label smoothing': {'label_smoothing': 0.1},
    'mixup': {'mixup': 0.2},
    'moving average': {'weight_average': 0.99},
    'pooled shortcut': {'shortcut': 'pool'},
    'muon': {'optimizer': 'muon'},
    'distillation': {'teacher': 'output/record/cifar-fast-seed0'},
    'images of 24 x 24': {'resolutions': [[24, 1]]},
    'images of 16 x 16': {'resolutions': [[16, 1]]},
}
SPARSE = {'size': 128, 'sparse': True, 'update': True, 'repeats': 300}


FORMS = (
    'identity',
    'diagonal',
    'diagonal, shared',
    'isotropic',
    'isotropic, shared',
    'fixed volume',
    'fixed volume, shared',
    'fixed volume, isotropic',
)


def report(title, results, reference, others, work=None):
    """Print each subject's median, and how many times faster the reference is than the others."""
    print(f'\n{title}')
    for label in results:
        seconds = median(results, label)
        rate = f'{work / seconds:7.0f} images/s' if work else f'{1e3 * seconds:9.2f} ms'
        against = (
            f'  {reference} is {ratio(results, label, reference)} times as fast' if label in others else ''
        )
        print(f'  {label:34s}{rate}{against}')


def bench_loss(rounds):
    results = measure(
        {
            'gmloss': ('loss', {'block': 'identity', 'repeats': 50}),
            '(B, C, D) form': ('loss', {'block': '(B, C, D) form'}),
            '(B, C, D) form of v6': ('loss', {'block': '(B, C, D) form of v6'}),
        },
        rounds,
    )
    report(
        'loss, forward + backward, B={} C={} D={}'.format(*LOSS_SHAPE), results, 'gmloss', list(results)[1:]
    )
    for label, (_, memory) in results.items():
        print(f'  {label:34s}{memory:7.0f} MiB of extra memory')
    results = measure({label: ('loss', {'block': label, 'repeats': 20}) for label in FORMS}, rounds)
    print('\nforms of the covariance, times the diagonal one')
    for label in FORMS:
        print(f'  {label:34s}{ratio(results, label, "diagonal")}')


def bench_center(rounds):
    results = measure(
        {
            'center_loss': ('center', {'repeats': 300}),
            'counted on the host': ('center', {'repeats': 300, 'on_host': True}),
        },
        rounds,
    )
    report(
        f'center loss, forward + backward, B={BATCH} C=10 D=2',
        results,
        'center_loss',
        ['counted on the host'],
    )
    results = measure(
        {
            '10 classes': ('center', {'classes': 10, **SPARSE}),
            '1,000,000 classes': ('center', {'classes': 1_000_000, **SPARSE}),
        },
        rounds,
    )
    report(
        f'center loss, sparse, with the update of the centers, B={BATCH} D=128',
        results,
        '10 classes',
        ['1,000,000 classes'],
    )


def bench_step(rounds):
    subjects = {'ours, float32': ('train', {'whole': False}), 'stock GluonCV net': ('stock_step', {})}
    others = ['stock GluonCV net']
    if importlib.util.find_spec('torch'):
        subjects['PyTorch, float32'] = 'torch_step', {'low_precision': False}
        others.append('PyTorch, float32')
    report(
        'training step, ResNet-20, batch 128, equal threads',
        measure(subjects, rounds),
        'ours, float32',
        others,
        BATCH * STEPS,
    )


def bench_bfloat16(rounds):
    if not devices.cpu_has_bfloat16():
        print('\nbfloat16: this CPU lacks avx512_bf16')
        return
    subjects = {
        'ours, bfloat16': ('train', {'whole': False, 'dtype': 'bfloat16'}),
        'ours, float32': ('train', {'whole': False}),
    }
    if importlib.util.find_spec('torch'):
        subjects['PyTorch, bfloat16'] = 'torch_step', {'low_precision': True}
    report(
        'training step in bfloat16, equal threads',
        measure(subjects, rounds),
        'ours, bfloat16',
        list(subjects)[1:],
        BATCH * STEPS,
    )


def bench_epoch(rounds):
    report(
        'whole epoch, input pipeline included, float32',
        measure(
            {
                'ours': ('train', {}),
                'stock loop, equal threads': ('stock_epoch', {}),
                "stock loop, mxnet's default threads": ('stock_epoch', {'default_threads': True}),
            },
            rounds,
        ),
        'ours',
        ('stock loop, equal threads', "stock loop, mxnet's default threads"),
        EPOCH_IMAGES,
    )


def bench_pipeline(rounds):
    dtype = 'bfloat16' if devices.cpu_is_faster_in_bfloat16() else 'float32'
    kinds = {
        'baseline, pad-crop': {},
        'baseline, resized-crop (v6)': {'augmentation': 'resized-crop'},
        **{
            f'fast, {size} x {size} pixels': {'version': 'fast', 'resolutions': [[size, 1]]}
            for size in (16, 24, 32)
        },
    }
    subjects = {}
    for label, fields in kinds.items():
        subjects[label] = 'train', {'dtype': dtype, **fields}
        subjects[f'{label}, net alone'] = 'train', {'dtype': dtype, 'whole': False, **fields}
    results = measure(subjects, rounds)
    print(f'\ninput pipeline and bookkeeping of an epoch, {dtype}')
    for label in kinds:
        seconds, memory = results[label]
        results[label] = [each * STEPS / EPOCH_STEPS for each in seconds], memory  # the net alone has fewer
        print(f'  {label:34s}{ratio(results, label, f"{label}, net alone")} times the net alone')


def bench_refinements(rounds):
    results = measure(
        {label: ('train', {'dtype': 'auto', **fields}) for label, fields in REFINEMENTS.items()},
        rounds,
    )
    print('\nwhole epoch with one refinement, --dtype auto')
    for label in results:
        print(f'  {label:34s}{ratio(results, label, "none")} times the epoch without')


def bench_predict(rounds):
    report(
        f'ResNet-20 on {TEST_IMAGES} images in memory, --dtype auto',
        measure(
            {
                'frozen': ('predict', {}),
                'as it was trained': ('predict', {'frozen': False}),
                'frozen, float32': ('predict', {'dtype': 'float32'}),
            },
            rounds,
        ),
        'frozen',
        ('as it was trained', 'frozen, float32'),
        TEST_IMAGES,
    )
    report(
        f'predict.py on {TEST_IMAGES} PNG files, its start included, --dtype auto',
        measure({'predict.py': ('predict_files', {})}, rounds),
        'predict.py',
        (),
        TEST_IMAGES,
    )


def bench_counts(rounds):
    print('\nper training step            calls from Python   operators run   host reads')
    for which in counts.SUBJECTS:
        output = subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'benchmarks.counts', which],
            text=True,
            capture_output=True,
            check=True,
            env=dict(os.environ, MXNET_EXEC_BULK_EXEC_TRAIN='0', MXNET_EXEC_BULK_EXEC_INFERENCE='0'),
        )
        calls, operators, reads = (float(word) for word in output.stdout.split()[-3:])
        print(f'  {which:27s}{calls:17.1f}{operators:16.1f}{reads:13.2f}')


BENCHMARKS = {
    'loss': bench_loss,
    'center': bench_center,
    'step': bench_step,
    'bfloat16': bench_bfloat16,
    'epoch': bench_epoch,
    'pipeline': bench_pipeline,
    'refinements': bench_refinements,
    'predict': bench_predict,
    'counts': bench_counts,
    'scale': scale.report,
    'serve': serve.report,
    'images': images.report,
    'memory': images.memory_report,
    'accuracy': accuracy.report,
    'v5': first_steps.report,
}
# 20 minutes, five trainings of up to an hour, and one that is not about speed: only when named.
LONG = 'memory', 'accuracy', 'v5'


def main(argv):
    parser = Parser(__doc__)
    parser.add_argument(
        'names', nargs='*', metavar='|'.join(BENCHMARKS), help=f'default: all but {" and ".join(LONG)}'
    )
    parser.add_argument('--rounds', type=int, default=5, help='timed rounds (default 5)')
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in BENCHMARKS:
            raise UserError(f'{name}: no such benchmark; there are {", ".join(BENCHMARKS)}')
    if options.rounds < 1:
        raise UserError(f'--rounds {options.rounds}: must be at least 1')
    print(f'{THREADS} threads; medians over {options.rounds} rounds, ratios as median (range)')
    for name in options.names or (name for name in BENCHMARKS if name not in LONG):
        BENCHMARKS[name](options.rounds)
    return 0


if __name__ == '__main__':
    errors.exit_with(main)
