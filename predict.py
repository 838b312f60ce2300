"""Classify images with a finished run, and say which are unlike what it was trained on.

    python predict.py output/record/cifar-fast-seed0 photo.png folder/ --output predictions.csv

Images may be PNG or JPEG of any size, grey or in colour; what is transparent is taken for white.
Folders are searched through. For each image the output holds file, class, probability and, under an
L-GM run, the log-likelihood and whether it is lower than that of all but a few images held out of the
training. Images that cannot be read are named and left out, and the exit code is then 1.
"""

import csv
import io
import json
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Optional, Union

import numpy as np
from boltons.iterutils import chunked_iter
from PIL import Image, ImageFile, ImageOps
from tqdm import tqdm

from training import errors
from training.config.options import Parser
from training.config.schema import FALSE_ALARM_RATES
from training.errors import UserError, naming
from training.machine import devices
from training.runs.folder import RunFolder, check_writable, write_text

BATCH = 500
ENDINGS = {'.png', '.jpg', '.jpeg'}
COLUMNS = 'file', 'class', 'probability', 'log_likelihood', 'unlike_training'


def find_images(paths: list[str]) -> list[Path]:
    """The files among `paths`, and all images below the folders among them."""
    files = []
    for path in map(Path, paths):
        with naming(path):
            if path.is_dir():
                images = sorted(file for file in path.rglob('*') if file.suffix.lower() in ENDINGS)
                if not images:
                    raise UserError(f'{path}: there is no PNG or JPEG in this folder')
                files += images
            elif path.is_file():
                files.append(path)
            else:
                raise UserError(f'{path}: there is no such file or folder')
    return files


def read_image(path: Path, shape: tuple[int, int, int]) -> Union[np.ndarray, str]:
    """An image as uint8 of shape (channels, height, width), or the reason why there is none."""
    channels, height, width = shape
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith('I'):  # 16 bits, which convert() would cut off at 255
                image = Image.fromarray((np.asarray(image, np.int64) // 257).astype(np.uint8))
            if 'transparency' in image.info or image.mode[-1] in 'Aa':
                image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image.convert('RGBA'))
            image = image.convert('RGB' if channels == 3 else 'L')
            if image.size != (width, height):
                image = image.resize((width, height), Image.BICUBIC)
            return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)
    except (
        OSError,
        ValueError,
        SyntaxError,
        LookupError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:  # the last but one of EXIF data
        return f'{path}: left out, no image that can be read ({error})'


def predict(net: Callable, images: np.ndarray, context: Any) -> tuple[np.ndarray, Optional[np.ndarray]]:
    """Posterior (N, C) and log-likelihood (N,), or None, of uint8 images (N, channels, H, W).

    `net` is a training.losses.classifiers.PixelClassifier.
    """
    from mxnet import nd

    logits, *rest = net(nd.array(images, ctx=context, dtype='uint8'))
    likelihood = rest[1].asnumpy() if len(rest) == 2 else None
    return logits.softmax().asnumpy(), likelihood


def main(argv):
    parser = Parser(__doc__)
    parser.add_argument('run', type=Path, help='folder of a finished run')
    parser.add_argument('images', nargs='+', help='image files and folders of them')
    parser.add_argument(
        '--output', type=Path, default=Path('predictions.csv'), help='.csv or .json (default predictions.csv)'
    )
    parser.add_argument(
        '--false-alarm-rate',
        default='0.05',
        choices=list(map(str, FALSE_ALARM_RATES)),
        help='share of ordinary images that may be called unlike the training data (default 0.05)',
    )
    parser.add_argument('--device', default='auto', help='auto, cpu or gpu')
    parser.add_argument('--dtype', default='float32', choices=('auto', 'float32', 'bfloat16', 'float16'))
    options = parser.parse_args(argv)
    if options.output.suffix not in ('.csv', '.json'):
        raise UserError(f'--output {options.output}: expected a name that ends in .csv or .json')
    if not options.output.parent.is_dir():
        raise UserError(f'--output {options.output}: there is no folder {options.output.parent}')
    if options.output.is_dir():
        raise UserError(f'--output {options.output}: is a folder; expected the name of a file')
    check_writable(options.output.parent, '--output')
    files = find_images(options.images)
    device = devices.prepare(options.device, options.dtype)

    from training.data import datasets
    from training.runs import restore

    context = device.contexts()[0]
    folder = RunFolder(options.run)
    net, recipe = restore.pixel_classifier(folder, device, [context])
    names, shape = datasets.CLASS_NAMES[recipe.data.dataset], datasets.IMAGE_SHAPES[recipe.data.dataset]
    threshold = None
    if recipe.loss.loss == 'lgm':
        _, thresholds = folder.read_calibration()
        threshold = thresholds.get(options.false_alarm_rate)

    ImageFile.LOAD_TRUNCATED_IMAGES = False  # GluonCV sets it, and would have half images classified
    rows, problems = [], []
    with (
        ThreadPoolExecutor(devices.usable_cores()) as pool,
        tqdm(total=len(files), unit=' images', disable=None, leave=False) as bar,
    ):
        for chunk in chunked_iter(files, BATCH):
            read = list(pool.map(lambda path: read_image(path, shape), chunk))
            good = [(path, image) for path, image in zip(chunk, read) if not isinstance(image, str)]
            problems += [image for image in read if isinstance(image, str)]
            if good:
                posterior, likelihood = predict(net, np.stack([image for _, image in good]), context)
            for number, (path, _) in enumerate(good):
                best = int(posterior[number].argmax())
                value = None if likelihood is None else round(float(likelihood[number]), 4)
                name = str(path).encode(errors='backslashreplace').decode()  # of whatever bytes
                rows.append(
                    (
                        name,
                        names[best],
                        round(float(posterior[number, best]), 6),
                        value,
                        None if threshold is None else bool(likelihood[number] < threshold),
                    )
                )
            bar.update(len(chunk))
    text = io.StringIO()
    if options.output.suffix == '.json':
        json.dump([dict(zip(COLUMNS, row)) for row in rows], text, indent=1)
    else:
        csv.writer(text, lineterminator='\n').writerows([COLUMNS, *rows])
    try:
        write_text(options.output, text.getvalue())
    except OSError as error:
        raise UserError(f'--output {options.output}: {error.strerror}') from None
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f'{len(rows)} of {len(files)} images in {options.output}')
    return 1 if problems else 0


if __name__ == '__main__':
    errors.exit_with(main)
