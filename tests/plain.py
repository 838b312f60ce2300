"""Mixtures and loss by plain loops in float64, and what measures the blocks against them."""

import math

import numpy as np
from mxnet import autograd, nd

from gmloss import (
    DiagonalMixture,
    FixedVolumeMixture,
    GaussianMixture,
    InverseSumMixture,
    LGMLoss,
    RawDiagonalMixture,
)

B, C, D = 6, 5, 4
MIXTURES = (GaussianMixture, DiagonalMixture, FixedVolumeMixture, RawDiagonalMixture, InverseSumMixture)


def plain_variances(kind, second):
    """The variances [k][d] behind a mixture's second parameter, by loops."""
    if kind is DiagonalMixture:
        return [[1e-4 + math.log1p(math.exp(r)) for r in row] for row in second]
    if kind is FixedVolumeMixture:
        mean = sum(sum(row) for row in second) / (C * D)
        return [[math.exp(r - mean) for r in row] for row in second]
    return [list(row) for row in second] if kind is RawDiagonalMixture else [[1.0] * D] * C


def plain_mixture(kind, x, mean, second):
    """distance[b][k], log_det[k] and the likelihood's distance[b][k], by loops."""
    distance, log_det = np.zeros((len(x), len(mean))), np.zeros(len(mean))
    euclidean = np.zeros_like(distance)
    variances = plain_variances(kind, second)
    for k in range(len(mean)):
        log_det[k] = sum(math.log(v) for v in variances[k])
        for b in range(len(x)):
            squares = [(x[b][d] - mean[k][d]) ** 2 for d in range(len(x[b]))]
            euclidean[b, k] = sum(squares) / 2
            distance[b, k] = (
                sum(
                    s / (v + (1e-8 if kind is RawDiagonalMixture else 0))
                    for s, v in zip(squares, variances[k])
                )
                / 2
            )
            if kind is InverseSumMixture:
                distance[b, k] *= sum(1 / (v + 1e-8) for v in second[k])
    return distance, log_det, euclidean if kind is InverseSumMixture else distance


def plain_loss(kind, likelihood, alpha, margin_add, lambda_, x, mean, second, label):
    """Loss of every sample, by loops over the formulas of the paper."""
    distance, log_det, own = plain_mixture(kind, x, mean, second)
    losses = []
    for b, y in enumerate(label):
        logits = [-distance[b, k] - log_det[k] / 2 for k in range(len(mean))]
        logits[y] -= alpha * distance[b, y] + margin_add
        loss = math.log(sum(math.exp(v - max(logits)) for v in logits)) + max(logits) - logits[y]
        if likelihood != 'off':
            loss += lambda_ * own[b, y]
        if likelihood == 'full':
            loss += lambda_ * log_det[y] / 2
        losses.append(loss)
    return np.array(losses)


def numeric_gradient(function, array, step=1e-6):
    gradient = np.zeros_like(array)
    for index in np.ndindex(*array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function()
        array[index] = kept - step
        gradient[index] = (above - function()) / (2 * step)
        array[index] = kept
    return gradient


def make(kind, likelihood='distance', dtype='float64', hybridize=False, **loss_settings):
    """A mixture with random parameters, its loss, and the arrays behind them."""
    rng = np.random.default_rng(5)
    mixture, loss_fn = kind(C, D), LGMLoss(likelihood=likelihood, **loss_settings)
    mixture.initialize()
    loss_fn.initialize()
    mixture.cast(dtype)
    loss_fn.cast(dtype)
    x, mean = rng.normal(size=(B, D)), rng.normal(size=(C, D))
    second = rng.uniform(0.3, 2.0, size=(C, D))
    mixture.mean.set_data(nd.array(mean, dtype=dtype))
    second_parameter = getattr(mixture, 'rho', None) or getattr(mixture, 'variance', None)
    if second_parameter is not None:
        second_parameter.set_data(nd.array(second, dtype=dtype))
    if hybridize:
        mixture.hybridize(static_alloc=True, static_shape=True)
        loss_fn.hybridize(static_alloc=True, static_shape=True)
    return mixture, loss_fn, x, mean, second, second_parameter


def forward_backward(mixture, loss_fn, x, label, dtype='float64'):
    x = nd.array(x, dtype=dtype)
    x.attach_grad()
    with autograd.record():
        distance, log_det, *rest = mixture(x)
        loss = loss_fn(distance, log_det, label, None, *rest)
    loss.backward()
    return loss.asnumpy(), x.grad.asnumpy()
