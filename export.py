"""Write a finished run as files that other programs load.

    python export.py output/record/cifar-fast-seed0 --onnx
    python export.py output/record/cifar-fast-seed0 --int8
    python export.py output/images-finetune --gluoncv backbone.params

model-symbol.json and model-0000.params are for all of MXNet's bindings, model.onnx for whatever
reads ONNX, model-int8.onnx the same with its convolutions in INT8, and model.json holds the classes' names
and how an image is prepared; model.onnx has that in its metadata. The one input, `data`, takes images
of float32 pixel values 0 to 255, of shape (N, channels, H, W) for any N; normalisation is in the graph.
Outputs are `logits` (N, C), under L-GM and center loss `distance` (N, C), half the squared distance to
each class, and under L-GM `log_likelihood` (N,). What was written is loaded again and compared with the
run on test images; INT8 may cost 0.01 of the accuracy. With --gluoncv the body of the net alone is
written, for GluonCV's detectors and segmentation nets of the same backbone.
"""

import json
import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Optional

import numpy as np

from training import errors
from training.config.options import Parser
from training.data.datasets import Facts
from training.errors import UserError, naming
from training.machine import devices
from training.runs.folder import RunFolder, check_writable, write_text

SAMPLES = 1000  # test images, of small ones
TOLERANCE = 1e-4  # of an output's largest value, or of 1 if that is smaller
CALIBRATION_SAMPLES = 256  # training images
INT8_LOSS = 0.01  # of top-1 accuracy


def compare(name: str, outputs: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    """Print how far outputs are from those of the run; UserError where that is too far."""
    from training.losses.classifiers import OUTPUTS

    gaps = [float(np.abs(ours - theirs).max()) for ours, theirs in zip(outputs, wanted)]
    same = int(np.sum(outputs[0].argmax(axis=1) == wanted[0].argmax(axis=1)))
    print(f'{name}: same class for {same} of {len(wanted[0])} test images, logits within {gaps[0]:.1e}')
    for output, gap, theirs in zip(OUTPUTS, gaps, wanted):
        allowed = TOLERANCE * max(1.0, float(np.abs(theirs).max()))
        if not gap <= allowed:
            raise UserError(
                f'{name}: is not the same net as the run, whose {output} may differ by '
                f'{allowed:.1e} and differs by {gap:.1e}'
            )


def write_mxnet(net: Any, folder: Path, images: np.ndarray, wanted: list[np.ndarray]) -> tuple[Path, Path]:
    """Write a PixelClassifier as symbol and weights, load them again, and compare its outputs."""
    from mxnet import gluon, nd

    symbol_file, weights_file = folder / 'model-symbol.json', folder / 'model-0000.params'
    net.export(str(folder / 'model'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the input's type: no file tells mxnet that
        loaded = gluon.SymbolBlock.imports(str(symbol_file), ['data'], str(weights_file))
    outputs = loaded(nd.array(images))
    outputs = outputs if isinstance(outputs, list) else [outputs]
    compare(symbol_file.name, [output.asnumpy() for output in outputs], wanted)
    return symbol_file, weights_file


def describe(facts: Facts, short_side: Optional[int], outputs: tuple[str, ...]) -> dict[str, Any]:
    """What a program has to know of an exported net: model.json, and the metadata of model.onnx."""
    channels, height, width = facts.shape
    how = f'resized to {height} x {width}'
    if short_side:
        how = f'reduced to a short side of {short_side} if larger; its middle square of 7/8 of that, {how}'
    return {
        'classes': list(facts.names),
        'input': {'name': 'data', 'shape': ['N', channels, height, width], 'values': '0 to 255'},
        'channels': 'red, green, blue' if channels == 3 else 'gray',
        'image': how,
        'normalisation': 'in the graph',
        'outputs': list(outputs),
    }


def accuracy_of(path: Path, outputs: list[np.ndarray], labels: np.ndarray, speed: float) -> float:
    """The accuracy of an ONNX file's outputs, printed with its size and speed."""
    accuracy = float(np.mean(outputs[0].argmax(axis=1) == labels))
    print(
        f'{path.name}: {path.stat().st_size / 1e6:.2f} MB, accuracy {accuracy:.4f} on {len(labels)} '
        f'test images, {speed:.0f} images/s'
    )
    return accuracy


def write_int8(model: Path, calibration: np.ndarray, test: Any, accuracy: float) -> None:
    """Write model-int8.onnx beside an ONNX file of this accuracy; UserError if it is much worse."""
    from training.runs import onnx_files

    path = model.with_name('model-int8.onnx')
    onnx_files.write_int8(model, calibration, path)
    outputs, speed = onnx_files.run_onnx(path, test.images)
    lost = accuracy - accuracy_of(path, outputs, test.labels, speed)
    if round(lost, 6) > INT8_LOSS:
        raise UserError(
            f'--int8: costs {lost:.4f} of the accuracy, where at most {INT8_LOSS} is accepted; nothing is '
            'written. Use --onnx alone'
        )


def write_gluoncv(folder: RunFolder, path: Path) -> int:
    """Write a run's backbone for GluonCV, and say how it is loaded there; the exit code."""
    from training.config.recipe import load_run
    from training.data import datasets
    from training.runs.gluoncv_files import write_backbone

    recipe: Any = load_run(folder.require_run())
    with naming(path):
        digest = write_backbone(folder, recipe, datasets.facts(recipe.data).shape, path)
    name = recipe.model.model
    print(
        f"written: {path}; get_model('{name}').load_parameters('{path}') takes it, and, as a file of the name"
    )
    print(f"{name}-{digest[:8]}.params in DIR, get_model('{name}', pretrained='{digest[:8]}', root='DIR')")
    return 0


def main(argv: list[str]) -> int:
    parser = Parser(__doc__)
    parser.add_argument('run', type=Path, help='folder of a finished run')
    parser.add_argument('--onnx', action='store_true', help='also write model.onnx')
    parser.add_argument('--int8', action='store_true', help='also write model.onnx and model-int8.onnx')
    parser.add_argument(
        '--gluoncv',
        type=Path,
        metavar='FILE',
        help="only write the net's body as a weights file of GluonCV's own names",
    )
    parser.add_argument('--output-dir', type=Path, help='where to write (default RUN/export)')
    parser.add_argument('--data-dir', help="folder of the run's data files; default: the recipe's")
    options = parser.parse_args(argv)
    folder, target = RunFolder(options.run), options.output_dir or options.run / 'export'
    folder.require_run()
    check_writable(options.gluoncv.parent if options.gluoncv else target)
    device = devices.prepare('cpu', 'float32')

    # What the run says of some test images.
    from mxnet import nd

    from training.data import datasets
    from training.runs import onnx_files, restore

    if options.gluoncv:
        return write_gluoncv(folder, options.gluoncv)
    net, recipe = restore.pixel_classifier(folder, None, device.contexts())
    facts = datasets.facts(recipe.data)
    count = min(SAMPLES, 2 * facts.batch)
    train, test = datasets.load_first(recipe.data, count, options.data_dir)
    wanted = [output.asnumpy() for output in net(nd.array(test.images))]

    # Written, loaded again, and asked the same; put in place only then.
    with naming(target, '; choose another --output-dir'):
        target.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target) as draft:
            files = write_mxnet(net, Path(draft), test.images, wanted)
            about = describe(facts, recipe.data.short_side, net.outputs)
            write_text(Path(draft) / 'model.json', json.dumps(about, indent=1, ensure_ascii=False) + '\n')
            if options.onnx or options.int8:
                model = Path(draft) / 'model.onnx'
                shapes = [array.shape for array in (test.images, *wanted)]
                metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in about.items()}
                onnx_files.write_onnx(*files, shapes, model, metadata)
                outputs, speed = onnx_files.run_onnx(model, test.images)
                compare(model.name, outputs, wanted)
                accuracy = accuracy_of(model, outputs, test.labels, speed)
            if options.int8:
                write_int8(model, train.images[:CALIBRATION_SAMPLES], test, accuracy)
            written = sorted(Path(draft).iterdir())
            for file in written:
                os.replace(file, target / file.name)
    print(f'written: {", ".join(file.name for file in written)} in {target}')
    return 0


if __name__ == '__main__':
    errors.exit_with(main)
