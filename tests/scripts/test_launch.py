"""The launcher: its options, its members on this and other machines, and their end."""

import json
import os
import signal
import subprocess
import time

import pytest
from members import MNIST, running_commands, start, wait_for
from small_runs import run_fields

import launch
from training import errors
from training.errors import UserError
from training.machine import devices, parameter_server


def test_what_a_member_on_another_machine_is_told(monkeypatch):
    commands = []
    monkeypatch.setattr(launch.subprocess, 'Popen', lambda words, **_: commands.append(words))
    for name, value in (('MXNET_HOME', '/data sets'), ('PS_HEARTBEAT_TIMEOUT', '9')):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    environment = {**dict.fromkeys(parameter_server.ENVIRONMENT, '1'), devices.PLACE: '1/2'}
    launch.start('worker', 1, 'node', ['python', 'a b.py'], environment)
    remote = commands[0][-1]
    assert commands[0][0] == 'ssh' and 'node' in commands[0]
    assert remote.startswith(f'cd {os.getcwd()} && exec env ') and remote.endswith("python 'a b.py'")
    for part in (
        'DMLC_ROLE=worker',
        'DMLC_NUM_WORKER=1',
        f'{devices.PLACE}=1/2',
        "'MXNET_HOME=/data sets'",
        'PS_HEARTBEAT_TIMEOUT=9',
    ):
        assert part in remote
    assert 'OMP_NUM_THREADS' not in remote


@pytest.mark.parametrize(
    'words, message',
    [
        (('--workers', '0', 'x.py'), '--workers 0'),
        (('--workers', '2'), 'no script to run'),
        (('--workers', '1', '--hosts', ',', 'x.py'), '--hosts ,'),
    ],
)
def test_launcher_mistakes_are_one_clear_line(run_script, words, message):
    result = run_script('launch.py', *words)
    assert result.returncode == 2 and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    'words, message', [(('--lrr', 3), 'error: --lrr: unknown option'), ((), 'error: DMLC_ROLE is worker')]
)
def test_mistakes_in_the_launched_command_are_one_clear_line(run_script, words, message):
    result = run_script('launch.py', '--workers', 2, 'train_cifar.py', *words)
    assert result.returncode == 2 and result.stderr.startswith(message)
    assert len(result.stderr.strip().splitlines()) == 1


def test_address_may_be_a_name_and_is_refused_where_it_is_none():
    assert launch.resolved('localhost') == '127.0.0.1' == launch.resolved('127.0.0.1')
    for words, message in (
        ('--address no-such-host.invalid', '--address no-such-host.invalid: '),
        ('--hosts no-such-host.invalid', "give this machine's --address"),
    ):
        with pytest.raises(UserError, match=message):
            launch.main(['--workers', '1', *words.split(), 'x.py'])


@pytest.mark.parametrize(
    'hosts, asked',
    [('localhost, node2', 'node2'), ('me@node1,localhost', 'me@node1'), ('localhost', 'localhost')],
)
def test_address_is_the_one_that_other_hosts_see(monkeypatch, hosts, asked):
    told = []
    monkeypatch.setattr(launch, 'address_towards', lambda host: f'seen from {host}')
    monkeypatch.setattr(launch, 'start', lambda *member: told.append(member))
    monkeypatch.setattr(launch, 'watch', len)
    monkeypatch.setattr(launch, 'end', lambda members: None)
    monkeypatch.setattr(launch.signal, 'signal', lambda *_: None)
    assert launch.main(['--workers', '3', '--hosts', hosts, 'x.py']) == 5
    assert {member[-1]['DMLC_PS_ROOT_URI'] for member in told} == {f'seen from {asked}'}
    assert {member[-1].get('DMLC_NODE_HOST') for member in told} == {
        'seen from localhost' if hosts == 'localhost' else None
    }
    places = [
        (host, environment[devices.PLACE]) for role, _, host, _, environment in told if role == 'worker'
    ]
    first, second = hosts.replace(' ', '').split(',') if ',' in hosts else (hosts, None)
    assert places == (
        [(first, '0/2'), (second, '0/1'), (first, '1/2')]
        if second
        else [(first, f'{number}/3') for number in range(3)]
    )
    assert [errors.ECHO in member[-1] for member in told] == [True, True, False, True, True]


UNEVEN = """
import sys, time
from training import errors
from training.machine import cluster, devices, parameter_server
if parameter_server.check_environment('dist_sync'):
    parameter_server.serve(None)
devices.prepare('cpu')
def main(_):
    workers = cluster.Workers('dist_sync')
    errors.departure = workers.leave
    open(f'{sys.argv[1]}/{workers.rank}', 'w')
    if workers.rank == 0:
        workers.sum([0])
    time.sleep(600)
errors.exit_with(main)
"""


SLEEPER = """
import os, sys, time
open(f'{sys.argv[1]}/{os.environ["DMLC_ROLE"]}', 'w')
time.sleep(600)
"""


def test_wait_for_a_script_that_ends_early_ends_its_processes(run_script, tmp_path, monkeypatch):
    def communicate(process, timeout):
        for role in 'scheduler', 'server', 'worker':
            wait_for(tmp_path / role, process)
        raise subprocess.TimeoutExpired(process.args, timeout)

    monkeypatch.setattr(subprocess.Popen, 'communicate', communicate)
    with pytest.raises(subprocess.TimeoutExpired):
        run_script('launch.py', '--workers', 1, '--', '-c', SLEEPER, tmp_path)
    deadline = time.monotonic() + 30
    while any(str(tmp_path) in command for command in running_commands()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_before_the_training_ends_workers_that_wait_for_each_other(tmp_path):
    process = start('launch.py', '--workers', 2, '--', '-c', UNEVEN, tmp_path)
    for rank in '01':
        wait_for(tmp_path / rank, process)
    time.sleep(1)  # for the first to be waiting in its sum
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors


@pytest.mark.parametrize('hangup, code', [(signal.SIG_IGN, 0), (signal.SIG_DFL, 143)])
def test_run_under_nohup_outlives_the_terminal(tmp_path, hangup, code):
    process = start(
        'launch.py',
        '--workers',
        1,
        '--',
        '-c',
        f'import pathlib, time; pathlib.Path("{tmp_path}/begun").touch(); time.sleep(2)',
        hangup=hangup,
    )
    wait_for(tmp_path / 'begun', process)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_remote_workers_are_stopped_through_their_terminal(tmp_path, number):
    """Whatever ends the launcher: a signal to ssh itself would cut them off without a checkpoint."""
    stand_in = tmp_path / 'ssh'
    stand_in.write_text(f"""#!/bin/bash
trap "" INT
[[ $5 == *DMLC_ROLE=worker* ]] || exec sleep 60
touch {tmp_path}/begun
read -rN1 key
[[ $key == $'\\x03' ]] && touch {tmp_path}/asked
exit 130
""")
    stand_in.chmod(0o755)
    process = start(
        'launch.py',
        '--workers',
        1,
        '--hosts',
        'node1',
        '--address',
        '127.0.0.1',
        '--',
        '-c',
        'import time; time.sleep(60)',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
    )
    wait_for(tmp_path / 'begun', process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert (tmp_path / 'asked').exists()


def test_remote_members_are_started_over_ssh(tmp_path, run_script):
    """A stand-in for ssh notes the host and runs the command here."""
    stand_in = tmp_path / 'ssh'
    stand_in.write_text(f'#!/bin/bash\necho "$4" >> {tmp_path}/hosts\nexec bash -c "$5"\n')
    stand_in.chmod(0o755)
    result = run_script(
        'launch.py',
        '--workers',
        2,
        '--hosts',
        'node1,node2',
        '--address',
        '127.0.0.1',
        *MNIST,
        '--num-samples',
        128,
        '--batch-size',
        32,
        '--kvstore',
        'dist_async',
        '--version',
        'softmax',
        '--output-dir',
        tmp_path / 'run',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
    )
    assert result.returncode == 0, result.stderr
    assert sorted((tmp_path / 'hosts').read_text().split()) == ['node1', 'node1', 'node2']
    assert len(run_fields(tmp_path / 'run')) == 2
    assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['epochs'] == 2
