"""The losses that the published editions' recipes build, against transcriptions of what they say."""

import math

import numpy as np
import pytest
from conftest import ROOT
from mxnet import autograd, nd

from training.config import recipe as recipes
from training.losses.build import build_loss, build_mixture

B, C = 3, 10  # the net's 10 outputs are the features: D = C


def squares(x, mean):
    return [[[(x[b][d] - mean[k][d]) ** 2 for d in range(C)] for k in range(C)] for b in range(B)]


def cross_entropy(logits, y):
    return math.log(sum(math.exp(logit - max(logits)) for logit in logits)) + max(logits) - logits[y]


def v1(x, mean, s, label, alpha=0.1, lambda_=0.2):
    """Probabilities, not logits: exp(-q) / sqrt(|L|)."""
    total = 0
    for b, y in enumerate(label):
        q = [sum(squares(x, mean)[b][k][d] / s[k][d] for d in range(C)) / 2 for k in range(C)]
        p = [math.exp(-q[k] * (1 + alpha * (k == y))) / (math.sqrt(math.prod(s[k])) + 1e-8) for k in range(C)]
        total += -math.log(p[y] / (sum(p) + 1e-8) + 1e-8) + lambda_ * q[y]
    return total


def v3(x, mean, s, label, alpha=0.1, lambda_=0.1):
    """Logits in log space; the likelihood term of the Caffe layer."""
    total = 0
    for b, y in enumerate(label):
        logits = [
            -(1 + alpha * (k == y)) / 2 * sum(squares(x, mean)[b][k][d] / s[k][d] for d in range(C))
            - sum(math.log(v) for v in s[k]) / 2
            for k in range(C)
        ]
        total += cross_entropy(logits, y) + lambda_ * sum(squares(x, mean)[b][y]) / 2
    return total


def v4(x, mean, s, label, alpha=0.1, lambda_=0.1):
    """No variance. The likelihood, summed over the batch and divided by it, is added to each loss."""
    total, likelihood = 0, 0
    for b, y in enumerate(label):
        logits = [-(1 + alpha * (k == y)) / 2 * sum(squares(x, mean)[b][k]) for k in range(C)]
        total += cross_entropy(logits, y)
        likelihood += lambda_ * sum(squares(x, mean)[b][y]) / 2
    return total + B * likelihood / B


def v6(x, mean, s, label, alpha=0.1, lambda_=0.1):
    """v4 with the plain squared distance times the sum of the inverse variances."""
    total, likelihood = 0, 0
    for b, y in enumerate(label):
        logits = [
            -(1 + alpha * (k == y)) / 2 * sum(squares(x, mean)[b][k]) * sum(1 / (v + 1e-8) for v in s[k])
            for k in range(C)
        ]
        total += cross_entropy(logits, y)
        likelihood += lambda_ * sum(squares(x, mean)[b][y]) / 2
    return total + B * likelihood / B


def build(version):
    """Mixture and loss of a recipe, in float64, and the mixture's variance if it has one."""
    recipe = recipes.load_recipe(ROOT / 'configs' / 'cifar' / f'{version}.yaml', recipes.CifarRecipe, {})
    assert (recipe.model.features, recipe.model.feature_size) == ('output', C)
    mixture, loss_fn = build_mixture(recipe.loss, C, C), build_loss(recipe.loss)
    for block in (mixture, loss_fn):
        block.initialize()
        block.cast('float64')
    return mixture, loss_fn, getattr(mixture, 'variance', None)


@pytest.mark.parametrize('version, published', [('v1', v1), ('v3', v3), ('v4', v4), ('v5', v6), ('v6', v6)])
def test_recipe_builds_the_loss_of_its_edition(version, published):
    rng = np.random.default_rng(3)
    mixture, loss_fn, variance = build(version)
    x, mean = 0.4 * rng.normal(size=(B, C)), 0.4 * rng.normal(size=(C, C))
    s, label = rng.uniform(0.7, 1.5, size=(C, C)), [4, 0, 9]
    mixture.mean.set_data(nd.array(mean))
    if variance is not None:
        variance.set_data(nd.array(s))
    features = nd.array(x, dtype='float64')
    features.attach_grad()
    with autograd.record():
        distance, log_det, *rest = mixture(features)
        loss = loss_fn(distance, log_det, nd.array(label), None, *rest).sum()
    loss.backward()
    x, mean, s = (
        array.asnumpy()
        for array in (  # as they were rounded on the way
            features,
            mixture.mean.data(),
            nd.array(s) if variance is None else variance.data(),
        )
    )
    x, mean, s = (array.astype(np.float64) for array in (x, mean, s))

    np.testing.assert_allclose(loss.asscalar(), published(x, mean, s, label), rtol=1e-6)
    trained = [(x, features.grad), (mean, mixture.mean.grad())]
    trained += [] if variance is None else [(s, variance.grad())]
    for array, gradient in trained:
        for index in [(0, 0), (0, 5), (1, 9), (2, 3)]:
            kept, values = array[index], []
            for step in (1e-5, -1e-5):
                array[index] = kept + step
                values.append(published(x, mean, s, label))
            array[index] = kept
            assert gradient[index].asscalar() == pytest.approx(
                (values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-6
            )


def test_v6_starts_with_ten_times_the_distances_of_v4():
    (new, *_), (old, *_) = build('v6'), build('v4')
    old.mean.set_data(new.mean.data())
    x = nd.random.normal(shape=(B, C), dtype='float64')
    np.testing.assert_allclose(new(x)[0].asnumpy(), 10 * old(x)[0].asnumpy(), rtol=1e-7)
