"""The rebuilt net gives the stock GluonCV net's numbers, and takes its weights."""
import numpy as np
import pytest
from gluoncv.model_zoo import get_model
from mxnet import autograd, gluon, init, nd

from training import nets
from training.runtime import Device, UserError


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', ['cifar_resnet20_v1', 'cifar_resnet20_v2'])
def test_features_and_gradients_equal_the_stock_nets(name, dtype, tmp_path):
    """'bfloat16' selects the padded stem; arithmetic stays float32 without mxnet's AMP."""
    stock = get_model(name, classes=10)
    stock.initialize(init.Xavier())
    x, weight = nd.random.normal(shape=(8, 3, 32, 32)), nd.random.normal(shape=(8, 10))
    stock(x)
    stock.save_parameters(str(tmp_path / 'stock.params'))
    ours = nets.FeatureNet(name, 'output', 10, Device('cpu', (0,), dtype))
    ours.load_parameters(str(tmp_path / 'stock.params'))
    ours.hybridize(static_alloc=True, static_shape=True)
    outputs = []
    for net in (stock, ours):
        with autograd.record():
            out = net(x)
            (out * weight).sum().backward()
        outputs.append(out.asnumpy())
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
    mine = ours._collect_params_with_prefix()
    for path, parameter in stock._collect_params_with_prefix().items():
        if parameter.grad_req != 'null':
            want = parameter.grad().asnumpy()
            np.testing.assert_allclose(mine[path].grad().asnumpy(), want, rtol=1e-3,
                                       atol=1e-3 * np.abs(want).max(), err_msg=path)
    for (path, before), after in zip(stock._collect_params_with_prefix().items(), mine.values()):
        np.testing.assert_allclose(after.data().asnumpy(), before.data().asnumpy(), rtol=1e-4,
                                   atol=1e-5, err_msg=path)  # running statistics included


def test_swaps_are_in_place_where_they_pay():
    cpu = nets.FeatureNet('cifar_resnet20_v1', 'pool', 10, Device('cpu', (0,), 'bfloat16'))
    gpu = nets.FeatureNet('cifar_resnet20_v1', 'pool', 10, Device('gpu', (0,), 'float32'))
    assert repr(cpu).count('BatchNormReLU') == 9 and repr(cpu).count('PaddedStem') == 1
    assert 'BatchNormReLU' not in repr(gpu) and 'PaddedStem' not in repr(gpu)
    assert not any(isinstance(block, gluon.nn.GlobalAvgPool2D) for net in (cpu, gpu)
                   for block in net.features._children.values())


@pytest.mark.parametrize('size', [32, 20])
def test_pooled_features_have_64_dimensions_at_any_image_size(size):
    net = nets.FeatureNet('cifar_resnet20_v1', 'pool', 10, Device('cpu', (0,), 'float32'))
    net.initialize()
    assert net.feature_size == 64
    assert net(nd.zeros((2, 3, size, size))).shape == (2, 64)


@pytest.mark.parametrize('name', ['cifar_resnet21_v1', 'resnet18_v1'])
def test_unknown_models_are_refused(name):
    with pytest.raises(UserError, match=name):
        nets.FeatureNet(name, 'pool', 10, Device('cpu', (0,), 'float32'))
