"""Several processes that train as one run, over MXNet's distributed KVStore.

Workers train, each on its own devices with its own share of every batch. Servers add up what workers
push, and the scheduler connects all processes. Every process runs the same command and takes its role
from its environment (DMLC_ROLE and related variables), set by launch.py, Slurm or MPI. Processes send
heartbeats to the scheduler; when one falls silent all stop.
"""

import json
import math
import os
import signal
import sys
import zlib
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from training.errors import UserError
from training.machine import parameter_server
from training.machine.parameter_server import VECTORS

if TYPE_CHECKING:  # this module runs before mxnet may be imported
    from mxnet.gluon import Parameter

CONTROLLER = 0  # the one command to servers that reaches Python
BUCKET = 10**6  # gradients that travel together: few enough to overlap with the backward pass
STOP_DELAY = 4  # steps after which a request to stop is read back, without waiting for it


class Workers:
    """The workers of a run, as one of them sees them. A single process is its only worker.

    Parameters
    ----------
    kvstore : {'device', 'local', 'dist_sync', 'dist_device_sync', 'dist_async'}
        The first two are for a single process and say where its devices' gradients are added up.

    Attributes
    ----------
    rank, size : int
        Number of this worker, and how many there are.
    is_rank_zero : bool
        Whether this worker prints and writes the files.
    """

    def __init__(self, kvstore: str = 'device') -> None:
        self.kvstore, self.rank, self.size = kvstore, 0, 1
        self._store: Any = None
        self._next_key = 0
        self._vectors: dict[Any, int] = {}
        self._requests: deque = deque()
        self._shared: list[tuple[int, list[Parameter]]] = []  # lists of parameters with the first one's key
        if not self.distributed:
            return
        self._store = parameter_server.create(kvstore)
        self.rank, self.size = self._store.rank, self._store.num_workers
        parameter_server.wait_on_exit(self._store, False)
        self._watch = parameter_server.Watch(self._store)
        if self.asynchronous:
            self.tell_servers()

    @property
    def distributed(self) -> bool:
        return self.kvstore.startswith('dist')

    @property
    def asynchronous(self) -> bool:
        """Whether servers update the weights with each worker's gradients as they come."""
        return self.kvstore == 'dist_async'

    @property
    def is_rank_zero(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This worker's slice of `count` consecutive items; all shares together are all of them."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, values: ArrayLike) -> np.ndarray:
        """A float32 vector, added up over all workers; waits for them. Every worker must call it."""
        values = np.asarray(values, dtype=np.float32)
        if not self.distributed:
            return values
        from mxnet import nd

        if len(values) not in self._vectors:
            self._vectors[len(values)] = VECTORS + len(self._vectors)
            self._store.init(self._vectors[len(values)], nd.zeros(len(values)))
        key = self._vectors[len(values)]
        self._store.push(key, nd.array(values))
        if self.asynchronous:  # the server adds to what it holds: all in, all out, back to 0
            nd.waitall()
            self._store._barrier()
        total = nd.zeros(len(values))
        self._store.pull(key, out=total)
        result = total.asnumpy()
        if self.asynchronous:
            self._store._barrier()
            if self.is_rank_zero:
                self._store.push(key, -total)
                nd.waitall()
            self._store._barrier()
        return result

    def agree(self, value: str, complaint: str) -> None:
        """Check that `value`, a string, is the same on all workers.

        Raises
        ------
        UserError
            With the complaint, on every worker, if it is not.
        """
        digest = zlib.crc32(value.encode())
        halves = np.array([digest >> 16, digest & 0xFFFF])  # small enough to add up in float32
        if (self.sum(halves) != halves * self.size).any():
            raise UserError(complaint)

    def stop_requested(self, wanted: bool) -> bool:
        """Whether any worker wants to stop; all workers learn it at the same step.

        Call it once a step; `wanted` is whether this worker wants to stop. The answer comes a few steps
        late, so that no worker waits for it. Asynchronous workers have no common step, and each decides
        for itself.
        """
        if not self.distributed or self.asynchronous:
            return wanted
        from mxnet import nd

        if 'stop' not in self._vectors:
            self._vectors['stop'], self._stop = VECTORS + len(self._vectors), nd.zeros(1)
            self._store.init(self._vectors['stop'], self._stop)
        # One array for all steps, so that a push waits for the pull before it. Else the server may
        # take two pushes of one worker for those of two.
        self._stop[:] = float(wanted)
        self._store.push(self._vectors['stop'], self._stop)
        self._store.pull(self._vectors['stop'], out=self._stop)
        self._requests.append(self._stop.copy())
        return len(self._requests) > STOP_DELAY and self._requests.popleft().asscalar() > 0

    def end_steps(self) -> None:
        """Drop requests to stop that are still on their way, at the end of an epoch."""
        self._requests.clear()

    def start_from_rank_zero(self, parameters: 'list[Parameter]') -> int:
        """Give all workers rank 0's values of these parameters; return the first one's key.

        The servers keep a copy under one key for each, which is what asynchronous workers update.
        """
        from mxnet import nd

        first, self._next_key = self._next_key, self._next_key + len(parameters)
        keys = list(range(first, self._next_key))
        # From copies: init does not send an array that oneDNN keeps in a layout of its own.
        self._store.init(keys, [nd.array(parameter.list_data()[0].asnumpy()) for parameter in parameters])
        for key, parameter in zip(keys, parameters):
            self._store.pull(key, out=parameter.list_data())
        self._shared.append((first, parameters))
        return first

    def buckets(self, parameters: 'list[Parameter]') -> 'list[tuple[int, list[Parameter]]]':
        """Lists of parameters, last ones first, whose gradients travel together: (key, list)."""
        from mxnet import nd

        lists: list[list[Parameter]] = [[]]
        elements = 0
        sizes = {parameter.name: math.prod(parameter.shape) for parameter in parameters}
        for parameter in reversed(parameters):
            if lists[-1] and elements + sizes[parameter.name] > BUCKET:
                lists.append([])
                elements = 0
            lists[-1].append(parameter)
            elements += sizes[parameter.name]
        first, self._next_key = self._next_key, self._next_key + len(lists)
        keys = range(first, self._next_key)
        self._store.init(list(keys), [nd.zeros(sum(sizes[p.name] for p in members)) for members in lists])
        return list(zip(keys, lists))

    def add_up(self, buckets: 'list[tuple[int, list[Parameter]]]') -> None:
        """Replace gradients by their sum over all workers and devices."""
        from mxnet import nd

        for key, parameters in buckets:
            gradients = list(zip(*(parameter.list_grad() for parameter in parameters)))
            flat = [nd.concat(*(gradient.reshape(-1) for gradient in device), dim=0) for device in gradients]
            self._store.push(key, flat, priority=-key)
            self._store.pull(key, out=flat, priority=-key)
            for device, total in zip(gradients, flat):
                start = 0
                for gradient in device:
                    gradient[:] = total[start : start + gradient.size].reshape(gradient.shape)
                    start += gradient.size

    def update_on_servers(self, first_key: int, parameters: 'list[Parameter]') -> None:
        """Have the servers update the weights by these gradients, and fetch the weights.

        The gradients are the sums over this worker's devices, on each of them.
        """
        for key, parameter in enumerate(parameters, first_key):
            # Times 1, because push sends the raw memory of what oneDNN keeps in its own layouts.
            self._store.push(key, parameter.list_grad()[0] * 1, priority=-key)
            self._store.pull(key, out=parameter.list_data(), priority=-key)

    def catch_up(self) -> None:
        """Give asynchronous workers the same weights, after all have ended their steps."""
        for first_key, parameters in self._shared if self.asynchronous else ():
            for key, parameter in enumerate(parameters, first_key):
                self._store.pull(key, out=parameter.list_data())

    def tell_servers(self, **message: Any) -> None:
        """Set up the servers of asynchronous workers; rank 0 sends the message.

        Without keywords, servers update the weights from now on; `name` and what goes with it is their
        optimizer; `lr` is its new learning rate. All workers wait for the first two.
        """
        if self.is_rank_zero:
            self._store._send_command_to_servers(CONTROLLER, json.dumps(message))
        if 'lr' not in message:
            self._store._barrier()

    def leave(self, exit_code: int, together: bool = True) -> None:
        """End this worker's process: together with all others, or at once if something failed."""
        sys.stdout.flush()
        sys.stderr.flush()
        if together and exit_code in (0, 128 + signal.SIGINT, 128 + signal.SIGTERM):
            self._store._barrier()
            self._watch.end()
            parameter_server.wait_on_exit(self._store, True)
            self._store.__del__()
        os._exit(exit_code)  # mxnet's own exit could wait forever
