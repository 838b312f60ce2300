"""How far a run is: a bar on a terminal, a line every 30 seconds elsewhere."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Callable

from tqdm import tqdm

from training.loop.epoch import STEPS_IN_FLIGHT

SECONDS_BETWEEN_LINES = 30
# The first steps trace graphs and take memory, and until STEPS_IN_FLIGHT are under way they count as
# done when they have only begun.
STEPS_LEFT_OUT = STEPS_IN_FLIGHT + 2
STEPS_BEFORE_ESTIMATE, SECONDS_BEFORE_ESTIMATE = 10, 3
SHORTEST_ESTIMATE = 60


class Progress:
    """What a run prints between its epochs' ends.

    Parameters
    ----------
    work : sequence of float
        For each epoch of the run, validation included, what it takes: in images of one size.
    quiet : bool
        Whether to print nothing, as workers other than rank 0 do.
    """

    def __init__(self, work: Sequence[float], quiet: bool = False) -> None:
        self._work, self._quiet, self._estimated = work, quiet, False

    @contextmanager
    def epoch(self, number: int, images: int, done: int, weight: float) -> Iterator[Callable[[int], None]]:
        """A context for what is left of an epoch.

        Parameters
        ----------
        number : int
            The epoch, counted from 0.
        images, done : int
            All of its images, and those of earlier steps.
        weight : float
            What one of them takes, in the unit of `work`.

        Returns
        -------
        callable
            To be called after each step, with its number of images.
        """
        name, first, steps = f'epoch {number + 1}/{len(self._work)}', done, 0
        warm = last_line = time.perf_counter()
        rate = 0.0
        with tqdm(
            total=images,
            initial=done,
            desc=name,
            unit=' images',
            disable=True if self._quiet else None,
            leave=False,
        ) as bar:

            def update(count: int) -> None:
                nonlocal done, steps, first, warm, last_line, rate
                done, steps, now = done + count, steps + 1, time.perf_counter()
                bar.update(count)
                if steps == STEPS_LEFT_OUT:
                    first, warm = done, now
                if self._quiet or steps < STEPS_BEFORE_ESTIMATE or now - warm < SECONDS_BEFORE_ESTIMATE:
                    return
                rate = (done - first) / (now - warm)
                left = (images - done) / rate
                whole = left + sum(self._work[number + 1 :]) / (rate * weight)
                if not self._estimated:
                    self._estimated = True
                    if whole > SHORTEST_ESTIMATE:
                        tqdm.write(f'about {duration(whole)} to go on this machine, at {rate:.0f} images/s')
                if bar.disable and now - last_line > SECONDS_BETWEEN_LINES:
                    last_line = now
                    print(
                        f'{name}: {done} of {images} images, {rate:.0f} images/s, {duration(left)} left, '
                        f'{duration(whole)} to the end of the run',
                        flush=True,
                    )

            yield update


def duration(seconds: float) -> str:
    """Seconds in words: '45 s', '12 min', '3 h 20 min'."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 90 else f'{minutes // 60} h {minutes % 60} min'
