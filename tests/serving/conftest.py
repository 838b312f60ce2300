"""Kept runs behind the server, without a network."""

import io

import mxnet as mx
import pytest
from conftest import RECORD
from PIL import Image
from starlette.testclient import TestClient

from training.machine.devices import Device
from training.serving.app import build_app
from training.serving.predictor import Predictor

MNIST, CIFAR, SOFTMAX, CENTER = (
    'mnist-lgm-full',
    'cifar-fast-lambda0.1-seed0',
    'cifar-fast-softmax-seed0',
    'mnist-softmax-center',
)


@pytest.fixture(scope='session')
def predictors():
    """Predictors of four kept runs by name."""
    device = Device('cpu', (0,), 'float32')
    return {name: Predictor(RECORD / name, device, mx.cpu()) for name in (MNIST, CIFAR, SOFTMAX, CENTER)}


@pytest.fixture(scope='session')
def client(predictors):
    """A client of a server with these runs, MNIST's first."""
    with TestClient(build_app(list(predictors.values())), raise_server_exceptions=False) as client:
        yield client


def as_file(pixels, kind='PNG', **settings):
    """An image file of uint8 (channels, height, width)."""
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0).squeeze()).save(file, kind, **settings)
    return file.getvalue()
