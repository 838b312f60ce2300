"""A process that draws figures while training goes on."""

import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from typing import Any, Callable


def _leave_ending_to_parent() -> None:
    """Outlive Ctrl-C, which is for the training, but not a training that is killed."""

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=follow, daemon=True).start()


class BackgroundPlots:
    """Draws in a process of its own, one figure at a time, so that training does not wait."""

    def __init__(self) -> None:
        self._pool = self._new_pool()
        self._pending: list[Future] = []

    @staticmethod
    def _new_pool() -> Executor:
        # Spawned, not forked: mxnet's threads do not survive a fork.
        return ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), _leave_ending_to_parent)

    def submit(self, draw: Callable, *arguments: Any) -> None:
        """Call `draw(*arguments)` over there; both must be picklable."""
        self._report([future for future in self._pending if future.done()])
        self._pending = [future for future in self._pending if not future.done()]
        try:
            self._pending.append(self._pool.submit(draw, *arguments))
        except BrokenExecutor:  # its process was killed: another one for this figure
            self._pool = self._new_pool()
            self._pending.append(self._pool.submit(draw, *arguments))

    def __enter__(self) -> 'BackgroundPlots':
        return self

    def __exit__(self, *_: Any) -> None:
        """Wait for what has been submitted."""
        self._pool.shutdown()
        self._report(self._pending)

    @staticmethod
    def _report(futures: list[Future]) -> None:
        """No training should end for the sake of a figure: what went wrong is one line."""
        for future in futures:
            if future.exception() is not None:
                print(f'a figure could not be drawn: {future.exception()}', file=sys.stderr)
