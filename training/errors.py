"""A user's mistake is one line and exit code 2; a mistake of ours is a traceback."""

import os
import sys
import time
import traceback

ECHO = 'GMLOSS_ECHO'  # set by launch.py in all processes but the first worker
PATIENCE = 5  # seconds in which the first worker finds a mistake that all have found
departure = None  # called at the end, if set, as departure(code, together): how a run is left


class UserError(Exception):
    """A mistake of the user's: shown as one line, exit code 2."""


def exit_with(main):
    """Run `main(argv)` and leave the process: a UserError is one line and exit code 2.

    So is a file or folder that cannot be read or written and that nothing has explained better.
    Ctrl-C outside of the training is exit code 130 and no traceback.
    """
    together = True
    try:
        code = main(sys.argv[1:])
    except UserError as error:
        code = complain(error)
    except KeyboardInterrupt:  # the others may be anywhere, and not come to a common end
        code, together = 130, False
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            code = complain(f'{error.filename}: {error.strerror}')
        elif departure is None:
            raise
        else:
            traceback.print_exc()
            code = 1
    if departure is not None:
        departure(code, together)
    sys.exit(code)


def complain(error):
    """Say what was wrong, and return exit code 2."""
    if ECHO in os.environ:  # most likely the first worker says the same, and launch.py ends this one
        time.sleep(PATIENCE)
    print(f'error: {error}', file=sys.stderr)
    return 2
