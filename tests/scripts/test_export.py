"""export.py: its files in programs that know nothing of this project."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import RECORD
from mxnet import gluon, nd

import export
from gmloss import MixtureClassifier
from training.data import augment, datasets
from training.errors import UserError
from training.losses.build import MIXTURES
from training.losses.classifiers import PixelClassifier
from training.model import normaliser
from training.runs import onnx_files
from training.runs.folder import RunFolder
from training.runs.restore import restore_model


@pytest.mark.parametrize(
    'name, outputs, accuracy',
    [
        ('cifar-fast-seed0', ['logits', 'distance', 'log_likelihood'], 0.912),
        ('mnist-softmax-center', ['logits', 'distance'], 0.984),
    ],
)
def test_onnxruntime_agrees_with_the_run_on_1000_test_images(
    run_here, capfd, tmp_path, name, outputs, accuracy
):
    assert run_here('export', RECORD / name, '--onnx', '--output-dir', tmp_path) == 0
    printed = capfd.readouterr()
    assert printed.out.count('same class for 1000 of 1000 test images') == 2 and not printed.err
    contexts = [nd.array([0]).context]
    model, recipe = restore_model(RunFolder(RECORD / name), None, contexts)
    _, test = datasets.load_splits(recipe.data)
    # The net as it is trained and tested: normalised uint8 images to logits.
    images = normaliser(recipe, contexts)(nd.array(test.images[:1000], dtype='uint8'))
    if 'log_likelihood' in outputs:
        wanted, distance = model.classifier(images), model.classifier.mixture(model.net(images))[0]
    else:
        wanted, to_centers = model.classifier(images)
        distance = -to_centers
    wanted = wanted.asnumpy()

    written = onnx.load(str(tmp_path / 'model.onnx'))
    assert [value.name for value in written.graph.input] == ['data']
    assert [(entry.domain, entry.version) for entry in written.opset_import] == [('', 13)]
    session = onnxruntime.InferenceSession(str(tmp_path / 'model.onnx'), providers=['CPUExecutionProvider'])
    assert [value.name for value in session.get_outputs()] == outputs
    pixels = test.images[:1000].astype(np.float32)
    found = session.run(None, {'data': pixels})
    assert (found[0].argmax(axis=1) == wanted.argmax(axis=1)).all()
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[1], distance.asnumpy(), rtol=1e-4, atol=1e-4)
    assert np.mean(found[0].argmax(axis=1) == test.labels[:1000]) == pytest.approx(accuracy, abs=0.002)
    if 'log_likelihood' in outputs:
        size, (spread, _) = model.net.feature_size, RunFolder(RECORD / name).read_calibration()
        by_hand = np.log(np.exp(wanted.astype(np.float64) / spread).mean(axis=1)) - size / 2 * np.log(
            2 * np.pi * spread
        )
        np.testing.assert_allclose(found[2], by_hand, rtol=0, atol=1e-4 / spread)  # of the logits
    (few,) = session.run(['logits'], {'data': pixels[:3]})
    np.testing.assert_allclose(few, wanted[:3], rtol=0, atol=1e-4)


@pytest.mark.parametrize('kind', MIXTURES)
def test_every_covariance_is_exported_as_it_is(kind, tmp_path):
    features = gluon.nn.HybridSequential()
    features.add(gluon.nn.Flatten(), gluon.nn.Dense(3))
    mixture = MIXTURES[kind](5, 3)
    net = PixelClassifier(
        augment.Normalize(**augment.NORMALISATIONS['unit']),
        MixtureClassifier(features, mixture),
        0.5,
        prefix='',
    )
    net.initialize()
    mixture.mean.set_data(nd.random.normal(0, 2, (5, 3)))
    for name in ('rho', 'variance'):  # away from 1, which is its own inverse
        if hasattr(mixture, name):
            getattr(mixture, name).set_data(nd.random.uniform(0.3, 2, (5, 3)))
    net.hybridize()
    pixels = nd.random.uniform(0, 255, (20, 1, 4, 4))
    wanted = [output.asnumpy() for output in net(pixels)]
    assert np.ptp(wanted[0]) > 1
    files = export.write_mxnet(net, tmp_path, pixels.asnumpy(), wanted)
    onnx_files.write_onnx(*files, [array.shape for array in (pixels, *wanted)], tmp_path / 'model.onnx')
    outputs, _ = onnx_files.run_onnx(tmp_path / 'model.onnx', pixels.asnumpy())
    export.compare('model.onnx', outputs, wanted)


@pytest.mark.parametrize('size', [1, 1000])
def test_net_that_says_something_else_is_refused(size):
    wanted = size * np.array([[2, 0], [1e-5, 0]])
    for wrong in ([[2.001, 0], [0, 0]], [[np.nan, 0]] * 2, [[0, 2], [0, 0]]):
        with pytest.raises(UserError, match='model.onnx: is not the same net'):
            export.compare('model.onnx', [size * np.array(wrong)], [wanted])
    right = size * np.array([[2.00001, 0], [0, 1e-5]])
    export.compare('model.onnx', [right], [wanted])
    with pytest.raises(UserError, match='whose distance may differ'):
        export.compare('model.onnx', [right, -wanted], [wanted, wanted])


def test_int8_keeps_the_accuracy_with_the_mixture_in_float32(run_here, capfd, tmp_path):
    run = RECORD / 'cifar-fast-20epochs-seed0'
    assert run_here('export', run, '--int8', '--output-dir', tmp_path) == 0
    printed = capfd.readouterr()
    assert not printed.err
    pattern = r'{}: (.*) MB, accuracy (.*) on 1000 test images, (.*) images/s'
    (size, accuracy, _), (small, kept, speed) = (
        map(float, re.search(pattern.format(file), printed.out).groups())
        for file in ('model.onnx', 'model-int8.onnx')
    )
    assert small < 0.4 * size and accuracy - 0.01 <= kept and speed > 0
    path = tmp_path / 'model-int8.onnx'
    assert small == pytest.approx(path.stat().st_size / 1e6, abs=0.01)
    graph = onnx.load(str(path)).graph
    quantized = {node.output[0] for node in graph.node if node.op_type == 'DequantizeLinear'}
    for node in graph.node:
        if node.op_type == 'Conv':
            assert set(node.input) <= quantized
        elif node.op_type == 'MatMul':  # of the distances, and of LeNet++'s features
            assert not set(node.input) & quantized


def test_int8_that_loses_too_much_leaves_nothing_behind(run_here, capfd, tmp_path, monkeypatch):
    def write_without_kernels(source, images, path):
        model = onnx.load(str(source))
        for weight in model.graph.initializer:
            if len(weight.dims) == 4:
                weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros(weight.dims, np.float32), weight.name))
        onnx.save(model, str(path))

    monkeypatch.setattr(onnx_files, 'write_int8', write_without_kernels)
    monkeypatch.setattr(export, 'SAMPLES', 200)
    (tmp_path / 'model.onnx').write_text('of an earlier export')
    assert run_here('export', RECORD / 'mnist-lgm-full', '--int8', '--output-dir', tmp_path) == 2
    error = capfd.readouterr().err
    assert re.fullmatch(r'error: --int8: costs 0\.\d+ of the accuracy, .*\n', error)
    assert [path.name for path in tmp_path.iterdir()] == ['model.onnx']
    assert (tmp_path / 'model.onnx').read_text() == 'of an earlier export'
