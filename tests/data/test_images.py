"""One's own images: which files are taken, how they are packed, and what batches they come in."""

import json
import os
import re
import shutil

import mxnet as mx
import numpy as np
import pytest
from mxnet import recordio
from photos import NAMES, ORIENTATION, write_photos, write_set
from PIL import Image

from training.config.inputs import ImagesData
from training.data import augment, batches, colours, crops, folders, packing
from training.data.datasets import Split, digest, load_splits
from training.data.images import load_images
from training.data.record_file import MAGIC, framed, read_record
from training.errors import UserError


def settings(folder, **fields):
    return ImagesData(data_dir=str(folder), image_size=32, **fields)


@pytest.fixture(scope='module')
def photos(tmp_path_factory, cifar):
    return write_set(tmp_path_factory.mktemp('photos'), cifar)


@pytest.fixture
def one_folder(tmp_path, cifar):
    """A folder of classes without parts."""
    write_photos(tmp_path / 'all', cifar[0], 10)
    return tmp_path / 'all'


def test_classes_in_any_script_and_every_mode_size_and_orientation(tmp_path, cifar, capsys):
    folder = write_set(tmp_path, cifar)
    base = Image.fromarray(np.arange(60 * 40 * 3, dtype=np.uint8).reshape(40, 60, 3))
    extra = folder / 'train' / 'ship'
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # lies on its side
    base.save(extra / 'turned.jpg', exif=exif, quality=95)
    for mode, ending in (('L', 'png'), ('RGBA', 'png'), ('LA', 'webp'), ('P', 'gif'), ('1', 'png'),
                         ('CMYK', 'jpg'), ('YCbCr', 'jpg'), ('L', 'bmp'), ('RGB', 'tiff')):  # fmt: skip
        base.convert(mode).save(extra / f'mode-{mode}.{ending}')
    Image.fromarray(np.full((40, 60), 30000, np.uint16)).save(extra / '16.png')
    Image.fromarray(np.full((3000, 2000, 3), (200, 30, 60), np.uint8)).save(extra / 'large.jpg')
    (extra / 'deeper').mkdir()
    base.save(extra / 'deeper' / 'UPPER.JPG')
    for name in ('.hidden.png', 'notes.txt', 'Thumbs.db'):
        (extra / name).write_bytes(b'no image')
    (folder / 'train' / '.git').mkdir()
    (folder / 'train' / 'readme.md').write_text('no class')
    chosen = settings(folder)
    train, _ = load_images(chosen)
    assert chosen.classes == sorted(NAMES) and chosen.validate_on == 'val'
    assert np.bincount(train.labels).tolist() == [12 + 13, 12, 12]  # ship comes first
    by_name = {name: number for number, name in enumerate(train.files)}
    assert train.image(by_name['ship/turned.jpg']).shape == (56, 37, 3)  # upright, at a short side of 37
    assert train.image(by_name['ship/large.jpg']).shape == (56, 37, 3)
    np.testing.assert_allclose(train.centre(by_name['ship/large.jpg']).mean((1, 2)), (200, 30, 60), atol=3)
    assert capsys.readouterr().out.startswith('3 classes, training / val images: ship 25 / 6, ')


def test_small_images_are_kept_and_large_ones_reduced(photos):
    train, _ = load_images(settings(photos))
    sides = [min(train.image(number).shape[:2]) for number in range(len(train))]
    assert min(sides) < 37 and max(sides) == 37
    assert train.shape == (36, 3, 32, 32) and train.centre(0).shape == (3, 32, 32)


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


def test_unreadable_files_are_named_and_left_out_or_an_error(tmp_path, cifar, capsys):
    folder = write_set(tmp_path, cifar)
    broken = folder / 'train' / 'ship' / 'broken.jpg'
    broken.write_bytes((folder / 'train' / 'ship' / '0.jpg').read_bytes()[:300])
    (folder / 'train' / 'ship' / 'empty.png').write_bytes(b'')
    (folder / 'train' / 'ship' / 'loop.png').symlink_to('loop.png')
    with pytest.raises(UserError, match=r'loop.png: .*symbolic links'):
        load_images(settings(folder))
    (folder / 'train' / 'ship' / 'loop.png').unlink()
    for _ in range(2):  # also of what is packed already
        train, _ = load_images(settings(folder))
        output = capsys.readouterr()
        assert len(train) == 36 and '2 of 38 files left out' in output.out
        assert len(output.err.splitlines()) == 2 and str(broken) in output.err
    with pytest.raises(UserError, match='--strict: 2 files cannot be read'):
        load_images(settings(folder), strict=True)


def test_image_bomb_keeps_to_pils_limit(tmp_path, cifar, capsys, monkeypatch):
    folder = write_set(tmp_path, cifar)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 9000)
    Image.new('RGB', (200, 100)).save(folder / 'train' / 'ship' / 'bomb.png')
    load_images(settings(folder))
    assert 'bomb.png: no image that can be read (Image size' in capsys.readouterr().err


def test_what_is_wrong_with_the_classes_is_said(tmp_path, cifar, capsys):
    folder = write_set(tmp_path, cifar)
    (folder / 'train' / 'empty').mkdir()
    shutil.rmtree(folder / 'val' / NAMES[0])
    write_photos(folder / 'val', cifar[1], 2, names=['stranger'])
    shutil.copy(folder / 'train' / 'ship' / '0.jpg', folder / 'val' / 'ship' / 'copy.jpg')
    load_images(settings(folder))
    out = capsys.readouterr().out
    assert 'train: no images in empty; left out' in out
    assert f'val: no images of {NAMES[0]}, whose accuracy is not measured' in out
    assert 'stranger: not among the training classes; 2 images left out' in out
    assert '1 validation images are training images too' in out and 'ship/copy.jpg' in out


def test_links_to_folders_are_followed_but_no_loop(tmp_path, cifar):
    folder = write_set(tmp_path / 'set', cifar)
    (tmp_path / 'elsewhere').mkdir()
    shutil.move(folder / 'train' / 'ship', tmp_path / 'elsewhere' / 'ship')
    (folder / 'train' / 'ship').symlink_to(tmp_path / 'elsewhere' / 'ship')
    (tmp_path / 'elsewhere' / 'ship' / 'again').symlink_to(tmp_path / 'elsewhere' / 'ship')
    train, _ = load_images(settings(folder))
    assert len(train) == 36


@pytest.mark.parametrize(
    'build, message',
    [
        (lambda folder, cifar: None, 'there is no such folder'),
        (lambda folder, cifar: folder.mkdir(), 'at least two classes, found none'),
        (lambda folder, cifar: write_photos(folder, cifar[0], 3, names=['a']), 'found only a'),
        (lambda folder, cifar: write_photos(folder, cifar[0], 3), 'has no val, validation or test'),
        (lambda folder, cifar: (folder / 'a').mkdir(parents=True) or (folder / 'b').mkdir(), 'found none'),
        (lambda folder, cifar: folder.symlink_to(folder), 'there is no such folder'),
        (lambda folder, cifar: folder.write_text('x'), r'or a \.rec file'),
    ],
)
def test_folder_without_a_data_set_is_one_line(build, message, tmp_path, cifar):
    build(tmp_path / 'photos', cifar)
    with pytest.raises(UserError, match=message) as error:
        load_images(settings(tmp_path / 'photos', holdout=0.1 if 'found' in message else 0))
    assert '\n' not in str(error.value)


def test_folder_whose_images_are_all_broken_is_one_line(tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        (tmp_path / name / '1.png').write_bytes(b'no image')
    with pytest.raises(UserError, match='none of its 2 image files can be read'):
        load_images(settings(tmp_path, holdout=0.5))


def test_holdout_is_a_share_or_a_number_of_each_class(one_folder):
    for holdout, expected in ((0.2, [2, 2, 2]), (6, [2, 2, 2]), (0.01, [1, 1, 1]), (15, [5, 5, 5])):
        train, validation = load_images(settings(one_folder, holdout=holdout))
        again = load_images(settings(one_folder, holdout=holdout))[1]
        assert np.bincount(validation.labels).tolist() == expected and len(train) + len(validation) == 30
        assert validation.files.tolist() == again.files.tolist()
        assert not set(validation.files) & set(train.files)
    with pytest.raises(UserError, match='leaves a class of 10 images none'):
        load_images(settings(one_folder, holdout=29))


def test_validation_may_be_chosen_or_held_out_of_the_training_part(tmp_path, cifar):
    folder = write_set(tmp_path, cifar)
    write_photos(folder / 'test', cifar[1], 3, first=50)
    assert [len(load_images(settings(folder, validate_on=name))[1]) for name in ('val', 'test')] == [18, 9]
    train, held_out = load_images(settings(folder, holdout=0.25))
    assert len(train) == 27 and len(held_out) == 9
    with pytest.raises(UserError, match=r'has no validation beside train, has val and test; give --holdout'):
        load_images(settings(folder, validate_on='validation'))


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


def training_data(photos, seed=0, workers=None, **fields):
    chosen = settings(photos, **fields)
    train, _ = load_splits(chosen)
    block = augment.build(chosen)
    more = {'workers': workers} if workers else {}
    more['resolutions'] = chosen.resolutions
    return batches.TrainingData(train, [mx.cpu()], block, 'random', 9, seed, **more)


def test_order_and_augmentation_depend_on_seed_and_epoch_alone(photos):
    def epoch(number, seed=0, first=0):
        return [batch[0].asnumpy() for (batch,) in training_data(photos, seed).batches(number, first)]

    first, again, resumed = epoch(3), epoch(3), epoch(3, first=2)
    assert len(first) == 4 and all((a == b).all() for a, b in zip(first, again))
    assert len(resumed) == 2 and all((a == b).all() for a, b in zip(first[2:], resumed))
    assert all((first[0] != other[0]).any() for other in (epoch(4), epoch(3, seed=1)))


def test_smaller_images_of_the_first_epochs_are_the_same_crops_read_at_that_size(photos):
    data = training_data(photos, resolutions=[(16, 1), (32, 1)], jitter=0.0, lighting=0.0)
    ((small, _),), ((large, _),) = next(data.batches(0)), next(data.batches(1))
    assert small.shape[2:] == (16, 16) and large.shape[2:] == (32, 32) and data.work(0) == 0.25
    ((whole, _),) = next(training_data(photos, jitter=0.0, lighting=0.0).batches(0))
    halved = whole.asnumpy().reshape(9, 3, 16, 2, 16, 2).mean(axis=(3, 5))
    assert np.corrcoef(halved.ravel(), small.asnumpy().ravel())[0, 1] > 0.97


def test_stopping_within_an_epoch_leaves_nothing_behind(photos):
    data = training_data(photos)
    for _ in data.batches(0):
        break
    assert len([batch for batch in data.batches(0)]) == 4


@pytest.mark.parametrize('augmentation', ['resized-crop', 'none'])
def test_batches_are_the_crops_with_their_labels(photos, augmentation):
    data = training_data(photos, jitter=0.0, lighting=0.0, augmentation=augmentation)
    records = data.images.records
    ((images, labels),) = next(data.batches(1))
    rng = np.random.default_rng([0, 1])
    order = rng.permutation(36)
    flips = augment.draw_flips('random', rng, 1, order, 0)
    mean, std = (
        np.array(augment.NORMALISATIONS['imagenet'][name])[:, None, None] for name in ('mean', 'std')
    )
    for place in range(9):
        image = records.image(order[place])
        box, step = crops.middle_square(*image.shape[:2]), 1
        if augmentation != 'none':
            box = crops.random_box(*image.shape[:2], 0.08, np.random.default_rng([0, 1, place]))
            step = -1 if flips[place] else 1
        crop = crops.resized(image, box, 32)[:, ::step, ::-1]
        want = (crop.transpose(2, 0, 1) / 255 - mean) / std
        np.testing.assert_allclose(images[place].asnumpy(), want, atol=1e-5)
        assert labels[place].asscalar() == records.labels[order[place]]


def test_colours_change_by_brightness_contrast_saturation_and_light():
    """Written out for each image, with the factors that its seed gives."""
    image = np.random.default_rng(1).integers(60, 160, (20, 30, 3)).astype(np.uint8)  # nothing is clipped
    block = colours.Colours(0.2, 0.02, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    gray, orders = np.array(colours.GRAY), set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        order, factors = rng.permutation(3), rng.uniform(0.8, 1.2, 3)
        want = image[:, :, ::-1].astype(np.float64)
        for kind, factor in zip(order, factors):
            gray_image = want @ gray
            other = (0, gray_image.mean(), gray_image[:, :, None])[kind]
            want = factor * want + (1 - factor) * other
        want += colours.LIGHTING @ rng.normal(0, 0.02, 3)
        assert 0 < want.min() and want.max() < 255
        out = np.empty((3, 20, 30), np.float32)
        block.put(image, np.random.default_rng(seed), out)
        levels = out.transpose(1, 2, 0) * (0.1, 0.2, 0.3) + (0.4, 0.5, 0.6)
        np.testing.assert_allclose(levels * 255, want, atol=0.9)  # rounded; OpenCV's factors have 10 bits
        orders.add(tuple(order))
    assert len(orders) == 6


def test_colours_are_clipped():
    block = colours.Colours(0.9, 0.1, (0, 0, 0), (1, 1, 1))
    out = np.empty((3, 8, 8), np.float32)
    image = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (8, 8, 3))
    for seed in range(20):
        block.put(image, np.random.default_rng(seed), out)
        assert out.min() >= 0 and out.max() <= 1


def test_crops_keep_to_their_bounds():
    rng = np.random.default_rng(0)
    boxes = np.array([crops.random_box(60, 100, 0.25, rng) for _ in range(500)])
    top, left, height, width = boxes.T
    assert (
        (top >= 0).all() and (left >= 0).all() and (top + height <= 60).all() and (left + width <= 100).all()
    )
    areas, ratios = height * width / 6000, width / height
    assert areas.min() > 0.23 and areas.max() > 0.6 and np.ptp(top) > 20 and np.ptp(left) > 40
    assert ratios.min() < 0.8 and ratios.max() > 1.25 and 0.7 < ratios.min() and ratios.max() < 1.4
    assert crops.random_box(1, 500, 0.9, rng) == (0, 249, 1, 1)


def test_resizing_agrees_with_pil():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(small).resize((160, 120), Image.BICUBIC))
    box = 10, 20, 90, 120
    for size, filter in (30, Image.BOX), (200, Image.BILINEAR):
        ours = crops.resized(image, box, size).astype(int)
        theirs = Image.fromarray(image[10:100, 20:140]).resize((size, size), filter)
        assert np.abs(ours - np.asarray(theirs)).max() <= 2


def test_evaluation_sees_every_image_once_in_its_order(photos):
    chosen = settings(photos)
    _, val = load_splits(chosen)
    data = batches.DeviceData(val, [mx.cpu()])
    np.testing.assert_array_equal(
        data.images.part(0, slice(4, 9)).asnumpy(), [val.images.centre(number) for number in range(4, 9)]
    )
    assert data.images.batch == 500


def test_names_of_undecodable_bytes_can_be_written(tmp_path):
    assert folders.as_text(os.fsdecode(b'a\xff')) == 'a\\udcff'
    assert folders.as_text('e\u0301') == '\xe9'
    json.dumps(folders.as_text(os.fsdecode(b'a\xff'))).encode()
    assert re.fullmatch('a, b, c and 1 more', folders.list_of_some(list('abcd')))
