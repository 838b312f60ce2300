"""Images of many requests go through the nets together, and each request gets its own answers."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from training.serving.batching import Batcher, Overloaded
from training.serving.predictor import Predictions


class Echo:
    """A net whose answer is the image's first pixel; it runs only while `open` is set."""

    def __init__(self):
        self.open = threading.Event()
        self.open.set()
        self.began = threading.Event()
        self.batches = []

    def __call__(self, images):
        self.began.set()
        assert self.open.wait(10)
        values = images[:, 0, 0, 0]
        if (values == 255).any():
            raise RuntimeError('no such pixel')
        self.batches.append(values.tolist())
        return Predictions(values[:, None].astype(float), values[:, None])


@pytest.fixture
def start():
    """Makes a Batcher that is closed at the end."""
    with ExitStack() as ends:

        def make(**settings):
            batcher = Batcher(**settings)
            ends.callback(batcher.close)
            return batcher

        yield make


@pytest.fixture
def net():
    echo = Echo()
    yield echo
    echo.open.set()


def images(*values):
    return [np.full((1, 2, 2), value, np.uint8) for value in values]


def values(future):
    return [int(predictions.posterior[number, 0]) for predictions, number in future.result(10)]


def hold(batcher, net):
    """Have the net busy with one image until net.open is set."""
    net.open.clear()
    first = batcher.submit(net, images(0))
    assert net.began.wait(10)
    return first


def test_waiting_requests_share_batches_and_get_their_own_answers(start, net):
    batcher = start(most_images=4)
    first = hold(batcher, net)
    futures = [batcher.submit(net, images(*range(k, k + 3))) for k in (10, 20, 30)]
    assert batcher.waiting == 9
    net.open.set()
    assert values(first) == [0]
    assert [values(future) for future in futures] == [[10, 11, 12], [20, 21, 22], [30, 31, 32]]
    assert net.batches == [[0], [10, 11, 12, 20], [30, 31, 32, 21], [22]]
    assert batcher.waiting == 0


def test_large_request_does_not_hold_up_a_small_one(start, net):
    batcher = start(most_images=4)
    hold(batcher, net)
    large, small = batcher.submit(net, images(*range(1, 21))), batcher.submit(net, images(99))
    net.open.set()
    assert values(small) == [99] and values(large) == list(range(1, 21))
    assert 99 in net.batches[2]


def test_batches_hold_images_for_one_net(start, net):
    batcher, other = start(), Echo()
    hold(batcher, net)
    futures = [batcher.submit(which, images(k)) for k, which in enumerate((net, other, net, other), 1)]
    net.open.set()
    assert [values(future) for future in futures] == [[1], [2], [3], [4]]
    assert net.batches == [[0], [1, 3]] and other.batches == [[2, 4]]


def test_full_queue_takes_nothing_of_a_request(start, net):
    batcher = start(most_waiting=5)
    hold(batcher, net)
    batcher.submit(net, images(1, 2, 3))
    with pytest.raises(Overloaded, match='3 images are waiting already, and at most 5 may'):
        batcher.submit(net, images(4, 5, 6))
    last = batcher.submit(net, images(7, 8))
    net.open.set()
    assert values(last) == [7, 8] and net.batches == [[0], [1, 2, 3, 7, 8]]


def test_net_that_fails_takes_no_other_batch_with_it(start, net):
    batcher = start(most_images=2)
    hold(batcher, net)
    bad, good = batcher.submit(net, images(255, 1, 2, 3)), batcher.submit(net, images(5))
    net.open.set()
    with pytest.raises(RuntimeError, match='no such pixel'):
        bad.result(10)
    assert values(good) == [5] and batcher.waiting == 0 and batcher.alive
    assert values(batcher.submit(net, images(6))) == [6]


def test_incomplete_batch_waits_for_requests_that_are_being_read(start, net):
    batcher = start(patience=5.0)
    with batcher.expecting():
        first = batcher.submit(net, images(1))
        time.sleep(0.05)
        assert not first.done()
        second = batcher.submit(net, images(2))
    assert values(first) == [1] and values(second) == [2] and net.batches == [[1, 2]]
    began = time.monotonic()
    assert values(batcher.submit(net, images(3))) == [3] and time.monotonic() - began < 4


def test_what_waits_is_answered_before_the_end(net):
    batcher = Batcher(most_images=1)
    hold(batcher, net)
    futures = [batcher.submit(net, images(k)) for k in range(5)]
    net.open.set()
    batcher.close()
    assert [values(future) for future in futures] == [[k] for k in range(5)] and not batcher.alive


def test_nothing_is_lost_or_mixed_up_among_many_threads(start):
    batcher, nets = start(most_images=7), [Echo(), Echo()]

    def ask(seed):
        rng = np.random.default_rng(seed)
        sent = rng.integers(0, 255, rng.integers(1, 12)).tolist()
        return sent, values(batcher.submit(nets[seed % 2], images(*sent)))

    with ThreadPoolExecutor(16) as pool:
        for sent, answered in pool.map(ask, range(400)):
            assert sent == answered
