"""Measure how well a finished run's scores tell normal test images from abnormal ones.

    python detect.py output/record/cifar-fast-seed0 --softmax-run output/cifar-softmax

Abnormal are adversarial images (FGSM, PGD) of several strengths, noise, rotated and shuffled
images, and the images of other data sets. Scores are the log-likelihood under the mixture, the
distance to the predicted class and the highest softmax probability, as far as the run has them, and
the last one also of a net trained by softmax. Adversarial images are crafted anew against each net
that is scored. Writes detection.json, roc.png and scores.png into the run folder, and the table
into its summary.json.
"""
import dataclasses
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training import cli, runtime
from training.run_folder import RunFolder
from training.runtime import UserError

BATCH = 500
STRENGTHS = {'cifar': (2, 4, 8, 16), 'mnist': (25.5, 51, 76.5)}  # largest change of a pixel, of 255


def outputs(net, images, labels, attack, context, bar):
    """The net's outputs for uint8 images, attacked first if there is an attack.

    Returns
    -------
    (list of array, float or None)
        And the accuracy, where there are labels.
    """
    from mxnet import nd
    batches = []
    for start in range(0, len(images), BATCH):
        pixels = nd.array(images[start:start + BATCH], ctx=context)
        if attack:
            own = nd.array(labels[start:start + BATCH], ctx=context)
            pixels = attack(lambda batch: net(batch)[0], pixels, own)
        batches.append([output.asnumpy() for output in net(pixels)])
        bar.update(len(batches[-1][0]))
    joined = [np.concatenate(parts) for parts in zip(*batches)]
    return joined, None if labels is None else float(np.mean(joined[0].argmax(axis=1) == labels))


def main(argv):
    parser = cli.Parser(__doc__)
    parser.add_argument('run', type=Path, help='folder of a finished run')
    parser.add_argument('--softmax-run', type=Path, metavar='FOLDER',
                        help='a run on the same data trained by softmax, to compare with')
    parser.add_argument('--samples', type=int, default=2000, metavar='N',
                        help='take the first N test images (default 2000)')
    parser.add_argument('--data-dir', help="folder of the run's data files; default: the recipe's")
    parser.add_argument('--fashion-dir', metavar='FOLDER',
                        help="folder of Fashion-MNIST's IDX files, to set against MNIST")
    parser.add_argument('--output-dir', type=Path,
                        help='write here, and leave the run folder as it is')
    parser.add_argument('--device', default='auto', help='auto, cpu or gpu')
    parser.add_argument('--seed', type=int, default=0, help='of noise, shuffling and PGD')
    options = parser.parse_args(argv)
    if options.samples < 1 or options.seed < 0:
        raise UserError(f'--samples {options.samples} --seed {options.seed}: expected at least one '
                        'sample and no negative seed')
    device = runtime.prepare(options.device)

    # The nets, and the images.
    from training import abnormal, attacks, data, detection, models
    folder, contexts = RunFolder(options.run), device.contexts()[:1]
    net, recipe = models.pixel_classifier(folder, device, contexts)
    summary = None if options.output_dir else folder.read_summary()
    nets, names = {'net': net}, {'net': folder.path.name}
    if options.softmax_run:
        softmax_net, other = models.pixel_classifier(RunFolder(options.softmax_run), device,
                                                     contexts)
        if other.loss.loss == 'lgm' or other.data.dataset != recipe.data.dataset:
            raise UserError(f'--softmax-run {options.softmax_run}: expected a run on '
                            f'{recipe.data.dataset} trained by softmax, this one is '
                            f'{other.loss.loss} on {other.data.dataset}')
        nets['softmax net'] = softmax_net
        names['softmax net'] = RunFolder(options.softmax_run).path.name
    _, test = data.load(dataclasses.replace(
        recipe.data, data_dir=options.data_dir or recipe.data.data_dir, holdout=0,
        num_samples=options.samples))
    rng = np.random.default_rng(options.seed)
    others, missing = abnormal.other_data(recipe.data.dataset, len(test), options.fashion_dir)
    for name, reason in missing.items():
        print(f'{name}: left out, {reason}')
    natural = {'noise': abnormal.noise(test.images, rng),
               'transformed': abnormal.transformed(test.images, rng), 'other data': others}
    strengths = STRENGTHS['cifar' if recipe.data.dataset.startswith('cifar') else 'mnist']

    def attack(kind, strength):
        if kind == 'FGSM':
            return lambda *batch: attacks.fgsm(*batch, strength)
        starts = np.random.default_rng([options.seed, int(strength)])
        return lambda *batch: attacks.pgd(*batch, strength, starts)

    # Every set through every net.
    families = {kind: [f'{kind} {strength:g}/255' for strength in strengths]
                for kind in ('FGSM', 'PGD')}
    families.update({family: list(sets) for family, sets in natural.items() if sets})
    sets = {'normal': (test.images, test.labels, None)}
    sets.update({name: (test.images, test.labels, (kind, strength)) for kind in ('FGSM', 'PGD')
                 for name, strength in zip(families[kind], strengths)})
    sets.update({name: (images, None, None) for found in natural.values()
                 for name, images in found.items()})
    values = {name: {} for name in sets}  # set to score to array
    accuracy = {name: {} for name in sets}  # set to net to number
    with tqdm(total=sum(len(images) for images, *_ in sets.values()) * len(nets), unit=' images',
              disable=None, leave=False) as bar:
        for which, net in nets.items():
            for name, (images, labels, how) in sets.items():
                found, accuracy[name][which] = outputs(net, images, labels, how and attack(*how),
                                                       contexts[0], bar)
                scores = detection.scores(*found)
                if which == 'net':
                    values[name].update(scores)
                else:
                    values[name]['max_softmax_of_softmax_net'] = scores['max_softmax']

    # What tells them apart.
    for score in list(values['normal']):
        if any(np.isnan(found[score]).any() for found in values.values()):
            print(f'{score}: left out, it is no number for some images')
            for found in values.values():
                del found[score]
    normal = values.pop('normal')
    report = {'samples': len(test), 'seed': options.seed, 'positive_class': 'normal',
              'nets': names, 'accuracy': accuracy['normal'], 'left_out': missing, 'sets': {}}
    for name, found in values.items():
        attacked = {'accuracy': accuracy[name]} if sets[name][2] else {}
        report['sets'][name] = {**attacked, 'scores': {
            score: {measure: round(value, 4) for measure, value in
                    detection.measures(normal[score], found[score]).items()}
            for score in normal}}
    curves = {name: {score.replace('_', ' '): detection.roc(normal[score], found[score])[:2]
                     for score in normal} for name, found in values.items()}
    grouped = {score.replace('_', ' '): {
        family: {'normal': normal[score], **{name: values[name][score] for name in names}}
        for family, names in families.items()} for score in normal}

    target = RunFolder(options.output_dir or options.run)
    try:
        target.path.mkdir(parents=True, exist_ok=True)
        target.write_detection(report)
        target.draw_detection(grouped, curves, folder.path.name)
        if summary is not None:
            target.write_summary({**summary, 'detection': report['sets']})
    except OSError as error:
        raise UserError(f'{target.path}: {error.strerror}; choose another --output-dir') from None
    print(detection.table(report))
    print(f'{detection.MEASURES}\nwritten: {target.detection}, roc.png and scores.png beside it')
    return 0


if __name__ == '__main__':
    runtime.exit_with(main)
