"""Start the processes of a distributed run, here or on other machines, and end them together.

    python launch.py --workers 2 train_cifar.py --version fast --kvstore dist_sync
    python launch.py --workers 4 --hosts node1,node2 train_cifar.py --kvstore dist_sync

It sets the environment variables of MXNet's parameter server and runs the same command as
scheduler, server and worker. On other machines it does so over ssh, in the same folder and with the
same Python. If one process fails the others are stopped; Ctrl-C lets the workers write a
checkpoint.
"""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from training import errors
from training.config.options import Parser
from training.errors import UserError
from training.machine import devices
from training.machine.parameter_server import ENVIRONMENT, HEARTBEAT

GRACE = 10  # seconds between asking a process to stop and ending it
# Passed to other machines, in addition to ENVIRONMENT.
PASSED_ON = (devices.PLACE, errors.ECHO, 'OMP_NUM_THREADS', 'MXNET_HOME', 'NVIDIA_TF32_OVERRIDE', *HEARTBEAT)
LOCAL = 'localhost'


@dataclass
class Member:
    """One process of the run."""

    role: str
    name: str
    process: subprocess.Popen
    is_remote: bool

    def signal(self, number: int) -> None:
        """Send a signal; SIGINT reaches another machine through the terminal that ssh opened there."""
        if self.process.poll() is not None:
            return
        if self.is_remote and number == signal.SIGINT:
            self.process.stdin.write(b'\x03')
            self.process.stdin.flush()
        else:
            self.process.send_signal(number)


def start(role: str, number: int, host: str, command: list[str], environment: dict[str, str]) -> Member:
    """Start one process, here or over ssh."""
    environment = dict(environment, DMLC_ROLE=role)
    if host == LOCAL:
        process = subprocess.Popen(command, env=dict(os.environ, **environment), start_new_session=True)
    else:
        passed = {
            name: environment.get(name, os.environ.get(name))
            for name in ('DMLC_ROLE', *ENVIRONMENT, *PASSED_ON)
        }
        words = [f'{name}={value}' for name, value in passed.items() if value is not None]
        remote = f'cd {shlex.quote(os.getcwd())} && exec env {shlex.join([*words, *command])}'
        words = ['ssh', '-tt', '-o', 'BatchMode=yes', host, remote]
        with errors.naming(f'--hosts {host}: ssh'):
            process = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
    return Member(role, f'{role} {number} on {host}', process, host != LOCAL)


def watch(members: list[Member]) -> int:
    """Wait until all workers have finished or one process has failed; return the exit code."""
    workers = [member for member in members if member.role == 'worker']
    while any(member.process.poll() != 0 for member in workers):
        for member in members:
            code = member.process.poll()
            if code:
                return failure(member, code, members)
        time.sleep(0.2)
    return 0


def failure(member: Member, code: int, members: list[Member]) -> int:
    """Wait for the other workers if one was told to stop, else report its failure; return the exit code."""
    stopped = 128 + signal.SIGINT, 128 + signal.SIGTERM
    if member.role == 'worker' and code in stopped:
        deadline = time.monotonic() + GRACE
        for other in members:
            if other.role == 'worker':
                wait(other, deadline)
        return code
    if code == 2:  # a mistake in the command, which the process has reported
        return code
    how = f'was ended by signal {-code}' if code < 0 else f'ended with code {code}'
    print(
        f'{member.name} {how}; stopping the others. If a checkpoint was written, continue from it with '
        '--resume',
        file=sys.stderr,
    )
    return code if code > 0 else 128 - code


def wait(member: Member, deadline: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        member.process.wait(max(0.0, deadline - time.monotonic()))


def end(members: list[Member]) -> None:
    """Stop all processes that still run."""
    for member in members:
        member.signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    for member in members:
        wait(member, deadline)
        if member.process.poll() is None:
            member.process.kill()
            member.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('', 0))
        return probe.getsockname()[1]


def address_towards(host: str) -> str:
    """This machine's address as seen from `host`."""
    if host == LOCAL:
        return '127.0.0.1'
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host.rpartition('@')[2], 22))
            return probe.getsockname()[0]
    except OSError as error:
        raise UserError(
            f'--hosts {host}: {error.strerror or error}; if ssh knows the host by this name, '
            "give this machine's --address"
        ) from None


def resolved(address: str) -> str:
    """The IP address, for the scheduler to listen at, of an address or name of this machine."""
    try:
        return socket.gethostbyname(address)
    except OSError as error:
        raise UserError(
            f'--address {address}: {error.strerror or error}; expected an address or name of this machine'
        ) from None


def main(argv: list[str]) -> int:
    parser = Parser(__doc__)
    parser.add_argument('--workers', type=int, required=True, help='number of processes that train')
    parser.add_argument(
        '--servers', type=int, default=1, help='number of processes that add up gradients (default 1)'
    )
    parser.add_argument(
        '--hosts',
        default=LOCAL,
        help='machines for workers and servers, in turn, separated by commas; default: this one',
    )
    parser.add_argument('--address', help='of this machine, as the others reach it')
    parser.add_argument(
        'command',
        nargs=argparse.REMAINDER,
        help="script and its options; after -- if it is one of Python's own, such as -m",
    )
    options = parser.parse_args(argv)
    for name in ('workers', 'servers'):
        if getattr(options, name) < 1:
            raise UserError(f'--{name} {getattr(options, name)}: must be at least 1')
    if not options.command:
        raise UserError('no script to run; expected one such as train_cifar.py --kvstore dist_sync')
    hosts = [host.strip() for host in options.hosts.split(',') if host.strip()]
    if not hosts:
        raise UserError(f'--hosts {options.hosts}: expected names separated by commas')

    farthest = next((host for host in hosts if host != LOCAL), LOCAL)
    address = resolved(options.address) if options.address else address_towards(farthest)
    environment = {
        'DMLC_PS_ROOT_URI': address,
        'DMLC_PS_ROOT_PORT': str(free_port()),
        'DMLC_NUM_WORKER': str(options.workers),
        'DMLC_NUM_SERVER': str(options.servers),
    }
    if farthest == LOCAL:  # other network interfaces are not needed
        environment['DMLC_NODE_HOST'] = address
    command = [sys.executable, *options.command[options.command[0] == '--' :]]
    members: list[Member] = []

    def pass_on(number: int, _: Any) -> None:
        for member in members:
            if member.role == 'worker':  # a lost terminal stops these too
                local = signal.SIGTERM if number == signal.SIGHUP else number
                member.signal(
                    signal.SIGINT if member.is_remote else local
                )  # the only signal that ssh passes on

    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if ending != signal.SIGHUP or signal.getsignal(ending) != signal.SIG_IGN:  # as under nohup
            signal.signal(ending, pass_on)
    try:
        members.append(start('scheduler', 0, LOCAL, command, {**environment, errors.ECHO: '1'}))
        for role, count in (('server', options.servers), ('worker', options.workers)):
            on = [hosts[number % len(hosts)] for number in range(count)]
            for number, host in enumerate(on):
                places = {devices.PLACE: f'{on[:number].count(host)}/{on.count(host)}'}
                if role == 'server' or number > 0:
                    places[errors.ECHO] = '1'
                members.append(start(role, number, host, command, {**environment, **places}))
        return watch(members)
    finally:
        end(members)


if __name__ == '__main__':
    errors.exit_with(main)
