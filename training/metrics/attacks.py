"""Adversarial images, crafted batch by batch on the device.

`classify` maps float32 images of pixel values 0 to 255, (B, channels, H, W), to label-free logits
(B, C), by a net that training.nets.rewrite.freeze has frozen. Results stay within 0 to 255 and are not
rounded to whole pixel values.
"""

from typing import Callable

import numpy as np
from mxnet import autograd, nd

STEPS = 10  # of PGD
OVERSHOOT = 2.5  # all steps of PGD together are so many times as long as the strength
OWN_CLASS_OUT = 1e9


def fgsm(classify: Callable, images: nd.NDArray, labels: nd.NDArray, strength: float) -> nd.NDArray:
    """Images one step of `strength` away in every pixel, in the direction of a higher loss.

    Source: Goodfellow et al., "Explaining and Harnessing Adversarial Examples" (ICLR 2015).

    Parameters
    ----------
    classify : callable
    images : NDArray (B, channels, H, W)
        float32, 0 to 255.
    labels : NDArray (B,)
        True classes.
    strength : float
        Largest change of a pixel, in units of 1/255 of the range.

    Returns
    -------
    NDArray
        Same shape as images.
    """
    return nd.clip(images + strength * loss_direction(classify, images, labels), 0, 255)


def pgd(
    classify: Callable,
    images: nd.NDArray,
    labels: nd.NDArray,
    strength: float,
    rng: np.random.Generator,
) -> nd.NDArray:
    """Projected gradient descent: small steps from a random start, held within `strength`.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (ICLR
    2018).

    Parameters
    ----------
    classify, images, labels, strength
        As in :func:`fgsm`.
    rng : numpy.random.Generator
        Draws the starts.

    Returns
    -------
    NDArray
        Same shape as images.
    """
    lowest, highest = nd.clip(images - strength, 0, 255), nd.clip(images + strength, 0, 255)
    start = nd.array(rng.uniform(-strength, strength, images.shape), ctx=images.context)
    attacked = nd.clip(images + start, 0, 255)
    for _ in range(STEPS):
        moved = attacked + OVERSHOOT * strength / STEPS * loss_direction(classify, attacked, labels)
        attacked = nd.minimum(nd.maximum(moved, lowest), highest)
    return attacked


def loss_direction(classify: Callable, images: nd.NDArray, labels: nd.NDArray) -> nd.NDArray:
    """Sign of the gradient of the cross entropy with respect to the images.

    The cross entropy is log(1 + exp(z)) with z the log-odds of all other classes together against
    the true one, so its gradient is a positive multiple of that of z. That of z is taken: where the
    net is sure of itself, the factor rounds to zero in float32, and the attack would stand still.
    """
    images = images.copy()
    images.attach_grad()
    with autograd.record():  # in training mode; see training.nets.rewrite.freeze
        logits = classify(images)
        own = nd.one_hot(labels, depth=logits.shape[1])
        others = logits - OWN_CLASS_OUT * own
        highest = nd.stop_gradient(nd.max(others, axis=1, keepdims=True))
        log_odds = (
            nd.log(nd.sum(nd.exp(nd.broadcast_sub(others, highest)), axis=1))
            + nd.reshape(highest, (-1,))
            - nd.sum(logits * own, axis=1)
        )
    log_odds.backward()
    return nd.sign(images.grad)
