"""Measure how well a finished run's scores tell normal test images from abnormal ones.

    python detect.py output/record/cifar-fast-seed0 --softmax-run output/record/cifar-fast-softmax-seed0

Abnormal are adversarial images (FGSM, PGD) of several strengths, noise, rotated and shuffled
images, and the images of other data sets. Scores are the log-likelihood under the mixture, the
distance to the predicted class and the highest softmax probability, as far as the run has them, and
the last one also of a net trained by softmax. Adversarial images are crafted anew against each net
that is scored. Writes detection.json, roc.png and scores.png into the run folder, and the table
into its summary.json.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from tqdm import tqdm

from training import errors
from training.config.options import Parser
from training.errors import UserError
from training.machine import devices
from training.runs.folder import RunFolder

BATCH = 500
NET, SOFTMAX_NET = 'net', 'softmax net'
STRENGTHS = {'cifar': (2, 4, 8, 16), 'mnist': (25.5, 51, 76.5)}  # largest change of a pixel, of 255


@dataclass
class ImageSet:
    """Images that the nets are to be shown, and how they are attacked before."""

    name: str
    family: str  # 'normal', 'FGSM', 'PGD', 'noise', ...
    images: np.ndarray  # uint8 (N, channels, H, W)
    labels: Optional[np.ndarray] = None  # (N,), where the images have classes that the net knows
    strength: Optional[float] = None  # of the attack FGSM or PGD, of 255


def image_sets(test, dataset, seed, fashion_dir):
    """The normal images first, then the abnormal ones.

    Returns
    -------
    (list of ImageSet, dict of str to str)
        And the sets that cannot be had, with the reason.
    """
    from training.metrics import ood_images

    rng = np.random.default_rng(seed)
    others, missing = ood_images.other_data(dataset, len(test), fashion_dir)
    sets = [ImageSet('normal', 'normal', test.images, test.labels)]
    sets += [
        ImageSet(f'{kind} {strength:g}/255', kind, test.images, test.labels, strength)
        for kind in ('FGSM', 'PGD')
        for strength in STRENGTHS['cifar' if dataset.startswith('cifar') else 'mnist']
    ]
    natural = {
        'noise': ood_images.noise(test.images, rng),
        'transformed': ood_images.transformed(test.images, rng),
        'other data': others,
    }
    return sets + [
        ImageSet(name, family, images) for family, found in natural.items() for name, images in found.items()
    ], missing


def outputs(net, shown, seed, context, bar):
    """The net's outputs for an ImageSet, attacked against this net where it is to be.

    Returns
    -------
    (list of array, float or None)
        And the accuracy, where there are labels.
    """
    from mxnet import nd

    from training.metrics import attacks

    starts = np.random.default_rng([seed, int(shown.strength or 0)])
    batches = []
    for start in range(0, len(shown.images), BATCH):
        part = slice(start, start + BATCH)
        pixels = nd.array(shown.images[part], ctx=context)
        if shown.strength is not None:
            own = nd.array(shown.labels[part], ctx=context)
            given = (lambda batch: net(batch)[0]), pixels, own, shown.strength
            pixels = attacks.fgsm(*given) if shown.family == 'FGSM' else attacks.pgd(*given, starts)
        batches.append([output.asnumpy() for output in net(pixels)])
        bar.update(len(batches[-1][0]))
    joined = [np.concatenate(parts) for parts in zip(*batches)]
    return joined, None if shown.labels is None else float(np.mean(joined[0].argmax(axis=1) == shown.labels))


def score_all(nets, sets, seed, context):
    """Every set through every net.

    Returns
    -------
    (dict, dict)
        Set to score to array (N,), without the scores that are no number for some images; set to
        net to accuracy or None.
    """
    from training.metrics import ood_scores

    values, accuracy = ({shown.name: {} for shown in sets} for _ in range(2))
    with tqdm(
        total=sum(len(shown.images) for shown in sets) * len(nets), unit=' images', disable=None, leave=False
    ) as bar:
        for which, net in nets.items():
            for shown in sets:
                found, accuracy[shown.name][which] = outputs(net, shown, seed, context, bar)
                scores = ood_scores.scores(*found)
                values[shown.name].update(
                    scores if which == NET else {'max_softmax_of_softmax_net': scores['max_softmax']}
                )
    for score in list(values['normal']):
        if any(np.isnan(found[score]).any() for found in values.values()):
            print(f'{score}: left out, it is no number for some images')
            for found in values.values():
                del found[score]
    return values, accuracy


def main(argv):
    parser = Parser(__doc__)
    parser.add_argument('run', type=Path, help='folder of a finished run')
    parser.add_argument(
        '--softmax-run',
        type=Path,
        metavar='FOLDER',
        help='a run on the same data trained by softmax, to compare with',
    )
    parser.add_argument(
        '--samples', type=int, default=2000, metavar='N', help='take the first N test images (default 2000)'
    )
    parser.add_argument('--data-dir', help="folder of the run's data files; default: the recipe's")
    parser.add_argument(
        '--fashion-dir', metavar='FOLDER', help="folder of Fashion-MNIST's IDX files, to set against MNIST"
    )
    parser.add_argument('--output-dir', type=Path, help='write here, and leave the run folder as it is')
    parser.add_argument('--device', default='auto', help='auto, cpu or gpu')
    parser.add_argument('--seed', type=int, default=0, help='of noise, shuffling and PGD')
    options = parser.parse_args(argv)
    if options.samples < 1 or options.seed < 0:
        raise UserError(
            f'--samples {options.samples} --seed {options.seed}: expected at least one '
            'sample and no negative seed'
        )
    device = devices.prepare(options.device)

    # The nets, and the images.
    from training.data import datasets
    from training.metrics import ood_scores
    from training.runs import plots, restore, tables

    folder, contexts = RunFolder(options.run), device.contexts()[:1]
    net, recipe = restore.pixel_classifier(folder, device, contexts)
    summary = None if options.output_dir else folder.read_summary()
    nets, names = {NET: net}, {NET: folder.path.name}
    if options.softmax_run:
        other_folder = RunFolder(options.softmax_run)
        nets[SOFTMAX_NET], other = restore.pixel_classifier(other_folder, device, contexts)
        names[SOFTMAX_NET] = other_folder.path.name
        if other.loss.loss not in ('softmax', 'softmax-center') or other.data.dataset != recipe.data.dataset:
            raise UserError(
                f'--softmax-run {options.softmax_run}: expected a run on '
                f'{recipe.data.dataset} trained by softmax, this one is '
                f'{other.loss.loss} on {other.data.dataset}'
            )
    test = datasets.load_test(recipe.data, options.samples, options.data_dir)
    sets, missing = image_sets(test, recipe.data.dataset, options.seed, options.fashion_dir)
    for name, reason in missing.items():
        print(f'{name}: left out, {reason}')

    # What tells the abnormal ones apart.
    values, accuracy = score_all(nets, sets, options.seed, contexts[0])
    normal, others = values['normal'], sets[1:]
    report = {
        'samples': len(test),
        'seed': options.seed,
        'positive_class': 'normal',
        'nets': names,
        'accuracy': accuracy['normal'],
        'left_out': missing,
        'sets': {},
    }
    for shown in others:
        attacked = {} if shown.strength is None else {'accuracy': accuracy[shown.name]}
        report['sets'][shown.name] = {
            **attacked,
            'scores': {
                score: {
                    measure: round(value, 4)
                    for measure, value in ood_scores.measures(
                        normal[score], values[shown.name][score]
                    ).items()
                }
                for score in normal
            },
        }
    curves = {
        shown.name: {
            score.replace('_', ' '): ood_scores.roc(normal[score], values[shown.name][score])[:2]
            for score in normal
        }
        for shown in others
    }
    histograms = {
        score.replace('_', ' '): {
            family: {
                'normal': normal[score],
                **{shown.name: values[shown.name][score] for shown in others if shown.family == family},
            }
            for family in dict.fromkeys(shown.family for shown in others)
        }
        for score in normal
    }

    target = RunFolder(options.output_dir or options.run)
    try:
        target.path.mkdir(parents=True, exist_ok=True)
        target.write_detection(report)
        target.write_figure('roc.png', plots.roc_curves, curves, folder.path.name)
        target.write_figure('scores.png', plots.score_histograms, histograms, folder.path.name)
        if summary is not None:
            target.write_summary({**summary, 'detection': report['sets']})
    except OSError as error:
        raise UserError(f'{target.path}: {error.strerror}; choose another --output-dir') from None
    print(tables.detection_report(report))
    print(f'{tables.MEASURES}\nwritten: {target.detection}, roc.png and scores.png beside it')
    return 0


if __name__ == '__main__':
    errors.exit_with(main)
