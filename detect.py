"""Measure how well a finished run's scores tell test images from out-of-distribution ones.

    python detect.py output/record/cifar-fast-seed0 --softmax-run output/record/cifar-fast-softmax-seed0
    python detect.py output/record/cifar-fast-softmax-seed0 --fit 50000 --output-dir output/detection

Out of distribution are adversarial images (FGSM, PGD) of several strengths, noise, rotated and
shuffled images, the images of other data sets, and those in folders named with --against. Scores are the
log-likelihood under the mixture, the distance to the predicted class and the highest softmax
probability, as far as the run has them, and the last one also of a net trained by softmax. With --fit
also the Mahalanobis distance (Lee et al., 2018) and the relative one (Ren et al., 2021) under Gaussians
fitted to the features of training images, which any net has. Adversarial images are crafted anew against
each net that is scored, which takes most of the time; --no-attacks leaves them out. Writes detection.json,
roc.png and scores.png into the run folder, and the table into its summary.json.
"""

import argparse
from pathlib import Path

from training import errors
from training.config.options import Parser
from training.errors import UserError, naming
from training.machine import devices
from training.runs.folder import RunFolder, check_writable


def make_parser() -> Parser:
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
    parser.add_argument(
        '--fit',
        type=int,
        metavar='N',
        help='also score by Gaussians fitted to the features of the first N training images',
    )
    parser.add_argument('--data-dir', help="folder of the run's data files; default: the recipe's")
    parser.add_argument(
        '--fashion-dir', metavar='FOLDER', help="folder of Fashion-MNIST's IDX files, to set against MNIST"
    )
    parser.add_argument(
        '--against',
        nargs='+',
        type=Path,
        default=[],
        metavar='FOLDER',
        help='folders of other images, of any usual format and size, as further sets',
    )
    parser.add_argument(
        '--attacks',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='adversarial images too, which take most of the time (default)',
    )
    parser.add_argument('--output-dir', type=Path, help='write here, and leave the run folder as it is')
    parser.add_argument('--device', default='auto', help='auto, cpu or gpu')
    parser.add_argument('--seed', type=int, default=0, help='of noise, shuffling and PGD')
    return parser


def main(argv: list[str]) -> int:
    options = make_parser().parse_args(argv)
    if options.samples < 1 or options.seed < 0:
        raise UserError(
            f'--samples {options.samples} --seed {options.seed}: expected at least one '
            'sample and no negative seed'
        )
    if options.fit is not None and options.fit < 1:
        raise UserError(f'--fit {options.fit}: expected a number of training images, at least 1')
    with_features = options.fit is not None
    folder, target = RunFolder(options.run), RunFolder(options.output_dir or options.run)
    folder.require_run()
    check_writable(target.path)
    device = devices.prepare(options.device)

    from training.data import datasets
    from training.metrics import detection, ood_images, ood_scores
    from training.runs import plots, restore, tables

    # The nets, and the images.
    contexts = device.contexts()[:1]
    net, recipe = restore.pixel_classifier(folder, device, contexts, with_features)
    summary = None if options.output_dir else folder.read_summary()
    nets, names = {detection.NET: net}, {detection.NET: folder.path.name}
    if options.softmax_run:
        net, other = restore.pixel_classifier(RunFolder(options.softmax_run), device, contexts, with_features)
        ours, theirs = datasets.facts(recipe.data), datasets.facts(other.data)
        same = ours.names == theirs.names and ours.shape == theirs.shape
        if other.loss.loss not in ('softmax', 'softmax-center') or not same:
            raise UserError(
                f'--softmax-run {options.softmax_run}: expected a run on '
                f'{recipe.data.dataset}, of the same classes and image size, trained by softmax; this one is '
                f'{other.loss.loss} on {other.data.dataset}'
            )
        nets[detection.SOFTMAX_NET] = net
        names[detection.SOFTMAX_NET] = RunFolder(options.softmax_run).path.name
    _, test = datasets.load_first(recipe.data, options.samples, options.data_dir)
    sets, missing = ood_images.image_sets(
        test, recipe.data, options.seed, options.fashion_dir, options.against, options.attacks
    )
    for name, reason in missing.items():
        print(f'{name}: left out, {reason}')

    # How well scores tell them apart.
    fitted = {}
    if with_features:
        train, _ = datasets.load_first(recipe.data, options.fit, options.data_dir)
        if len(set(train.labels.tolist())) <= train.labels.max():
            raise UserError(f'--fit {options.fit}: expected an image of every class; give a larger number')
        for which, net in nets.items():
            fitted[which] = detection.fit_scores(net, train.images, train.labels, contexts[0])
    inside, *others = detection.score_sets(nets, sets, options.seed, contexts[0], fitted)
    if not inside.scores:
        raise UserError(f'{folder.path}: no score of this run is a number for all images')
    report = {
        'samples': len(test),
        'seed': options.seed,
        **({'fitted_to': len(train)} if with_features else {}),
        'positive_class': inside.name,
        'nets': names,
        'accuracy': inside.accuracy,
        'left_out': missing,
        'sets': {one.name: one.report(inside) for one in others},
    }
    print(f'{tables.detection_report(report)}\n{tables.MEASURES}')
    curves = {
        one.name: {score: ood_scores.roc(inside.scores[score], one.scores[score]) for score in inside.scores}
        for one in others
    }
    families: dict[str, dict[str, dict]] = {}
    for one in others:
        families.setdefault(one.family, {inside.name: inside.scores})[one.name] = one.scores
    with naming(target.path, '; choose another --output-dir'):
        target.path.mkdir(parents=True, exist_ok=True)
        target.write_report(target.detection, report)
        target.write_figure('roc.png', plots.roc_curves, curves, folder.path.name)
        target.write_figure('scores.png', plots.score_histograms, families, folder.path.name)
        if summary is not None:
            target.write_summary({**summary, 'detection': report['sets']})
    print(f'written: {target.detection}, roc.png and scores.png beside it')
    return 0


if __name__ == '__main__':
    errors.exit_with(main)
