"""MXNet's parameter server: how a process joins it, serves in it, and watches it."""

import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any, Callable, Optional

from training.errors import ECHO, UserError
from training.machine.devices import import_mxnet, share_cores

ENVIRONMENT = 'DMLC_ROLE', 'DMLC_PS_ROOT_URI', 'DMLC_PS_ROOT_PORT', 'DMLC_NUM_WORKER', 'DMLC_NUM_SERVER'
HEARTBEAT = {'PS_HEARTBEAT_INTERVAL': '5', 'PS_HEARTBEAT_TIMEOUT': '60'}  # seconds
JOIN_TIMEOUT = 300  # seconds until a process stops waiting for the others to join
ALL_NODES = 7  # ps-lite's group of scheduler, servers and workers
VECTORS = 1_000_000  # keys from this one on are vectors to add up, those below are parameters


def check_environment(kvstore: str) -> bool:
    """Whether this process is a server or the scheduler of a distributed run.

    Raises
    ------
    UserError
        If the environment contradicts --kvstore.
    """
    role, distributed = os.environ.get('DMLC_ROLE'), kvstore.startswith('dist')
    if role and not distributed:
        raise UserError(
            f'DMLC_ROLE is {role}, but --kvstore {kvstore} is not distributed; '
            'use --kvstore dist_sync, or unset DMLC_ROLE'
        )
    missing = [name for name in ENVIRONMENT if not os.environ.get(name)]
    if distributed and missing:
        raise UserError(
            f'--kvstore {kvstore}: {", ".join(missing)} must be set; start the run with launch.py, '
            'or use --kvstore device for a single process'
        )
    if distributed and role not in ('worker', 'server', 'scheduler'):
        raise UserError(f'DMLC_ROLE is {role}: expected worker, server or scheduler')
    return distributed and role != 'worker'


def create(kvstore: str) -> Any:
    """The KVStore of this process, once all processes have joined; it sends heartbeats."""
    for name, value in HEARTBEAT.items():
        os.environ.setdefault(name, value)

    def give_up() -> None:
        print(
            'error: not all processes of the run have joined at {DMLC_PS_ROOT_URI}:{DMLC_PS_ROOT_PORT} '
            f'within {JOIN_TIMEOUT} seconds; check that all were started and can reach this '
            'address'.format(**os.environ),
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    import mxnet as mx

    timer = threading.Timer(JOIN_TIMEOUT, give_up)
    timer.daemon = True
    timer.start()
    store = mx.kv.create(kvstore)
    timer.cancel()
    return store


def wait_on_exit(store: Any, wait: bool) -> None:
    """Whether the end of a store is to wait for that of all others; see `Workers.leave`."""
    from mxnet.base import _LIB, check_call

    check_call(_LIB.MXKVStoreSetBarrierBeforeExit(store.handle, ctypes.c_int(wait)))


class Watch(threading.Thread):
    """Ends the process when another one has fallen silent, for which it would wait forever.

    The scheduler sees the heartbeats of all others, and these see the scheduler's. mxnet goes by the
    wall clock, so that after a machine's sleep or a change of its clock all seem silent at first:
    only silence that outlasts two heartbeats counts.
    """

    def __init__(self, store: Any) -> None:
        super().__init__(daemon=True)
        self._store, self._ended = store, threading.Event()
        self.start()

    def run(self) -> None:
        from mxnet.base import _LIB, check_call

        interval, timeout = (int(os.environ[name]) for name in HEARTBEAT)
        silent, seconds = ctypes.c_int(), 0
        while not self._ended.wait(1):
            check_call(
                _LIB.MXKVStoreGetNumDeadNode(self._store.handle, ALL_NODES, ctypes.byref(silent), timeout)
            )
            seconds = seconds + 1 if silent.value else 0
            if seconds > 2 * interval:
                print(
                    f'error: another process of this run has been silent for {timeout} seconds; '
                    'stopped. If a checkpoint was written, continue from it with --resume',
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(1)

    def end(self) -> None:
        self._ended.set()
        self.join()


def serve(make_optimizer: Optional[Callable]) -> None:
    """Run as a server or the scheduler until all workers have left, then end the process.

    Parameters
    ----------
    make_optimizer : callable
        Makes the Optimizer of asynchronous workers from the keywords of `Workers.tell_servers`.
    """
    role = os.environ['DMLC_ROLE']
    os.environ['DMLC_ROLE'] = 'worker'  # else mxnet would serve during its import, without a Watch
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the workers
    if ECHO not in os.environ:  # Slurm and MPI signal all processes, and workers still need the servers
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    share_cores()
    mx = import_mxnet()
    from mxnet.kvstore.kvstore_server import KVStoreServer

    os.environ['DMLC_ROLE'] = role

    class Server(KVStoreServer):
        updater: Any = None

        def _controller(self) -> Callable:
            return lambda command, body, _: self.obey(json.loads(body))

        def obey(self, message: dict[str, Any]) -> None:
            if 'lr' in message:
                self.updater.optimizer.set_learning_rate(message['lr'])
            elif message:
                self.updater = mx.optimizer.get_updater(make_optimizer(**message))
            else:
                self.kvstore._set_updater(self.update)

        def update(self, key: int, pushed: Any, stored: Any) -> None:
            if key >= VECTORS:
                stored += pushed
            else:
                self.updater(key, pushed, stored)

    store = create('dist_sync')
    watch = Watch(store)
    Server(store).run()
    watch.end()
    os._exit(0)
