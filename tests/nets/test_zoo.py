"""The rebuilt net gives the stock GluonCV net's numbers, and takes its weights."""

import json
import os
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest
from conftest import ROOT
from mxnet import autograd, gluon, init, nd

from training.config.inputs import CifarModel, ImagesModel
from training.errors import UserError
from training.machine import devices
from training.machine.devices import Device
from training.nets import zoo


def test_feature_and_output_layers_stay_in_float32_under_low_precision():
    if not devices.cpu_has_bfloat16():
        pytest.skip('this CPU lacks avx512_bf16')
    code = """if True:
        from training.machine import devices
        device = devices.prepare('cpu', 'bfloat16')
        import numpy as np
        from mxnet import nd
        from training.config.schema import CifarModel, ImagesModel
        from training.nets import lenet, zoo
        net = lenet.LeNetPlusPlus(2, 10)
        net.initialize(zoo.initializer('xavier-2.24'))
        net.hybridize()
        features, logits = net(nd.random.uniform(shape=(64, 1, 28, 28)))
        weight, bias = (p.data().asnumpy().astype('float64') for p in
                        (net.output.weight, net.output.bias))
        exact = features.asnumpy().astype('float64') @ weight.T + bias
        print(np.abs(logits.asnumpy() - exact).max() / np.abs(exact).max())
        cifar = zoo.FeatureNet(CifarModel(model='cifar_resnet20_v1', features='output'), device)
        cifar.initialize()
        cifar.hybridize()
        out = cifar(nd.random.uniform(shape=(2, 3, 32, 32))).asnumpy()
        print(np.count_nonzero(out.view('uint32') & 0xffff))
        body = net.body[0](nd.random.uniform(shape=(2, 1, 28, 28))).astype('float32').asnumpy()
        print(np.count_nonzero(body.view('uint32') & 0xffff), np.count_nonzero(body))
        """
    error, finer, finer_inside, inside = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], check=True, cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert float(error) < 1e-5, 'bfloat16 would give about 4e-3'
    assert int(finer) > 10, 'values that bfloat16 cannot hold'
    assert int(finer_inside) == 0 < int(inside), 'the net itself is to compute in bfloat16'


def test_zoo_opens_beside_a_pytorch_that_gluoncv_refuses(tmp_path):
    (tmp_path / 'torch.py').write_text("__version__ = '2.13.0'")
    code = (
        "import torch; from training.machine import devices; devices.prepare('cpu'); from training.nets "
        "import zoo; zoo.zoo_model('cifar_resnet20_v1', 10); import sys; "
        "assert sys.modules['torch'] is torch"
    )
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        check=True,
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(tmp_path)),
    )


def test_dropout_follows_the_seed_on_gpus_too():
    net = zoo.FeatureNet(CifarModel(model='vgg11_bn'), Device('gpu', (0,), 'float32'))
    graph = json.loads(net(mx.sym.var('data')).tojson())
    found = [node['attrs'] for node in graph['nodes'] if node['op'] == 'Dropout']
    assert [(attrs['p'], attrs['cudnn_off']) for attrs in found] == [('0.5', 'True')] * 2


@pytest.mark.parametrize('size', [32, 20])
def test_pooled_features_have_64_dimensions_at_any_image_size(size):
    net = zoo.FeatureNet(CifarModel(), Device('cpu', (0,), 'float32'))
    net.initialize()
    assert net.feature_size == 64
    assert net(nd.zeros((2, 3, size, size))).shape == (2, 64)


@pytest.mark.parametrize(
    'name, width',
    [
        ('cifar_resnet56_v1', 64),
        ('cifar_wideresnet16_10', 640),
        ('resnet18_v1', 512),
        ('resnet18_v1b', 512),
        ('resnet50_v1d', 2048),
        ('vgg11_bn', 4096),
        ('mobilenet0.25', 256),
        ('resnext50_32x4d', 2048),
        ('darknet53', 1024),
    ],
)
def test_any_classifier_of_the_zoo_gives_its_features(name, width):
    """It can be trained, and keeps the order and shapes of its parameters."""
    net = zoo.FeatureNet(CifarModel(model=name), Device('cpu', (0,), 'bfloat16'))
    net.initialize()
    assert net.feature_size == width and 'PaddedStem' in repr(net)
    with autograd.record():  # oneDNN refuses some layouts in training alone
        found = net(nd.random.normal(shape=(2, 3, 32, 32)))
    found.backward()
    assert found.shape == (2, width)
    assert all(
        np.isfinite(parameter.grad().asnumpy()).all()
        for parameter in net.collect_params().values()
        if parameter.grad_req != 'null'
    )
    stock = zoo.zoo_model(name, 10)
    stock.infer_shape(nd.zeros((2, 3, 32, 32)))
    shapes = [
        [
            (key.rsplit('.', 1)[-1], parameter.shape)
            for key, parameter in block._collect_params_with_prefix().items()
            if not key.startswith(('output', 'fc'))
        ]
        for block in (stock, net.features)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    'name, size, width',
    [
        ('mobilenetv2_0.25', 64, 1280),  # these three end in convolutions
        ('mobilenetv3_small', 48, 1280),
        ('squeezenet1.1', 64, 512),
        ('googlenet', 64, 1024),  # and these have their parts as attributes
        ('resnet18_v1b', 40, 512),
        ('resnest14', 64, 2048),
        ('densenet121', 64, 1024),  # which pools over 7 x 7
    ],
)
def test_nets_for_photographs_give_features_embedding_and_logits(name, size, width):
    """At other sizes than they were made for."""
    model = ImagesModel(model=name, feature_size=6)
    net = zoo.FeatureNet(model, Device('cpu', (0,), 'float32'), 4, (3, size, size))
    assert net.embedding.weight.shape == (6, width) and net.feature_size == 6
    net.initialize(init.MSRAPrelu())
    with autograd.record():
        features, logits = net(nd.random.normal(shape=(2, 3, size, size)))
    logits.backward()
    assert features.shape == (2, 6) and logits.shape == (2, 4)
    first = next(iter(net.features.collect_params('.*weight').values()))
    assert first.grad().abs().sum().asscalar() > 0


@pytest.mark.parametrize('name', ['shufflenet_v1', 'resnext101e_64x4d', 'se_resnext101e_64x4d'])
def test_net_without_published_weights_is_made_and_is_one_line_with_pretrained(name):
    assert zoo.zoo_model(name, 4).output._units == 4
    with pytest.raises(UserError, match=f'--pretrained: the pretrained weights of {name} cannot') as error:
        zoo.pretrained_model('--pretrained', name, 1000)
    assert '\n' not in str(error.value)


def test_embedding_takes_features_of_one_scale_whatever_the_nets():
    model = ImagesModel(model='mobilenet0.25', feature_size=6)
    net = zoo.FeatureNet(model, Device('cpu', (0,), 'float32'), 4, (3, 32, 32))
    net.initialize(init.MSRAPrelu())
    x = nd.random.normal(shape=(16, 3, 32, 32))
    with autograd.train_mode():
        pooled = net.features(x).asnumpy().reshape(16, 256)
        embedded = net(x)[0].asnumpy()
    scaled = (pooled - pooled.mean(axis=0)) / np.sqrt(pooled.var(axis=0) + 1e-5) * 10 / 256**0.5
    weight, bias = net.embedding.weight.data().asnumpy(), net.embedding.bias.data().asnumpy()
    np.testing.assert_allclose(embedded, scaled @ weight.T + bias, rtol=1e-3, atol=1e-4)


def test_frozen_backbone_keeps_weights_and_statistics_and_trains_the_rest():
    model = ImagesModel(model='mobilenet0.25', feature_size=6, freeze_backbone=True)
    net = zoo.FeatureNet(model, Device('cpu', (0,), 'float32'), 4, (3, 32, 32))
    net.initialize(init.MSRAPrelu())
    net(nd.zeros((1, 3, 32, 32)))
    before = {name: p.data().asnumpy() for name, p in net.features.collect_params().items()}
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.1, 'wd': 0.1})
    with autograd.record():
        (net(nd.random.normal(shape=(8, 3, 32, 32)))[1] ** 2).sum().backward()
    trainer.step(8)
    after = net.features.collect_params()
    assert all((after[name].data().asnumpy() == array).all() for name, array in before.items())
    assert np.abs(net.embedding.weight.grad().asnumpy()).max() > 0


def test_backbone_has_a_learning_rate_multiplier_of_its_own():
    model = ImagesModel(model='mobilenet0.25', feature_size=6, backbone_lr_mult=0.1)
    net = zoo.FeatureNet(model, None, 4, (3, 32, 32))
    assert {p.lr_mult for p in net.features.collect_params().values()} == {0.1}
    assert net.embedding.weight.lr_mult == net.output.weight.lr_mult == 1


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'model': 'cifar_resnet21_v1'}, 'cifar_resnet21_v1: no image classifier'),
        ({'model': 'cifar_resnet20_v2', 'zero_gamma': True}, 'no residual block that ends'),
        ({'model': 'resnet50_v1b_gn'}, r'cannot take images of 32 x 32 \(.*Reshape'),
        ({'model': 'vgg11_bn', 'shortcut': 'pool'}, 'no strided 1 x 1'),
    ],
)
def test_what_the_zoo_does_not_have_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        zoo.FeatureNet(CifarModel(**settings), Device('cpu', (0,), 'float32'))


@pytest.mark.parametrize('name', ['cifar_resnet20_v1', 'resnet18_v1b', 'resnet50_v1'])
def test_zero_gamma_makes_every_residual_block_its_shortcut_at_the_start(name):
    net = zoo.FeatureNet(CifarModel(model=name, zero_gamma=True), Device('cpu', (0,), 'float32'))
    net.initialize()
    net(nd.zeros((1, 3, 32, 32)))
    blocks = list(zoo._residual_blocks(net.features))
    assert len(blocks) == {'cifar_resnet20_v1': 9, 'resnet18_v1b': 8, 'resnet50_v1': 16}[name]
    zero = [
        parameter
        for key, parameter in net.collect_params('.*gamma').items()
        if (parameter.data().asnumpy() == 0).all()
    ]
    assert len(zero) == len(blocks)
    plain = next(block for block in blocks if block.downsample is None)
    x = nd.random.normal(shape=(2, zero[0].shape[0], 8, 8)).relu()
    np.testing.assert_array_equal(plain(x).asnumpy(), x.asnumpy())
