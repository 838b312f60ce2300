"""What nets say of test images and of images unlike them, set by set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

import numpy as np
from mxnet import nd
from mxnet.context import Context
from mxnet.gluon import HybridBlock
from mxnet.gluon.nn import HybridLambda
from tqdm import tqdm

from gmloss import MahalanobisScore, fit_mixture
from training.data.datasets import batch_size
from training.metrics import attacks, ood_scores
from training.metrics.ood_images import ImageSet

NET, SOFTMAX_NET = 'net', 'softmax net'


@dataclass
class ScoredSet:
    """An ImageSet as nets see it.

    Attributes
    ----------
    name, family : str
        Those of the ImageSet.
    scores : dict of str to array (N,)
        Those of training.metrics.ood_scores.
    accuracy : dict of str to float
        Of each net, where the images have labels.
    """

    name: str
    family: str
    scores: dict[str, np.ndarray]
    accuracy: dict[str, float]

    def report(self, in_distribution: 'ScoredSet') -> dict:
        """How well each score tells this set from `in_distribution`: part of detection.json."""
        measures = {
            score: ood_scores.measures(in_distribution.scores[score], values)
            for score, values in self.scores.items()
        }
        rounded = {
            score: {measure: round(value, 4) for measure, value in values.items()}
            for score, values in measures.items()
        }
        return {**({'accuracy': self.accuracy} if self.accuracy else {}), 'scores': rounded}


def fit_scores(
    net: HybridBlock, images: np.ndarray, labels: np.ndarray, context: Context
) -> dict[str, HybridBlock]:
    """Scores by Gaussians that are fitted to a net's features of training images.

    Parameters
    ----------
    net : training.losses.classifiers.PixelClassifier
        One that gives features.
    images, labels : array (N, channels, H, W), array (N,)
        Of every class at least one.
    context : Context

    Returns
    -------
    dict of str to MahalanobisScore
        From features (B, D): mahalanobis, of Lee et al. (NeurIPS 2018), and relative_mahalanobis, of
        Ren et al. (2021).
    """

    batch = batch_size(images.shape[1:])

    def features() -> Iterator[np.ndarray]:
        with tqdm(total=len(images), unit=' images', disable=None, leave=False) as bar:
            for start in range(0, len(images), batch):
                yield net(nd.array(images[start : start + batch], ctx=context))[-1].asnumpy()
                bar.update(batch)

    every = np.concatenate(list(features()))
    mixture = fit_mixture(every, labels, int(labels.max()) + 1, ctx=context)
    background = fit_mixture(every, np.zeros(len(every)), 1, ctx=context)
    identity = HybridLambda('identity')
    return {
        'mahalanobis': MahalanobisScore(identity, mixture),
        'relative_mahalanobis': MahalanobisScore(identity, mixture, background),
    }


def score_sets(
    nets: dict[str, HybridBlock],
    sets: list[ImageSet],
    seed: int,
    context: Context,
    fitted: Optional[dict[str, dict[str, HybridBlock]]] = None,
) -> list[ScoredSet]:
    """Every set through every net.

    Scores that are not a number for some images are left out, and named on the terminal.

    Parameters
    ----------
    nets : dict of str to training.losses.classifiers.PixelClassifier
        By NET and SOFTMAX_NET. Of the latter, scores are the softmax probability and what is fitted.
    sets : list of ImageSet
    seed : int
        Of the starts of PGD.
    context : Context
    fitted : dict of str to dict, or None
        Of each net, which gives features then, further scores by name: see `fit_scores`.
    """
    scored = [ScoredSet(images.name, images.family, {}, {}) for images in sets]
    count = sum(len(images.images) for images in sets) * len(nets)
    with tqdm(total=count, unit=' images', disable=None, leave=False) as bar:
        for which, net in nets.items():
            for images, result in zip(sets, scored):
                outputs = net_outputs(net, images, seed, context, bar)
                further = (fitted or {}).get(which, {})
                features = nd.array(outputs.pop(), ctx=context) if further else None
                scores = ood_scores.scores(*outputs)
                if which == SOFTMAX_NET:
                    scores = {'max_softmax': scores['max_softmax']}
                scores.update({name: score(features).asnumpy() for name, score in further.items()})
                suffix = '_of_softmax_net' if which == SOFTMAX_NET else ''
                result.scores.update({name + suffix: values for name, values in scores.items()})
                if images.labels is not None:
                    result.accuracy[which] = float(np.mean(outputs[0].argmax(axis=1) == images.labels))
    for score in list(scored[0].scores):
        if any(np.isnan(result.scores[score]).any() for result in scored):
            print(f'{score}: left out, as it is not a number for some images')
            for result in scored:
                del result.scores[score]
    return scored


def net_outputs(
    net: HybridBlock, images: ImageSet, seed: int, context: Context, bar: tqdm
) -> list[np.ndarray]:
    """The net's outputs for an ImageSet, which is attacked against this net first if it has a strength."""
    starts = np.random.default_rng([seed, int(images.strength or 0)])
    batches = []
    batch = batch_size(images.images.shape[1:])
    for start in range(0, len(images.images), batch):
        part = slice(start, start + batch)
        pixels = nd.array(images.images[part], ctx=context)
        if images.strength is not None:
            labels = nd.array(images.labels[part], ctx=context)
            attack = (lambda batch: net(batch)[0]), pixels, labels, images.strength
            pixels = attacks.fgsm(*attack) if images.family == 'FGSM' else attacks.pgd(*attack, starts)
        batches.append([output.asnumpy() for output in net(pixels)])
        bar.update(len(batches[-1][0]))
    return [np.concatenate(parts) for parts in zip(*batches)]
