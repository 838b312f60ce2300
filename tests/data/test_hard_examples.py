"""Hard example mining: which images come twice and which not at all, and where their losses come from."""

import numpy as np
import pytest
from mxnet import cpu, nd

from training.data import augment, batches
from training.data.datasets import Split
from training.data.hard_examples import HardExamples

COUNT, BATCH = 60, 8


def mined(share=0.2, first_epoch=1, contexts=None):
    """Training data whose labels number the images."""
    contexts = contexts or [cpu()]
    images = np.zeros((COUNT, 3, 32, 32), np.uint8)
    data = batches.TrainingData(
        Split(images, np.arange(COUNT, dtype=np.int32)),
        contexts,
        augment.PadCropFlip(4, **augment.NORMALISATIONS['cifar10']),
        'random',
        BATCH,
        0,
        hard_examples=HardExamples(COUNT, share, first_epoch),
    )
    data.augment.initialize(ctx=contexts)
    return data


def losses_of(step):
    """A loss that falls with an image's number."""
    return [100.0 - labels.astype('float32') for _, labels in step]


def numbers(data, epoch):
    return np.concatenate([labels.asnumpy() for step in data.batches(epoch) for _, labels in step])


@pytest.mark.parametrize('share', [0.1, 0.3, 0.5])
def test_hardest_images_come_twice_and_half_of_the_easiest_not(share):
    hard = HardExamples(COUNT, share, 1)
    hard.known[:] = np.random.default_rng(0).permutation(COUNT)
    easiest_first, twice = hard.known.argsort(), round(share * COUNT)
    gone = []
    for epoch in (1, 2):
        order = hard.order(np.random.default_rng(epoch), epoch)
        times = np.bincount(order, minlength=COUNT)[easiest_first]
        assert len(order) == COUNT and not (np.diff(order) >= 0).all()
        again = (np.arange(COUNT) >= COUNT - twice).astype(int)
        left_out = again + 1 - times
        assert set(left_out) == {0, 1} and left_out.sum() == twice and not left_out[2 * twice :].any()
        gone.append(left_out)
    assert (gone[0] != gone[1]).any()


@pytest.mark.parametrize('first_epoch, mined_epochs', [(1, [1, 2, 3]), (2.3, [3]), (0, [1, 2, 3]), (4, [])])
def test_begins_with_its_first_epoch_and_never_before_losses_are_known(first_epoch, mined_epochs):
    hard = HardExamples(COUNT, 0.3, first_epoch)
    orders = [hard.order(np.random.default_rng(epoch), epoch) for epoch in range(4)]
    assert [epoch for epoch, order in enumerate(orders) if len(set(order)) < COUNT] == mined_epochs
    for epoch in set(range(4)) - set(mined_epochs):
        np.testing.assert_array_equal(orders[epoch], np.random.default_rng(epoch).permutation(COUNT))


@pytest.mark.parametrize('contexts', [[cpu(0)], [cpu(1), cpu(2)]], ids=['one device', 'two'])
def test_losses_are_those_of_the_images(contexts):
    data = mined(contexts=contexts)
    data.record_losses(0, [losses_of(step) for step in data.batches(0)])
    seen = numbers(data, 0)
    data.end_epoch()
    assert len(set(seen)) == COUNT // BATCH * BATCH
    np.testing.assert_array_equal(data.hard_examples.known[seen], 100 - seen)
    unseen = np.setdiff1d(np.arange(COUNT), seen)
    assert (data.hard_examples.known[unseen] == 0).all() and (data.hard_examples.running == 0).all()
    times = np.bincount(numbers(data, 1), minlength=COUNT)
    assert times[:8].sum() > times[-8:].sum()


def test_epoch_that_goes_on_elsewhere_has_the_losses_of_a_whole_one():
    whole, first, second = mined(), mined(), mined()
    steps = [losses_of(step) for step in whole.batches(0)]
    whole.record_losses(0, steps)
    whole.end_epoch()
    next(first.batches(0))
    first.record_losses(0, steps[:3])
    for name, array in second.hard_examples.arrays.items():
        array[:] = first.hard_examples.arrays[name]
    second.record_losses(3, [losses_of(step) for step in second.batches(0, 3)])
    second.end_epoch()
    np.testing.assert_array_equal(second.hard_examples.known, whole.hard_examples.known)
    np.testing.assert_array_equal(numbers(second, 1), numbers(whole, 1))


def test_nothing_is_read_without_hard_examples(cifar):
    data = mined()
    data.hard_examples = None
    data.record_losses(0, [[nd.zeros(BATCH)]])
    data.end_epoch()
    assert len(set(numbers(data, 1))) == COUNT // BATCH * BATCH
