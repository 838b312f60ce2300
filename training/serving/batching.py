"""Images of many requests through the nets together, on one thread."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from training.serving.predictor import Predictions, Predictor

Answer = tuple[Predictions, int]  # of one image: those of its batch, and its number among them


class Overloaded(Exception):
    """More images wait than the queue holds."""


@dataclass(eq=False)
class _Job:
    predictor: Predictor
    images: list[np.ndarray]
    future: 'Future[list[Answer]]' = field(default_factory=Future)
    answers: list[Answer] = field(default_factory=list)
    started: int = 0  # images that have gone into a batch


class Batcher:
    """The thread on which all nets run, and its queue.

    A batch holds images for one net, of as many requests as there are. A large request goes back to
    the end of the queue after each batch, so that it does not hold up small ones.

    Parameters
    ----------
    most_images : int
        Of a batch.
    most_waiting : int
        Images in the queue.
    patience : float
        Seconds that an incomplete batch waits for requests that are being read; see `expecting`.
    """

    def __init__(self, most_images: int = 32, most_waiting: int = 1024, patience: float = 0.002) -> None:
        self._most_images, self._most_waiting, self._patience = most_images, most_waiting, patience
        self._jobs: list[_Job] = []
        self._waiting = self._expected = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name='net', daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._waiting

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """A context in which a request is read that may be submitted at its end."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify()

    def submit(self, predictor: Predictor, images: list[np.ndarray]) -> 'Future[list[Answer]]':
        """Have images, uint8 (channels, height, width) each, go through a net; at least one.

        Returns
        -------
        Future of list of (Predictions, int)
            Image by image the predictions of its batch, and its number among them. Holds the
            exception if the net raised one.

        Raises
        ------
        Overloaded
            If the queue has no room for all of them; none is taken then.
        """
        job = _Job(predictor, images)
        with self._changed:
            if self._waiting + len(images) > self._most_waiting:
                raise Overloaded(
                    f'{self._waiting} images are waiting already, and at most {self._most_waiting} may'
                )
            self._jobs.append(job)
            self._waiting += len(images)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """End the thread once the queue is empty, and wait for that."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                predictions = batch[0][0].predictor(np.stack([image for _, image in batch]))
            except Exception as error:  # of ours: the requests' handlers report it
                for job in {id(job): job for job, _ in batch}.values():
                    self._give_up(job, error)
                continue
            for number, (job, _) in enumerate(batch):
                job.answers.append((predictions, number))
                if len(job.answers) == len(job.images):
                    job.future.set_result(job.answers)

    def _next_batch(self) -> list[tuple[_Job, np.ndarray]]:
        """Wait for images; an empty list at the end."""
        with self._changed:
            while not self._jobs and not self._closing:
                self._changed.wait()
            end = time.monotonic() + self._patience
            while self._expected and self._waiting < self._most_images and end > time.monotonic():
                self._changed.wait(end - time.monotonic())
            batch: list[tuple[_Job, np.ndarray]] = []
            others, rest = [], []
            for job in self._jobs:
                room = self._most_images - len(batch)
                if not room or (batch and job.predictor is not batch[0][0].predictor):
                    others.append(job)
                    continue
                part = job.images[job.started : job.started + room]
                batch += [(job, image) for image in part]
                job.started += len(part)
                if job.started < len(job.images):
                    rest.append(job)
            self._jobs = others + rest
            self._waiting -= len(batch)
            return batch

    def _give_up(self, job: _Job, error: Exception) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= len(job.images) - job.started
        job.future.set_exception(error)
