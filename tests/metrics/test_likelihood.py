"""Likelihoods at the end of a training are those of the net that predict.py and the exports run."""

import json

import numpy as np
import pytest
from mxnet import autograd, nd
from mxnet.gluon import nn

from training.machine.devices import Device
from training.nets.layers import SpatialMean
from training.nets.rewrite import for_inference

REPORT = """
import json, sys
import numpy as np
from training.machine import devices
devices.choose_dtype = lambda dtype, *rest: dtype  # whatever this CPU has instructions for
device = devices.prepare('cpu', sys.argv[1])
from mxnet import nd
from mxnet.gluon import nn
from gmloss import GaussianMixture, MixtureClassifier
from training.data.batches import DeviceData
from training.data.datasets import Split
from training.metrics import likelihood
from training.nets.layers import PaddedStem, SpatialMean

rng = np.random.default_rng(0)
net, images = nn.HybridSequential(), rng.integers(0, 256, (300, 3, 8, 8)).astype(np.uint8)
net.add(PaddedStem(16, 3, in_channels=3), nn.BatchNormReLU(in_channels=16), SpatialMean())
classifier = MixtureClassifier(net, GaussianMixture(4, 16))
classifier.initialize()
for name, parameter in sorted(classifier._collect_params_with_prefix().items()):
    parameter.set_data(nd.array(rng.uniform(0.5, 1.5, parameter.shape)))
classifier.hybridize(static_alloc=True)
data = DeviceData(Split(images, rng.integers(0, 4, 300)), device.contexts())
drawn = []
result = likelihood.report(classifier, lambda x: x.astype('float32') / 255, data, data, drawn.append)
print(json.dumps({**result, 'distances': drawn[0][1][1].tolist()}))
"""


def test_report_is_in_float32_whatever_the_training_is_in(run_script):
    """In a process set to bfloat16; on a CPU without it, a layer in bfloat16 would be an error."""
    results = [
        json.loads(run_script('-c', REPORT, dtype).stdout.splitlines()[-1])
        for dtype in ('float32', 'bfloat16')
    ]
    wanted, low = results
    assert len(set(wanted['distances'])) > 250
    np.testing.assert_allclose(low['distances'], wanted['distances'], rtol=1e-4)
    assert low['likelihood_spread'] == pytest.approx(wanted['likelihood_spread'], rel=1e-5)
    assert low['likelihood_thresholds'] == pytest.approx(wanted['likelihood_thresholds'], abs=2e-3)


def test_copy_for_inference_says_the_same_and_leaves_the_net_as_it_was():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3), nn.BatchNorm(), nn.Activation('relu'), nn.Dropout(0.5), SpatialMean())
    net.initialize()
    net.hybridize()
    images = nd.random.uniform(shape=(20, 3, 8, 8))
    for _ in range(3):
        with autograd.record():
            net(images)
    before = {name: value.data().asnumpy() for name, value in net._collect_params_with_prefix().items()}
    wanted = net(images).asnumpy()
    twin = for_inference(net, Device('cpu', (0,), 'float32').contexts())
    np.testing.assert_allclose(twin(images).asnumpy(), wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(net(images).asnumpy(), wanted)
    assert not any(name.endswith(('gamma', 'running_mean')) for name in twin.collect_params())
    after = net._collect_params_with_prefix()
    assert list(after) == list(before)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name].data().asnumpy(), value)
    with autograd.record():
        loss = net(images).sum()
    loss.backward()
    assert np.abs(after['0.weight'].grad().asnumpy()).max() > 0
