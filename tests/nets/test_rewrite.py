"""Nets rewritten for speed: the same features and gradients as before."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, init, nd

from training.config.inputs import CifarModel
from training.machine.devices import Device
from training.nets import zoo
from training.nets.layers import ReLU6
from training.nets.rewrite import freeze


def gradients(net, x, weight):
    """Outputs and all gradients of (outputs * weight).sum()."""
    with autograd.record():
        out = net(x)
        (out * weight).sum().backward()
    return out.asnumpy(), {
        path: parameter.grad().asnumpy()
        for path, parameter in net._collect_params_with_prefix().items()
        if parameter.grad_req != 'null'
    }


def gap(first, second):
    """Norm of the difference of two sets of gradients over the norm of one."""
    return (
        sum(((first[name] - second[name]) ** 2).sum() for name in first)
        / sum((first[name] ** 2).sum() for name in first)
    ) ** 0.5


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', ['cifar_resnet20_v1', 'cifar_resnet20_v2'])
def test_features_and_gradients_equal_the_stock_nets(name, dtype, tmp_path):
    """'bfloat16' selects the padded stem; arithmetic stays float32 without mxnet's AMP.

    Both nets run imperatively: mxnet's own fusions round differently, and rounding flips the ReLU
    of values near zero, which moves the stock net's gradients against its hybridised self by up
    to 0.003 of their norm.
    """
    mx.random.seed(0)
    stock = zoo.zoo_model(name, 10)
    stock.initialize(init.Xavier())
    x, weight = nd.random.normal(shape=(32, 3, 32, 32)), nd.random.normal(shape=(32, 10))
    stock(x)
    stock.save_parameters(str(tmp_path / 'stock.params'))
    ours = zoo.FeatureNet(CifarModel(model=name, features='output'), Device('cpu', (0,), dtype))
    ours.load_parameters(str(tmp_path / 'stock.params'))
    out, want = gradients(ours, x, weight), gradients(stock, x, weight)
    for (path, before), after in zip(
        stock._collect_params_with_prefix().items(), ours._collect_params_with_prefix().values()
    ):
        np.testing.assert_allclose(
            after.data().asnumpy(), before.data().asnumpy(), rtol=1e-4, atol=1e-5, err_msg=path
        )  # running statistics included
    np.testing.assert_allclose(out[0], want[0], rtol=1e-4, atol=1e-4)
    assert set(out[1]) == set(want[1])
    assert gap(want[1], out[1]) < 1e-5


def test_swaps_are_in_place_where_they_pay():
    cpu = zoo.FeatureNet(CifarModel(), Device('cpu', (0,), 'bfloat16'))
    gpu = zoo.FeatureNet(CifarModel(), Device('gpu', (0,), 'float32'))
    assert repr(cpu).count('BatchNormReLU') == 9 and repr(cpu).count('PaddedStem') == 1
    assert 'BatchNormReLU' not in repr(gpu) and 'PaddedStem' not in repr(gpu)
    assert not any(
        isinstance(block, gluon.nn.GlobalAvgPool2D)
        for net in (cpu, gpu)
        for block in net.features._children.values()
    )


def test_relu6_is_clip_with_its_gradient():
    x = nd.array([-3.0, 0.5, 5.9, 6.1, 40])
    found = []
    for block in (ReLU6(), gluon.nn.HybridLambda(lambda F, x: F.clip(x, 0, 6))):
        x.attach_grad()
        with autograd.record():
            out = block(x)
        out.backward()
        found.append((out.asnumpy().tolist(), x.grad.asnumpy().tolist()))
    assert found[0] == found[1]


@pytest.mark.parametrize('name', ['cifar_resnet20_v1', 'cifar_resnet20_v2'])
def test_pooled_shortcut_averages_what_the_strided_one_skips(name):
    mx.random.seed(0)
    nets_by_shortcut = [
        zoo.FeatureNet(CifarModel(name, shortcut=how), Device('cpu', (0,), 'float32'))
        for how in ('conv', 'pool')
    ]
    for net in nets_by_shortcut:
        net.initialize()
        assert net(nd.zeros((2, 3, 32, 32))).shape == (2, 64)
    strided, pooled = (
        next(block for block in zoo._residual_blocks(net.features) if block.downsample is not None)
        for net in nets_by_shortcut
    )
    convolution = strided.downsample[0] if name.endswith('v1') else strided.downsample
    weight = convolution.weight.data()
    pooled.downsample[1].weight.set_data(weight)
    x = nd.random.normal(shape=(2, 16, 8, 8))
    np.testing.assert_allclose(
        convolution(x).asnumpy(),
        np.einsum('oc,bchw->bohw', weight.asnumpy()[:, :, 0, 0], x.asnumpy()[:, :, ::2, ::2]),
        rtol=1e-4,
        atol=1e-5,
    )
    average = x.asnumpy().reshape(2, 16, 4, 2, 4, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(
        pooled.downsample[1](pooled.downsample[0](x)).asnumpy(),
        np.einsum('oc,bchw->bohw', weight.asnumpy()[:, :, 0, 0], average),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize('name', ['cifar_resnet20_v1', 'cifar_resnet20_v2', 'vgg11_bn'])
@pytest.mark.parametrize('device', [Device('cpu', (0, 1), 'bfloat16'), None], ids=['swaps', 'no swaps'])
def test_frozen_net_gives_the_same_in_training_mode_too(name, device):
    """vgg11_bn has dropout, and convolutions with biases before its BatchNorms."""
    contexts = [mx.cpu(0), mx.cpu(1)]
    net = zoo.FeatureNet(CifarModel(model=name, features='output'), device)
    net.initialize(init.Xavier(), ctx=contexts)
    x = [nd.random.normal(shape=(8, 3, 32, 32), ctx=context) for context in contexts]
    net(x[0])
    rng = np.random.default_rng(0)
    for path, parameter in net._collect_params_with_prefix().items():
        if path.endswith(('gamma', 'beta', 'running_mean', 'running_var')):
            parameter.set_data(nd.array(rng.uniform(0.5, 1.5, parameter.shape)))
    wanted = [net(part).asnumpy() for part in x]
    freeze(net, contexts)
    norms = [path for path in net._collect_params_with_prefix() if path.endswith('gamma')]
    assert len(norms) == {'cifar_resnet20_v1': 0, 'cifar_resnet20_v2': 20, 'vgg11_bn': 0}[name]
    for part, before in zip(x, wanted):
        for mode in (autograd.predict_mode, autograd.train_mode):
            with mode():
                gap = np.abs(net(part).asnumpy() - before).max()
                assert gap < 1e-4 * np.abs(before).max()
