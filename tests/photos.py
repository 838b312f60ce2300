"""Folders of images as people have them, made of CIFAR-10's."""

import numpy as np
from PIL import Image

from training.config.inputs import ImagesData

NAMES = 'кошка', '犬 と 猫', 'ship'  # any script, and spaces
ORIENTATION = 0x0112


def write_photos(folder, split, count, names=NAMES, first=0, sides=(20, 90)):
    """So many images a class below `folder`, of sides in pixels between two; returns their paths.

    Class k of `names` has images of CIFAR-10's class k, from number `first` of it on, JPEG and
    PNG by turns.
    """
    rng, paths = np.random.default_rng(first), []
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(split.images[split.labels == label][first : first + count]):
            size = [int(side) for side in rng.integers(*sides, 2)]
            path = folder / name / f'{first + number}.{("jpg", "png")[number % 2]}'
            Image.fromarray(image.transpose(1, 2, 0)).resize(size, Image.BICUBIC).save(path)
            paths.append(path)
    return paths


def write_set(folder, cifar, train=12, val=6, **settings):
    """A data set with the parts train and val; returns its folder."""
    write_photos(folder / 'train', cifar[0], train, **settings)
    write_photos(folder / 'val', cifar[1], val, **settings)
    return folder


def settings(folder, **fields):
    """The data section of a recipe for a folder, of images of 32 pixels."""
    return ImagesData(data_dir=str(folder), image_size=32, **fields)
