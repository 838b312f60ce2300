"""Classify images with a finished run, and say which are unlike what it was trained on.

    python predict.py output/record/cifar-fast-seed0 photo.png folder/ --output predictions.csv
    python predict.py output/record/cifar-fast-seed0 folder/ --embeddings features.npz

Images may be of any usual format and size, grey or in colour; what is transparent is taken for white.
Folders are searched through. For each image the output holds file, class, probability and, under an
L-GM run, the log-likelihood and whether it is lower than that of all but a few images held out of the
training. --embeddings also writes each image's features, which the loss compares. Images that cannot be
read are named and left out, and the exit code is then 1.
"""

import csv
import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Union

import numpy as np
from boltons.fileutils import atomic_save
from boltons.iterutils import chunked_iter
from tqdm import tqdm

from training import errors
from training.config.options import Parser, add_prediction_options
from training.data.folders import image_files
from training.data.pictures import PictureError, read_picture
from training.errors import UserError, naming
from training.machine import devices
from training.runs.folder import check_writable, write_text

COLUMNS = 'file', 'class', 'probability', 'log_likelihood', 'unlike_training'


def find_images(paths: list[str]) -> list[Path]:
    """The files among `paths`, and all images below the folders among them."""
    files = []
    for path in map(Path, paths):
        with naming(path):
            if path.is_dir():
                images = list(image_files(path))
                if not images:
                    raise UserError(f'{path}: there is no image in this folder')
                files += images
            elif path.is_file():
                files.append(path)
            else:
                raise UserError(f'{path}: there is no such file or folder')
    return files


def check_target(option: str, path: Path, *endings: str) -> None:
    """UserError unless a file of this name, with one of these endings, can be written."""
    if path.suffix not in endings:
        raise UserError(f'{option} {path}: expected a name that ends in {" or ".join(endings)}')
    if not path.parent.is_dir():
        raise UserError(f'{option} {path}: there is no folder {path.parent}')
    if path.is_dir():
        raise UserError(f'{option} {path}: is a folder; expected the name of a file')
    check_writable(path.parent, option)


def write_embeddings(path: Path, rows: list[dict[str, Any]], features: np.ndarray) -> None:
    """Files, classes and features (N, D): the arrays `files`, `classes`, `features`, or columns of .csv."""
    if path.suffix == '.npz':
        with atomic_save(str(path), overwrite_part=True) as file:
            names, classes = (np.array([row[name] for row in rows], str) for name in ('file', 'class'))
            np.savez_compressed(file, files=names, classes=classes, features=features)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['file', 'class', *range(features.shape[1])])
    writer.writerows([row['file'], row['class'], *map(str, vector)] for row, vector in zip(rows, features))
    write_text(path, text.getvalue())


def main(argv: list[str]) -> int:
    parser = Parser(__doc__)
    parser.add_argument('run', type=Path, help='folder of a finished run')
    parser.add_argument('images', nargs='+', help='image files and folders of them')
    parser.add_argument(
        '--output', type=Path, default=Path('predictions.csv'), help='.csv or .json (default predictions.csv)'
    )
    parser.add_argument(
        '--embeddings',
        type=Path,
        metavar='FILE',
        help='also write the features of each image, as .npz or .csv',
    )
    add_prediction_options(parser)
    options = parser.parse_args(argv)
    check_target('--output', options.output, '.csv', '.json')
    if options.embeddings:
        check_target('--embeddings', options.embeddings, '.npz', '.csv')
    files = find_images(options.images)
    device = devices.prepare(options.device, options.dtype)

    from training.data.datasets import batch_size
    from training.serving.predictor import Predictor

    predictor = Predictor(options.run, device, device.contexts()[0], options.false_alarm_rate)

    def read(path: Path) -> Union[np.ndarray, PictureError]:
        try:
            return read_picture(path, predictor.shape, short_side=predictor.short_side)
        except PictureError as error:
            return error

    rows, problems, features = [], [], []
    with (
        ThreadPoolExecutor(devices.usable_cores()) as pool,
        tqdm(total=len(files), unit=' images', disable=None, leave=False) as bar,
    ):
        for chunk in chunked_iter(files, batch_size(predictor.shape)):
            images = list(zip(chunk, pool.map(read, chunk)))
            problems += [
                f'{path}: left out, {image}' for path, image in images if isinstance(image, Exception)
            ]
            good = [(path, image) for path, image in images if not isinstance(image, Exception)]
            if good:
                predictions = predictor(np.stack([image for _, image in good]))
                features.append(predictions.features)
            for number, (path, _) in enumerate(good):
                name = str(path).encode(errors='backslashreplace').decode()  # of whatever bytes
                rows.append({'file': name, **predictor.describe(predictions, number)})
            bar.update(len(chunk))
    text = io.StringIO()
    if options.output.suffix == '.json':
        json.dump(rows, text, indent=1)
    else:
        writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    try:
        write_text(options.output, text.getvalue())
    except OSError as error:
        raise UserError(f'--output {options.output}: {error.strerror}') from None
    if options.embeddings and rows:
        with naming(f'--embeddings {options.embeddings}'):
            write_embeddings(options.embeddings, rows, np.concatenate(features))
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f'{len(rows)} of {len(files)} images in {options.output}')
    return 1 if problems else 0


if __name__ == '__main__':
    errors.exit_with(main)
