"""Images that grow in the course of a run."""

import numpy as np
import pytest
from mxnet import autograd, cpu, nd
from mxnet.gluon import nn

from training.config import recipe as recipes
from training.config.options import parse_options, training_parser
from training.config.recipe import CifarRecipe
from training.data import augment, batches
from training.data.resample import Downscale
from training.errors import UserError


def load(**options):
    return recipes.load_recipe(recipes.version_path('cifar', 'baseline'), CifarRecipe, options)


@pytest.mark.parametrize('size', [16, 20, 24, 28, 32])
def test_each_pixel_is_the_mean_over_its_area(cifar, size):
    images = cifar[0].images[:8].astype(np.float64)
    block = Downscale(size)
    block.initialize()
    found = block(nd.array(images)).asnumpy()
    fine = images.repeat(size, axis=2).repeat(size, axis=3)  # a pixel is size x size, an area 32 x 32
    wanted = fine.reshape(8, 3, size, 32, size, 32).mean(axis=(3, 5))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-3)
    block.hybridize(static_alloc=True, static_shape=True)
    np.testing.assert_array_equal(block(nd.array(images)).asnumpy(), found)


def training_data(cifar, contexts=None, **settings):
    contexts = contexts or [cpu()]
    data = batches.TrainingData(
        cifar[0].select(slice(60)),
        contexts,
        augment.PadCropFlip(4, **augment.NORMALISATIONS['cifar10']),
        'random',
        20,
        0,
        **settings,
    )
    data.augment.initialize(ctx=contexts)
    return data


@pytest.mark.parametrize(
    'resolutions, sizes',
    [
        ([], [32] * 6),
        ([(16, 2), (24, 1), (32, 3)], [16, 16, 24, 32, 32, 32]),
        ([(16, 1.4), (24, 1.2)], [16, 24, 24, 24, 24, 24]),
        ([(16, 0.3), (32, 5)], [32] * 6),
        ([(16, 5.8), (32, 0.2)], [16] * 5 + [32]),
        ([(16, 6 * 0.1), (24, 6 * 0.7), (32, 6 * 0.2)], [24] * 4 + [32] * 2),
    ],
)
def test_sizes_change_between_epochs_and_the_last_one_stays(cifar, resolutions, sizes):
    data = training_data(cifar, resolutions=resolutions)
    assert [data.image_size(epoch) for epoch in range(6)] == sizes
    assert [next(data.batches(epoch))[0][0].shape[2] for epoch in range(6)] == sizes
    wanted = [size if size != sizes[-1] else 32 for size in sizes]  # a last size below 32 does not grow
    assert [data.validation_size(epoch) for epoch in range(6)] == wanted


def test_small_images_are_those_that_full_size_would_have_shown(cifar):
    whole, small = training_data(cifar), training_data(cifar, resolutions=[(16, 1)])
    shrink = Downscale(16)
    shrink.initialize()
    for ((images, labels),), ((small_images, small_labels),) in zip(whole.batches(0), small.batches(0)):
        assert (shrink(images) == small_images).asnumpy().all()
        assert (labels == small_labels).asnumpy().all()


def test_teacher_sees_full_size_after_mixup(cifar):
    seen = []
    data = training_data(
        cifar, resolutions=[(16, 1)], mixup=0.2, teacher=lambda images: seen.append(images) or images
    )
    shrink = Downscale(16)
    shrink.initialize()
    for ((images, _, _, full),) in data.batches(0):
        assert full.shape[2:] == (32, 32) and images.shape[2:] == (16, 16)
        np.testing.assert_allclose(shrink(full).asnumpy(), images.asnumpy(), atol=1e-5)
    assert len(seen) == 3


@pytest.mark.parametrize('size', [16, 24, 32])
def test_two_contexts_give_the_gradients_of_one_at_each_size(cifar, size):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, in_channels=3), nn.GlobalAvgPool2D(), nn.Dense(5, in_units=8))
    gradients = []
    for contexts in ([cpu(0)], [cpu(0), cpu(1)]):
        if gradients:
            net.collect_params().reset_ctx(contexts)
        else:
            net.initialize(ctx=contexts)
        (batch,) = [
            b for b, _ in zip(training_data(cifar, contexts, resolutions=[(size, 1)]).batches(0), '1')
        ]
        assert [images.shape for images, _ in batch] == [(20 // len(contexts), 3, size, size)] * len(contexts)
        with autograd.record():
            losses = [(net(images) ** 2).sum() for images, _ in batch]
        autograd.backward(losses)
        gradients.append([sum(g.asnumpy() for g in p.list_grad()) for p in net.collect_params().values()])
    for one, two in zip(*gradients):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-4 * np.abs(one).max())


def test_resolutions_are_options_and_are_scaled_with_the_epochs():
    words = ['--resolutions', '16:8', '24:6', '32:6']
    _, options = parse_options(training_parser('', ''), CifarRecipe, words)
    recipe = load(**options)
    assert recipe.data.resolutions == [(16, 8), (24, 6), (32, 6)]
    again = recipes.validate(recipes.yaml.safe_load(recipes.to_yaml(recipe)), CifarRecipe, 'text')
    assert again == recipe


def test_option_without_sizes_keeps_a_recipe_whose_images_grow_to_full_size(tmp_path):
    path = tmp_path / 'recipe.yaml'
    path.write_text('data: {resolutions: [[16, 8], [32, 12]]}\noptimisation: {epochs: 20}')
    _, options = parse_options(training_parser('', ''), CifarRecipe, ['--resolutions', '--epochs', '9'])
    assert recipes.load_recipe(path, CifarRecipe, options).data.resolutions == []


def test_resolutions_of_a_file_are_scaled(tmp_path):
    path = tmp_path / 'recipe.yaml'
    path.write_text('data: {resolutions: [[16, 8], [32, 12]]}\noptimisation: {epochs: 20}')
    recipe = recipes.load_recipe(path, CifarRecipe, {'epochs': 10})
    assert recipe.data.resolutions == [(16, 4), (32, 6)]
    longer = recipes.load_recipe(path, CifarRecipe, {'epochs': 40}, scale=False)
    assert longer.data.resolutions == [(16, 8), (32, 12)]


@pytest.mark.parametrize(
    'words, message',
    [
        (['16:8', '32:20'], 'resolutions: take 28 epochs in a run of 20; give them fewer'),
        (['18:8'], r'resolutions.*multiple of 4.*got .18'),
        (['64:8'], 'resolutions.*less than or equal to 32'),
        (['16'], 'resolutions.*expected pairs such as 16:4'),
        (['16:0'], 'resolutions.*greater than 0'),
        (['a:b'], 'resolutions.*valid integer'),
    ],
)
def test_resolutions_that_cannot_be(words, message):
    with pytest.raises(UserError, match=message):
        load(resolutions=words)
