"""What the fields of a recipe come to in the blocks that train: each shows in the block it is for."""

import mxnet as mx
import numpy as np
import pytest

from training.config import recipe as recipes
from training.config.schema import CifarRecipe, MnistRecipe
from training.data import augment
from training.losses.build import MIXTURES, build_mixture
from training.machine.devices import Device
from training.model import build_model, initialize, normaliser

CPU = Device('cpu', (0,), 'float32')
CONTEXTS = [mx.cpu(0), mx.cpu(1)]


def build(family, version, **fields):
    """The initialised model."""
    recipe_class = {'cifar': CifarRecipe, 'mnist': MnistRecipe}[family]
    recipe = recipes.load_recipe(recipes.version_path(family, version), recipe_class, fields)
    model = build_model(recipe, CPU)
    initialize(model, recipe, CONTEXTS)
    return model


@pytest.mark.parametrize('covariance', ['identity', 'diagonal', 'fixed-volume', 'raw', 'inverse-sum'])
def test_mixtures_have_their_groups_settings(covariance):
    loss = CifarRecipe().loss
    loss.covariance, loss.mean_init = covariance, 'msra'
    loss.mean_lr_mult, loss.variance_lr_mult, loss.variance_wd_mult = 2, 5, 7
    mixture = build_mixture(loss, 4, 3)
    assert type(mixture) is MIXTURES[covariance]
    assert (mixture.mean.lr_mult, mixture.mean.wd_mult) == (2, 1)
    assert isinstance(mixture.mean.init, mx.init.MSRAPrelu)
    for parameter in mixture.params.values():
        if parameter is not mixture.mean:
            assert (parameter.lr_mult, parameter.wd_mult) == (5, 7)
    mixture.initialize()
    start = 1 / 3 if covariance == 'inverse-sum' else 1
    assert mixture.variances().asnumpy() == pytest.approx(start, rel=1e-5)


def test_fields_of_the_lgm_loss():
    model = build('cifar', 'v4', margin=0.15, margin_add=0.25, likelihood='full', likelihood_weight=0.125)
    loss_fn = model.loss_fn
    assert loss_fn.margin.data(CONTEXTS[1]).asscalar() == pytest.approx(0.15)
    assert (loss_fn._margin_add, loss_fn._likelihood, loss_fn._lambda) == (0.25, 'full', 0.125)
    assert loss_fn._sparse_label


@pytest.mark.parametrize('loss', ['lgm', 'softmax'])
def test_refinements_reach_the_graph(loss):
    plain = build('cifar', 'fast', loss=loss).graph
    assert (plain._label_smoothing, plain._mixup, plain._temperature) == (0, False, None)
    switches = {'label_smoothing': 0.15, 'mixup': 0.2, 'hard_epochs': 0, 'teacher': 'any', 'temperature': 7}
    model = build('cifar', 'fast', loss=loss, **switches)
    graph = model.graph
    assert (graph._label_smoothing, graph._mixup, graph._temperature) == (0.15, True, 7)
    assert loss == 'softmax' or not model.loss_fn._sparse_label


@pytest.mark.parametrize('version', ['softmax-center', 'lgm-full'])
@pytest.mark.parametrize('bias', [True, False])
def test_biases_and_width_of_the_features(version, bias):
    model = build('mnist', version, bias=bias, feature_size=3, net_init='msra')
    names = model.net._collect_params_with_prefix()
    assert ('output.bias' in names) is (bias and version == 'softmax-center')
    dense = [parameter for name, parameter in names.items() if parameter.shape[0] == 3]
    assert len(dense) == (2 if bias else 1)


@pytest.mark.parametrize(
    'name, variance', [('xavier', 1), ('xavier-2.24', 2.24 / 3), ('msra', 2 / (1 + 0.25**2))]
)
def test_weights_start_as_the_recipe_says(name, variance):
    model = build('cifar', 'fast', net_init=name)
    kernels = [
        parameter.data(CONTEXTS[0]).asnumpy()
        for parameter in model.net.collect_params('.*weight').values()
        if parameter.shape == (64, 64, 3, 3)
    ]
    assert len(kernels) == 5
    for kernel in kernels:  # 576 inputs and as many outputs
        assert kernel.var() * 576 == pytest.approx(variance, rel=0.05)


def test_augmentations_by_name():
    for fields, kind in (
        (dict(augmentation='none'), augment.Normalize),
        (dict(augmentation='pad-crop', padding=3, padding_mode='zero'), augment.PadCropFlip),
        (dict(augmentation='resized-crop'), augment.ResizedCropJitter),
    ):
        for normalisation, black in (('cifar10', -2.429), ('symmetric', -1)):
            fields['normalisation'] = normalisation
            recipe = recipes.load_recipe(recipes.version_path('cifar', 'fast'), CifarRecipe, fields)
            block = augment.build(recipe.data)
            block.initialize()
            draws = block.draw(np.random.default_rng(0), np.zeros(1))
            draws = [] if draws is None else [mx.nd.zeros(draws.shape)]
            pixels = block(mx.nd.zeros((1, 3, 32, 32), dtype='uint8'), *draws).asnumpy()
            assert type(block) is kind and pixels[0, 0] == pytest.approx(black, abs=1e-3)
            assert (getattr(block, '_padding', 3), getattr(block, '_reflect', False)) == (3, False)


def test_paper_starts_as_the_authors_caffe_example():
    recipe = recipes.load_recipe(recipes.version_path('cifar', 'paper'), CifarRecipe, {})
    mean = build('cifar', 'paper').mixture.mean.data(CONTEXTS[0]).asnumpy()
    assert mean.shape == (10, 64)
    assert mean.std() == pytest.approx((2 / 64) ** 0.5, rel=0.08)  # three standard errors of 640 values
    images = mx.nd.array([[[[0, 128]], [[64, 255]], [[128, 0]]]], dtype='uint8')
    expected = [[[[-1, 0]], [[-0.5, 127 / 128]], [[0, -1]]]]
    assert normaliser(recipe, CONTEXTS)(images).asnumpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert (recipe.data.padding_mode, recipe.data.padding) == ('zero', 4)
