"""From a run on images back to GluonCV: its classifiers, detectors and segmentation nets take the body.

And the recipes for images, whose nets are GluonCV's, at their full resolution.
"""

import warnings

import mxnet as mx
import numpy as np
import pytest
import yaml
from photos import write_set
from small_runs import run_fields

from training.config import recipe as recipes
from training.machine.devices import Device
from training.model import build_model, initialize
from training.nets import zoo
from training.runs.run import read_run
from training.runs.weights import load_weights


@pytest.fixture(scope='module')
def train(run_here, tmp_path_factory, cifar):
    """Train for an epoch of a few steps."""
    photos = write_set(tmp_path_factory.mktemp('photos'), cifar)

    def run(folder, *words):
        words = (
            *('--version', 'scratch-small', '--data-dir', photos, '--output-dir', folder, *words),
            *('--image-size', 32, '--batch-size', 9, '--epochs', 1, '--warmup', 'none', '--dtype', 'float32'),
        )
        assert run_here('train_images', *words) == 0

    return run


def load_model(folder):
    """The model of a finished run."""
    recipe, device = recipes.load_run(folder / 'config.yaml'), Device('cpu', (0,), 'float32')
    model = build_model(recipe, device)
    initialize(model, recipe, device.contexts())
    load_weights(folder / 'last.params', model.weights, device.contexts())
    return model


def test_backbone_goes_back_to_gluoncv(train, run_here, tmp_path, capsys):
    train(tmp_path / 'run', '--model', 'mobilenet0.25', '--feature-size', 8)
    capsys.readouterr()
    assert run_here('export', tmp_path / 'run', '--gluoncv', tmp_path / 'body.params') == 0
    digest = capsys.readouterr().out.split('-')[-1][:8]
    for way in ('file', 'hash'):
        if way == 'file':
            stock = zoo.zoo_model('mobilenet0.25', 1000)
            stock.load_parameters(str(tmp_path / 'body.params'))
        else:
            (tmp_path / 'body.params').rename(tmp_path / f'mobilenet0.25-{digest}.params')
            stock = zoo.zoo_model('mobilenet0.25', 1000, pretrained=digest, root=str(tmp_path))
        model = load_model(tmp_path / 'run')
        x = mx.nd.random.normal(shape=(2, 3, 32, 32))
        embedded = model.net.embedding(model.net.norm(stock.features(x)) * 10 / 16).asnumpy()
        np.testing.assert_allclose(embedded, model.net(x).asnumpy(), rtol=1e-3, atol=1e-4)


def build_detector(name, **settings):
    """A detector or segmentation net of GluonCV, whose layers beside the backbone are random."""
    zoo.zoo_model('resnet18_v1b', 2)  # makes GluonCV importable
    from gluoncv.model_zoo import get_model

    net = get_model(name, pretrained=False, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # what is loaded stays
        net.initialize()
    return net


def rcnn_features(net, x):
    return net.top_features(net.features(x))


@pytest.mark.parametrize(
    'backbone, detector, features',
    [
        ('mobilenet1.0', 'ssd_512_mobilenet1.0_voc', lambda net, x: net.features(x)[1]),
        pytest.param('resnet50_v1b', 'faster_rcnn_resnet50_v1b_voc', rcnn_features, marks=pytest.mark.slow),
        pytest.param('resnet50_v1s', 'fcn_resnet50_voc', None, marks=pytest.mark.slow),
    ],
)
def test_gluoncvs_detectors_take_the_exported_backbone(
    backbone, detector, features, train, run_here, tmp_path, monkeypatch, capsys
):
    train(tmp_path / 'run', '--model', backbone, '--loss', 'softmax')
    (tmp_path / 'models').mkdir()
    capsys.readouterr()
    assert run_here('export', tmp_path / 'run', '--gluoncv', tmp_path / 'models' / 'body.params') == 0
    digest = capsys.readouterr().out.split('-')[-1][:8]
    (tmp_path / 'models' / 'body.params').rename(tmp_path / 'models' / f'{backbone}-{digest}.params')
    monkeypatch.setenv('MXNET_HOME', str(tmp_path))
    net = build_detector(detector, pretrained_base=digest)
    model = load_model(tmp_path / 'run')
    x = mx.nd.random.normal(shape=(2, 3, 128, 128))
    if features is None:  # its last two stages are dilated: features differ, weights do not
        found, wanted = (
            body.layer2(body.layer1(body.maxpool(body.relu(body.bn1(body.conv1(x))))))
            for body in (net, model.net.features)
        )
        for stage in ('layer3', 'layer4'):
            ours = getattr(model.net.features, stage)._collect_params_with_prefix()
            for name, parameter in getattr(net, stage)._collect_params_with_prefix().items():
                np.testing.assert_array_equal(parameter.data().asnumpy(), ours[name].data().asnumpy())
    else:
        found, wanted = features(net, x).mean(axis=(2, 3)), model.net(x)[0]
    assert wanted.asnumpy().std() > 1e-3
    np.testing.assert_allclose(found.asnumpy(), wanted.asnumpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('version', sorted(path.stem for path in (recipes.CONFIGS / 'images').glob('*.yaml')))
def test_recipes_train_some_steps_at_their_full_resolution(version, run_here, tmp_path, cifar):
    folder = write_set(tmp_path / 'photos', cifar, train=4, val=1, sides=(250, 400))
    words = '--version', version, '--data-dir', folder, '--output-dir', tmp_path / 'run'
    assert run_here('train_images', *words, '--batch-size', 4, '--epochs', 1, '--no-pretrained') == 0
    recipe = recipes.load_run(tmp_path / 'run' / 'config.yaml')
    file = yaml.safe_load((recipes.CONFIGS / 'images' / f'{version}.yaml').read_text())
    assert recipe.data.image_size == file['data']['image_size'] and recipe.data.num_samples is None
    (row,) = run_fields(tmp_path / 'run')
    assert np.isfinite(float(row['train_loss'])) and read_run(tmp_path / 'run').finished
