"""A user's mistake is one line and exit code 2; a mistake of ours is a traceback."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Callable, Optional

ECHO = 'GMLOSS_ECHO'  # set by launch.py in all processes but the first worker
PATIENCE = 5  # seconds in which the first worker finds a mistake that all have found
# How a run is left, if set: called at the end as departure(code, together).
departure: Optional[Callable[[int, bool], None]] = None


class UserError(Exception):
    """A mistake of the user's: shown as one line, exit code 2."""


class Terminated(KeyboardInterrupt):
    """SIGTERM in a context of `unwinding`."""


@contextmanager
def unwinding() -> Iterator[None]:
    """A context that SIGTERM leaves as Ctrl-C does: temporary files and child processes are cleaned up."""

    def stop(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # only that one may set a handler
        yield
        return
    kept = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, kept)


@contextmanager
def naming(path: object, advice: str = '') -> Iterator[None]:
    """A context in which an OSError is the user's mistake: a UserError about a path that the user gave.

    Parameters
    ----------
    path : str or Path
    advice : str
        What to do about it, for the end of the line.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f'{path}: {error.strerror or error}{advice}') from None


def exit_with(main: Callable[[list], int]) -> None:
    """Run `main(argv)` and leave the process: a UserError is one line and exit code 2.

    Ctrl-C and SIGTERM outside of the training are exit code 130 or 143 and no traceback.
    """
    together = True
    waits_for_others = 'DMLC_ROLE' in os.environ  # in calls that no exception ends
    try:
        with nullcontext() if waits_for_others else unwinding():
            code = main(sys.argv[1:])
    except UserError as error:
        code = complain(error)
    except KeyboardInterrupt as stop:  # the others may be anywhere, and not come to a common end
        number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        code, together = 128 + number, False
    except Exception:
        if departure is None:
            raise
        traceback.print_exc()
        code = 1
    if departure is not None:
        departure(code, together)
    sys.exit(code)


def complain(error: object) -> int:
    """Say what was wrong, and return exit code 2."""
    if ECHO in os.environ:  # most likely the first worker says the same, and launch.py ends this one
        time.sleep(PATIENCE)
    print(f'error: {error}', file=sys.stderr)
    return 2
