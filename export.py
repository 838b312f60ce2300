"""Write a finished run as files that other programs load.

    python export.py output/record/cifar-fast-seed0 --onnx

model-symbol.json and model-0000.params are for all of MXNet's bindings, model.onnx for whatever
reads ONNX. The one input, `data`, takes images of float32 pixel values 0 to 255, of shape (N,
channels, H, W) for any N; normalisation is in the graph. Outputs are `logits` (N, C), under L-GM
and center loss `distance` (N, C), half the squared distance to each class, and under L-GM
`log_likelihood` (N,). What was written is loaded again and compared with the run on test images.
"""

import logging
import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from training import errors
from training.config.options import Parser
from training.errors import UserError
from training.machine import devices
from training.runs.folder import RunFolder

SAMPLES = 1000
TOLERANCE = 1e-4  # of an output's largest value, or of 1 if that is smaller
OPSET, IR_VERSION = 13, 7  # of ONNX: the newest that mxnet 1.9's exporter writes, and its format


@contextmanager
def newest_opset(version):
    """Have onnx take an older opset for its newest.

    mxnet's exporter labels and checks its nodes, which are of opset 13, with the newest there is.
    """
    import onnx

    defaults, newest = onnx.checker.DEFAULT_CONTEXT, onnx.defs.onnx_opset_version
    kept = defaults.opset_imports
    try:
        onnx.defs.onnx_opset_version = lambda: version
        defaults.opset_imports = {'': version}
        yield
    finally:
        onnx.defs.onnx_opset_version = newest
        defaults.opset_imports = kept


def write_onnx(symbol_file, weights_file, shapes, path):
    """The exported symbol as an ONNX file; `shapes` are those of the input, then of the outputs."""
    import mxnet as mx
    import onnx

    logging.disable(logging.WARNING)  # of products of more than two dimensions; there are none
    try:
        with newest_opset(OPSET):
            mx.onnx.export_model(
                str(symbol_file),
                str(weights_file),
                [shapes[0]],
                [np.float32],
                str(path),
                dynamic=True,
                dynamic_input_shapes=[(None, *shapes[0][1:])],
            )
    except AttributeError as error:  # an operator that the exporter does not know
        raise UserError(f'--onnx: mxnet cannot write this net as ONNX: {error}') from None
    finally:
        logging.disable(logging.NOTSET)
    model = onnx.load(str(path))
    model.ir_version = IR_VERSION
    weights = {weight.name for weight in model.graph.initializer}
    image = next(value for value in model.graph.input if value.name not in weights)
    del model.graph.input[:]  # the exporter lists weights as inputs too
    model.graph.input.append(image)
    for value, shape in zip([image, *model.graph.output], shapes):
        value.CopyFrom(
            onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, ('N', *shape[1:]))
        )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def compare(name, found, wanted):
    """Print how far outputs are from those of the run; UserError where that is too far."""
    from training.losses.classifiers import OUTPUTS

    gaps = [float(np.abs(ours - theirs).max()) for ours, theirs in zip(found, wanted)]
    same = int(np.sum(found[0].argmax(axis=1) == wanted[0].argmax(axis=1)))
    print(f'{name}: same class for {same} of {len(wanted[0])} test images, logits within {gaps[0]:.1e}')
    for output, gap, theirs in zip(OUTPUTS, gaps, wanted):
        allowed = TOLERANCE * max(1.0, float(np.abs(theirs).max()))
        if not gap <= allowed:
            raise UserError(
                f'{name}: is not the same net as the run, whose {output} may differ by '
                f'{allowed:.1e}; found {gap:.1e}'
            )


def write(net, folder, pixels, wanted, with_onnx):
    """Write a net's files into a folder, load them again, and compare them with the net.

    Parameters
    ----------
    net : training.losses.classifiers.PixelClassifier
    folder : Path
    pixels : NDArray
        Some images, float32.
    wanted : list of array
        The net's outputs for them.
    with_onnx : bool
    """
    from mxnet import gluon

    symbol_file, weights_file = folder / 'model-symbol.json', folder / 'model-0000.params'
    net.export(str(folder / 'model'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the input's type: no file tells mxnet that
        loaded = gluon.SymbolBlock.imports(str(symbol_file), ['data'], str(weights_file))
    outputs = loaded(pixels)
    compare(
        symbol_file.name,
        [output.asnumpy() for output in (outputs if isinstance(outputs, list) else [outputs])],
        wanted,
    )
    if with_onnx:
        import onnxruntime

        path = folder / 'model.onnx'
        write_onnx(symbol_file, weights_file, [output.shape for output in (pixels, *wanted)], path)
        quiet = onnxruntime.SessionOptions()
        quiet.log_severity_level = 3  # not a warning for every weight that it folds into another
        session = onnxruntime.InferenceSession(str(path), quiet, providers=['CPUExecutionProvider'])
        compare(path.name, session.run(None, {'data': pixels.asnumpy()}), wanted)


def main(argv):
    parser = Parser(__doc__)
    parser.add_argument('run', type=Path, help='folder of a finished run')
    parser.add_argument('--onnx', action='store_true', help='also write model.onnx')
    parser.add_argument('--output-dir', type=Path, help='where to write (default RUN/export)')
    parser.add_argument('--data-dir', help="folder of the run's data files; default: the recipe's")
    options = parser.parse_args(argv)
    device = devices.prepare('cpu', 'float32')

    # What the run says of some test images.
    from mxnet import nd

    from training.data import datasets
    from training.runs import restore

    contexts = device.contexts()
    net, recipe = restore.pixel_classifier(RunFolder(options.run), None, contexts)
    test = datasets.load_test(recipe.data, SAMPLES, options.data_dir)
    pixels = nd.array(test.images)
    wanted = [output.asnumpy() for output in net(pixels)]

    # Written, loaded again, and asked the same; put in place only then.
    target = options.output_dir or options.run / 'export'
    try:
        target.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target) as draft:
            write(net, Path(draft), pixels, wanted, options.onnx)
            written = sorted(Path(draft).iterdir())
            for file in written:
                os.replace(file, target / file.name)
    except OSError as error:
        raise UserError(f'{target}: {error.strerror}; choose another --output-dir') from None
    print(f'written: {", ".join(file.name for file in written)} in {target}')
    return 0


if __name__ == '__main__':
    errors.exit_with(main)
