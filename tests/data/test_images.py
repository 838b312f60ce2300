"""One's own images: which files are taken, and which of them validate."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from photos import NAMES, ORIENTATION, settings, write_photos, write_set
from PIL import Image

from training.data import folders
from training.data.images import load_images
from training.errors import UserError


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


def test_names_of_undecodable_bytes_can_be_written(tmp_path):
    assert folders.as_text(os.fsdecode(b'a\xff')) == 'a\\udcff'
    assert folders.as_text('e\u0301') == '\xe9'
    json.dumps(folders.as_text(os.fsdecode(b'a\xff'))).encode()
    assert re.fullmatch('a, b, c and 1 more', folders.list_of_some(list('abcd')))
