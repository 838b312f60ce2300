"""One's own images: how fast they are read, what nets take of them, and the memory for many."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.photos import IMAGES, SIZE, STEP_BATCH
from benchmarks.rounds import measure, median, ratio
from benchmarks.serve import memory

MANY, CLASSES = 200_000, 10
LOOK = 0.2  # seconds between two looks at a process


def report(rounds):
    """Readers and training steps at 224 pixels, in images a second."""
    subjects = {
        'our reader': ('reader', {}),
        'DataLoader, same transforms': ('loader', {}),
        'training mobilenet1.0': ('net_step', {'model': 'mobilenet1.0'}),
        'training resnet50_v1d': ('net_step', {'model': 'resnet50_v1d'}),
        'training the stock resnet50_v1d': ('stock_net_step', {'model': 'resnet50_v1d'}),
    }
    results = {
        label: ([each / (STEP_BATCH if 'training' in label else IMAGES) for each in seconds], added)
        for label, (seconds, added) in measure(subjects, rounds).items()
    }
    print(
        f'\nphotographs at {SIZE} x {SIZE} pixels: random resized crop, flip, colour jitter, lighting noise'
    )
    for label in results:
        print(f'  {label:34s}{1 / median(results, label):7.1f} images/s')
    pairs = ('our reader', list(subjects)[1]), ('our reader', list(subjects)[2]), list(subjects)[3:]
    for faster, slower in pairs:
        print(f'  {faster} is {ratio(results, slower, faster)} times as fast as {slower}')


def memory_report(_):
    """Peak memory of packing and training on MANY images, which are deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = [time.perf_counter()]
        write_many(Path(folder, 'images'))
        seconds.append(time.perf_counter())
        words = ['--data-dir', f'{folder}/images', '--output-dir', f'{folder}/run', '--holdout', '2000']
        words += ['--version', 'scratch-small', '--model', 'mobilenet0.25', '--image-size', '32']
        words += ['--batch-size', '500', '--epochs', '1', '--dtype', 'float32']
        process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', 'train_images.py', *words],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        peak = packing = 0.0
        while process.poll() is None:
            peak = max(peak, session_memory(process.pid))
            if not packing and any(Path(folder).glob('images/.packed/*/all.json')):
                packing = peak
                seconds.append(time.perf_counter())
            time.sleep(LOOK)
        seconds.append(time.perf_counter())
        if process.returncode:
            raise RuntimeError(f'train_images.py ended with {process.returncode}')
    generated, packed, trained = np.diff(seconds)
    print(f'\n{MANY:,} images of 32 x 32 pixels, generated in {generated:.0f} s')
    print(f'  packed in {packed:.0f} s         {packing:7.0f} MiB at most')
    print(f'  an epoch in {trained:.0f} s      {peak:7.0f} MiB at most, processes it starts included')


def write_many(folder: Path) -> None:
    """MANY different images as JPEG: CIFAR-10's, and the same mirrored and turned."""
    import cv2

    from training.data import datasets

    images = datasets.load_cifar10()[0].images.transpose(0, 2, 3, 1)
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
    for number in range(MANY):
        form, which = divmod(number, len(images))
        image = images[which][:: 1 - form % 2 * 2, :: 1 - form // 2 * 2]
        cv2.imwrite(f'{folder}/{number % CLASSES}/{number}.jpg', np.ascontiguousarray(image))


def session_memory(session: int) -> float:
    """Resident MiB of all processes of a session, pages that they share counted for each."""
    total = 0.0
    for process in map(int, filter(str.isdigit, os.listdir('/proc'))):
        try:
            if os.getsid(process) == session:
                total += memory(process)
        except (OSError, IndexError):  # it has ended
            continue
    return total
