"""Exported symbols as ONNX files, in float32 and in INT8."""

import logging
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Optional

import mxnet as mx
import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization

from training.errors import UserError

OPSET, IR_VERSION = 13, 7  # of ONNX: the newest that mxnet 1.9's exporter writes, and its format
CALIBRATION_BATCH = 64
TIMED_RUNS, TIMED_IMAGES = 5, 100


def write_onnx(
    symbol_file: Path,
    weights_file: Path,
    shapes: list[tuple[int, ...]],
    path: Path,
    metadata: Optional[dict[str, str]] = None,
) -> None:
    """The exported symbol as an ONNX file; `shapes` are those of the input, then of the outputs.

    `metadata` becomes the model's own.

    Raises
    ------
    UserError
        If the net has an operator that mxnet's exporter does not know.
    """
    try:
        with _no_warnings(), _newest_opset(OPSET):  # of products of more than two dimensions; there are none
            mx.onnx.export_model(
                str(symbol_file),
                str(weights_file),
                [shapes[0]],
                [np.float32],
                str(path),
                dynamic=True,
                dynamic_input_shapes=[(None, *shapes[0][1:])],
            )
    except AttributeError as error:
        raise UserError(f'--onnx: mxnet cannot write this net as ONNX: {error}') from None
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
    onnx.helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def write_int8(model: Path, images: np.ndarray, path: Path) -> None:
    """A copy of an ONNX file whose convolutions compute in INT8.

    All else stays in float32, the mixture above all: with its distances in INT8, a net of accuracy 0.92
    comes to 0.11.

    Parameters
    ----------
    model : Path
        Written by :func:`write_onnx`.
    images : array (N, channels, H, W)
        Training images, 0 to 255, from which the ranges of activations are taken.
    path : Path
    """
    batches = iter(range(0, len(images), CALIBRATION_BATCH))

    def next_batch() -> Optional[dict[str, np.ndarray]]:
        start = next(batches, None)
        if start is None:
            return None
        return {'data': images[start : start + CALIBRATION_BATCH].astype(np.float32)}

    with _no_warnings():
        quantization.quantize_static(
            str(model),
            str(path),
            SimpleNamespace(get_next=next_batch),
            op_types_to_quantize=['Conv'],
            per_channel=True,
            reduce_range=True,  # 7 bits a weight: CPUs without VNNI add up pairs of products in 16 bits
        )


def run_onnx(path: Path, images: np.ndarray) -> tuple[list[np.ndarray], float]:
    """The outputs of an ONNX file for images (N, channels, H, W), and the images per second."""
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3  # not a warning for every weight that it folds into another
    session = onnxruntime.InferenceSession(str(path), quiet, providers=['CPUExecutionProvider'])
    pixels, seconds = images.astype(np.float32), []
    outputs = session.run(None, {'data': pixels})
    for _ in range(TIMED_RUNS):
        started = time.perf_counter()
        session.run(None, {'data': pixels[:TIMED_IMAGES]})
        seconds.append(time.perf_counter() - started)
    return outputs, len(pixels[:TIMED_IMAGES]) / statistics.median(seconds)


@contextmanager
def _newest_opset(version: int) -> Iterator[None]:
    """Have onnx take an older opset for its newest.

    mxnet's exporter labels and checks its nodes, which are of opset 13, with the newest there is.
    """
    defaults, newest = onnx.checker.DEFAULT_CONTEXT, onnx.defs.onnx_opset_version
    imports = defaults.opset_imports
    try:
        onnx.defs.onnx_opset_version = lambda: version
        defaults.opset_imports = {'': version}
        yield
    finally:
        onnx.defs.onnx_opset_version = newest
        defaults.opset_imports = imports


@contextmanager
def _no_warnings() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
