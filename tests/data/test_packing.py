"""Packs of images: written once, read again, and those that MXNet wrote."""

import shutil

import mxnet as mx
import numpy as np
import pytest
from mxnet import recordio
from photos import NAMES, settings
from PIL import Image

from training.data import packing
from training.data.datasets import Split, digest
from training.data.images import load_images
from training.data.record_file import MAGIC, framed, read_record
from training.errors import UserError


def test_pack_is_read_again_and_by_mxnets_own_reader(photos, monkeypatch):
    train, _ = load_images(settings(photos))
    monkeypatch.setattr(packing, 'open_picture', None)  # nothing is read again
    again, _ = load_images(settings(photos))
    assert digest(Split(train, train.labels)) == digest(Split(again, again.labels))
    reader = recordio.MXIndexedRecordIO(str(train.path.with_suffix('.idx')), str(train.path), 'r')
    header, image = recordio.unpack_img(reader.read_idx(5))
    assert header.label == train.labels[5] and (image == train.image(5)).all()
    iterator = mx.io.ImageRecordIter(
        path_imgrec=str(train.path), data_shape=(3, 20, 20), batch_size=6, preprocess_threads=1
    )
    assert iterator.next().label[0].asnumpy().tolist() == train.labels[:6].tolist()


def test_records_that_hold_the_magic_number_are_written_and_read_as_mxnet_does(tmp_path):
    magic = MAGIC
    contents = [
        b'',
        b'abc',
        magic,
        b'1234' + magic + b'5' + magic + b'67',
        magic * 3,
        b'12' + magic,
        b'x' * 99,
    ]
    writer = recordio.MXRecordIO(str(tmp_path / 'theirs.rec'), 'w')
    for content in contents:
        writer.write(content)
    writer.close()
    ours = b''.join(map(framed, contents))
    assert ours == (tmp_path / 'theirs.rec').read_bytes()
    offsets = np.cumsum([0] + [len(framed(content)) for content in contents[:-1]])
    assert [read_record(ours, int(offset)) for offset in offsets] == contents


def test_pack_of_other_images_is_refused_until_repacked(one_folder):
    load_images(settings(one_folder, holdout=0.2))
    Image.new('RGB', (30, 30)).save(one_folder / 'ship' / 'new.png')
    packed = next(one_folder.glob('.packed/*/all.rec'))
    before = packed.read_bytes()
    with pytest.raises(UserError, match=r'changed: ship/new.png.*--repack'):
        load_images(settings(one_folder, holdout=0.2))
    assert packed.read_bytes() == before
    assert sum(map(len, load_images(settings(one_folder, holdout=0.2), again=True))) == 31


def test_packing_goes_on_where_it_stopped(one_folder, monkeypatch, tmp_path, capsys):
    whole, _ = load_images(settings(one_folder, holdout=0.2, pack_dir=str(tmp_path / 'whole')))
    monkeypatch.setattr(packing, 'AT_ONCE', 7)
    kept, read = packing.framed, []

    def full_disk(content):
        if len(read) == 17:
            raise OSError(28, 'No space left on device')
        read.append(content)
        return kept(content)

    monkeypatch.setattr(packing, 'framed', full_disk)
    chosen = settings(one_folder, holdout=0.2, pack_dir=str(tmp_path / 'parts'))
    with pytest.raises(UserError, match='No space left on device.*goes on where it stopped'):
        load_images(chosen)
    assert {path.suffix for path in (tmp_path / 'parts').glob('*/*')} == {'.part', '.lock'}
    opened = []
    monkeypatch.setattr(packing, 'framed', lambda content: opened.append(0) or kept(content))
    again, _ = load_images(chosen)
    assert 'all.rec.part: 14 images are packed already' in capsys.readouterr().out and len(opened) == 16
    assert again.path.read_bytes() == whole.path.read_bytes()


def test_folder_that_cannot_be_written_names_another_way(one_folder, tmp_path):
    (tmp_path / 'file').write_text('no folder')
    with pytest.raises(UserError, match='cannot be packed .*choose another --pack-dir'):
        load_images(settings(one_folder, holdout=0.2, pack_dir=str(tmp_path / 'file')))


@pytest.fixture
def record_file(tmp_path, one_folder):
    """A .rec and .idx as im2rec writes them."""
    packed, _ = load_images(settings(one_folder, holdout=0.2))
    for ending in ('.rec', '.idx'):
        shutil.copy(packed.path.with_suffix(ending), tmp_path / f'mine{ending}')
    return tmp_path / 'mine.rec'


def test_existing_record_file_is_read_as_it_is(record_file):
    chosen = settings(record_file, holdout=0.2)
    train, _ = load_images(chosen)
    assert chosen.classes == ['0', '1', '2'] and len(train) == 24
    record_file.with_name('classes.txt').write_text('\n'.join(NAMES) + '\n')
    chosen = settings(record_file, holdout=0.2)
    load_images(chosen)
    assert chosen.classes == list(NAMES)
    for name in ('train', 'val'):
        for ending in ('.rec', '.idx'):
            (record_file.parent / 'parts').mkdir(exist_ok=True)
            shutil.copy(record_file.with_suffix(ending), record_file.parent / 'parts' / f'{name}{ending}')
    assert [len(part) for part in load_images(settings(record_file.parent / 'parts'))] == [30, 30]


def test_first_of_several_labels_is_the_class(tmp_path, cifar):
    path = tmp_path / 'mine.rec'
    writer = recordio.MXIndexedRecordIO(str(path.with_suffix('.idx')), str(path), 'w')
    for number in range(8):
        header = recordio.IRHeader(0, [number % 2, 0.5, 0.7] if number < 6 else number % 2, number, 0)
        writer.write_idx(number, recordio.pack_img(header, cifar[0].images[number].transpose(1, 2, 0)))
    writer.close()
    train, held_out = load_images(settings(path, holdout=0.25))
    assert sorted([*train.labels, *held_out.labels]) == [0] * 4 + [1] * 4
    assert train.image(0).shape == (32, 32, 3)


def test_damaged_record_file_is_one_line(record_file):
    content, index = record_file.read_bytes(), record_file.with_suffix('.idx').read_text()
    record_file.write_bytes(content[:-100])
    with pytest.raises(UserError, match='cut or damaged'):
        load_images(settings(record_file, holdout=0.2))
    record_file.write_bytes(b'')
    with pytest.raises(UserError, match='is empty'):
        load_images(settings(record_file, holdout=0.2))
    record_file.write_bytes(content)
    record_file.with_name('classes.txt').write_text('one\ntwo\n')
    with pytest.raises(UserError, match='whole numbers from 0 to 1, and there are 2'):
        load_images(settings(record_file, holdout=0.2))
    for text in ('', '1\tx\n', index.replace('\t', ' ')):
        record_file.with_suffix('.idx').write_text(text)
        with pytest.raises(UserError):
            load_images(settings(record_file, holdout=0.2))
    record_file.with_suffix('.idx').unlink()
    with pytest.raises(UserError, match=r'has no mine\.idx beside it'):
        load_images(settings(record_file, holdout=0.2))
