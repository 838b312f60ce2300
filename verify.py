"""Tell whether two images are of the same class, by the features of a finished run, on classes it never saw.

    python verify.py output/images-finetune --data-dir others
    python verify.py output/images-finetune --data-dir lfw --pairs pairs.txt

The folder has a subfolder for each class. Every pair of its images is compared, or those of a list in
the format of LFW's pairs.txt (NAME NUMBER NUMBER, or NAME NUMBER NAME NUMBER, of the files
NAME/NAME_0001.jpg). Prints and writes verification.json: the area under the ROC curve, the equal error
rate, the share of pairs of one class that are accepted at false-accept rates of 0.1, 0.01 and 0.001,
and how often the nearest other image is of the same class; by cosine and by Euclidean distance, of the
features and, for comparison, of the pixels. verification.png has the ROC curves; the table also goes
into the run's summary.json, which compare.py reads.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from boltons.iterutils import chunked_iter

from training import errors
from training.config.options import Parser
from training.data.datasets import batch_size
from training.data.folders import Listing, as_text, list_classes, list_of_some
from training.data.pictures import PictureError, read_picture
from training.errors import UserError, naming
from training.machine import devices
from training.runs.folder import RunFolder, check_writable

PIXELS = 16  # height and width of the images whose pixels are compared


def read_images(listing: Listing, predictor: Any) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Features (N, D), small pixels, names of files, and labels (N,) of the images that can be read."""

    def read(name: str) -> Union[np.ndarray, PictureError]:
        try:
            return read_picture(listing.root / name, predictor.shape, short_side=predictor.short_side)
        except PictureError as error:
            return error

    features, pixels, files, labels = [], [], [], []
    with ThreadPoolExecutor(devices.usable_cores()) as pool:
        for chunk in chunked_iter(listing.files, batch_size(predictor.shape)):
            images = []
            for (name, label), image in zip(chunk, pool.map(read, [name for name, _ in chunk])):
                if isinstance(image, PictureError):
                    print(f'{as_text(listing.root / name)}: left out, {image}')
                    continue
                images.append(image)
                files.append(name)
                labels.append(label)
            if images:
                stack = np.stack(images)
                features.append(predictor(stack).features)
                pixels.append(small(stack))
    if not files:
        raise UserError(f'{listing.root}: has no image that can be read')
    return np.concatenate(features), np.concatenate(pixels), files, np.array(labels)


def small(images: np.ndarray) -> np.ndarray:
    """Images (N, channels, H, W) in gray at PIXELS x PIXELS, less their mean: (N, PIXELS^2)."""
    gray = images.mean(axis=1)
    for axis in (1, 2):
        starts = np.linspace(0, gray.shape[axis], PIXELS, endpoint=False).astype(int)
        sizes = np.diff([*starts, gray.shape[axis]])
        gray = np.add.reduceat(gray, starts, axis=axis) / (sizes[:, None] if axis == 1 else sizes)
    flat = gray.reshape(len(gray), -1)
    return flat - flat.mean(axis=1, keepdims=True)


def read_pairs(path: Path, files: list[str]) -> Any:
    """The pairs of a list like LFW's, as training.metrics.verification.Pairs of the files."""
    from training.metrics.verification import Pairs

    numbers = {str(Path(name).with_suffix('')): number for number, name in enumerate(files)}
    with naming(path):
        lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
    rows = []
    for place, line in enumerate(lines, 1):
        words = line.split('\t') if '\t' in line else line.split()
        if len(words) < 3:  # the first line, numbers of folds and pairs
            continue
        names = (words[0], words[-2] if len(words) == 4 else words[0])
        try:
            pair = [f'{name}/{name}_{int(word):04d}' for name, word in zip(names, (words[1], words[-1]))]
            rows.append([*(numbers[name] for name in pair), names[0] == names[1]])
        except (ValueError, KeyError) as error:
            raise UserError(f'{path}, line {place}: no pair of images in --data-dir ({error})') from None
    if not rows or len({row[2] for row in rows}) < 2:
        raise UserError(f'{path}: expected pairs of one class and of two, found {len(rows)} pairs')
    first, second, same = zip(*rows)
    return Pairs(np.array(first), np.array(second), np.array(same))


def main(argv: list[str]) -> int:
    parser = Parser(__doc__)
    parser.add_argument('run', type=Path, help='folder of a finished run')
    parser.add_argument('--data-dir', type=Path, required=True, help='folder with a subfolder for each class')
    parser.add_argument('--pairs', type=Path, metavar='FILE', help="compare only these, a list like LFW's")
    parser.add_argument('--output-dir', type=Path, help='write here (default: the run folder)')
    parser.add_argument('--device', default='auto', help='auto, cpu or gpu')
    parser.add_argument('--seed', type=int, default=0, help='of which pairs are taken, where there are many')
    options = parser.parse_args(argv)
    folder, target = RunFolder(options.run), RunFolder(options.output_dir or options.run)
    folder.require_run()
    summary = None if options.output_dir else folder.read_summary()
    check_writable(target.path)
    listing = list_classes(options.data_dir)
    device = devices.prepare(options.device)

    from training.metrics import verification
    from training.runs import tables
    from training.runs.verification_plots import roc_figure
    from training.serving.predictor import Predictor

    predictor = Predictor(options.run, device, device.contexts()[0])
    seen = [name for name in listing.names if name in predictor.class_names]
    if seen:
        print(f'{len(seen)} classes are training classes too, which is no fair test: {list_of_some(seen)}')
    features, pixels, files, labels = read_images(listing, predictor)
    try:
        pairs = (
            read_pairs(options.pairs, files)
            if options.pairs
            else verification.all_pairs(labels, options.seed)
        )
    except ValueError as error:
        raise UserError(f'{options.data_dir}: {error}') from None

    rows, curves = {}, {}
    for name, vectors in (('features', features), ('pixels', pixels)):
        for distance in verification.DISTANCES:
            scores = verification.likeness(vectors, pairs, distance)
            title = f'{name}, {distance}'
            rows[title] = {
                **verification.measures(scores, pairs.same),
                'rank_1': rank_of(verification, vectors, labels, distance),
            }
            curves[title] = scores
    report = {
        'data': options.data_dir.resolve().name,
        'images': len(files),
        'classes': len(set(labels.tolist())),
        'pairs': len(pairs.same),
        'pairs_of_one_class': int(pairs.same.sum()),
        'results': rows,
    }
    print(f'{report["images"]} images of {report["classes"]} classes, {report["pairs"]} pairs')
    header = [name.replace('_', ' ') for name in next(iter(rows.values()))]
    cells = [
        [title, *('-' if value is None else f'{value:.4f}' for value in row.values())]
        for title, row in rows.items()
    ]
    print(tables.markdown([folder.path.name, *header], cells), end='')
    with naming(target.path, '; choose another --output-dir'):
        target.path.mkdir(parents=True, exist_ok=True)
        target.write_report(target.verification, report)
        target.write_figure('verification.png', roc_figure, curves, pairs.same, folder.path.name)
        if summary is not None:
            target.write_summary({**summary, 'verification': report})
    print(f'written: {target.verification}, verification.png beside it')
    return 0


def rank_of(verification: Any, vectors: np.ndarray, labels: np.ndarray, distance: str) -> Optional[float]:
    """Rank-1 accuracy; None where no class has two images."""
    return verification.rank_one(vectors, labels, distance) if np.bincount(labels).max() > 1 else None


if __name__ == '__main__':
    errors.exit_with(main)
