"""Distributed runs: real schedulers, servers and workers on loopback."""

import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from members import MNIST, children, start, start_without_launcher, wait_for
from mxnet import nd
from photos import write_set
from small_runs import run_fields

from training.runs.folder import RunFolder

pytestmark = pytest.mark.usefixtures('no_figures')


def assert_weights_are_close(folder, wanted, rtol, atol):
    """Compare the last weights of two run folders."""
    found, wanted = (nd.load(str(run / 'last.params')) for run in (folder, wanted))
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name].asnumpy(), array.asnumpy(), rtol=rtol, atol=atol, err_msg=name)


def test_two_workers_end_where_one_process_with_the_same_batch_ends(run_script, run_here, tmp_path):
    """LeNet++ has no BatchNorm, so that all that differs is the order of the sums.

    Its LeakyReLUs and max pools turn a difference of one float32 step into another slope or another
    pixel: one device, whose kernels add up 64 images, is 1e-5 away from four with 16 each after ten
    steps. So weights are compared with one process whose four devices get the workers' parts.
    """
    words = (*MNIST, '--num-samples', 640, '--epochs', 1, '--version', 'softmax-center')
    four, one, two = tmp_path / 'four', tmp_path / 'one', tmp_path / 'two'
    for folder, device, batch_size in (one, 'cpu', 64), (four, 'cpu:0,1,2,3', 16):
        command = (*words[1:], '--batch-size', batch_size, '--device', device, '--output-dir', folder)
        assert run_here('train_mnist', *command) == 0
    launch = ('launch.py', '--workers', 2, '--servers', 2)
    parts = ('--batch-size', 16, '--device', 'cpu:1,2', '--kvstore', 'dist_sync')
    result = run_script(*launch, *words, *parts, '--output-dir', two)
    assert result.returncode == 0, result.stderr
    assert '2 workers (dist_sync)' in result.stdout
    assert result.stdout.count('epoch   1') == 1, 'only rank 0 prints'
    (second,) = run_fields(two)
    for (first,) in run_fields(one), run_fields(four):
        assert float(second['train_loss']) == pytest.approx(float(first['train_loss']), rel=1e-5)
        assert second['train_acc'] == first['train_acc'] and second['val_acc'] == first['val_acc']
    assert_weights_are_close(two, four, rtol=0, atol=1e-5)


def test_two_workers_share_images_of_ones_own_as_two_devices_do(run_script, run_here, tmp_path, cifar):
    """Each reads and normalises its half of every batch; BatchNorms see that half in both."""
    folder = write_set(tmp_path / 'photos', cifar)
    words = (*('--data-dir', folder, '--version', 'scratch-small', '--model', 'mobilenet0.25'),
             *('--image-size', 32, '--batch-size', 9, '--epochs', 2, '--warmup', 'none', '--lr', 0.01),
             *('--hard-share', 0.3, '--hard-epochs', 1),
             *('--jitter', 0.2, '--loss', 'softmax', '--dtype', 'float32', '--output-dir'))  # fmt: skip
    one, two = tmp_path / 'one', tmp_path / 'two'
    assert run_here('train_images', *words, one, '--device', 'cpu:0,1') == 0
    launch = ('launch.py', '--workers', 2, 'train_images.py')
    result = run_script(*launch, *words, two, '--kvstore', 'dist_sync', '--device', 'cpu')
    assert result.returncode == 0, result.stderr
    assert '2 workers (dist_sync)' in result.stdout
    for first, second in zip(run_fields(one), run_fields(two)):
        assert float(second['train_loss']) == pytest.approx(float(first['train_loss']), rel=1e-5)
        assert second['train_acc'] == first['train_acc'] and second['val_acc'] == first['val_acc']
    assert_weights_are_close(two, one, rtol=1e-4, atol=1e-5)


AGREEMENT = """
from training.machine import cluster, devices, parameter_server
if parameter_server.check_environment('dist_sync'):
    parameter_server.serve(None)
devices.prepare('cpu')
workers, steps = cluster.Workers('dist_sync'), []
for number in range(40):
    step = 0
    while not workers.stop_requested(step >= 20 + number % 7 * workers.rank):
        step += 1
    workers.end_steps()
    workers.sum([0])
    steps.append(step)
print(f'{steps}\\n', end='', flush=True)  # in one write, as both workers share the pipe
workers.leave(0)
"""


def test_workers_without_work_stop_at_the_same_steps(run_script):
    """Nothing but the agreement itself keeps them together here."""
    result = run_script('launch.py', '--workers', 2, '--', '-c', AGREEMENT)
    assert result.returncode == 0, result.stderr
    first, second = map(json.loads, result.stdout.splitlines())
    assert first == second and len(first) == 40


def test_asynchronous_worker_alone_ends_where_one_process_ends(run_script, run_here, tmp_path):
    one, other = tmp_path / 'one', tmp_path / 'other'
    words = (*MNIST, '--version', 'softmax', '--batch-size', 32, '--decay-epochs', 1)
    assert run_here('train_mnist', *words[1:], '--output-dir', one) == 0
    result = run_script('launch.py', '--workers', 1, *words, '--kvstore', 'dist_async', '--output-dir', other)
    assert result.returncode == 0, result.stderr
    assert [row['lr'] for row in run_fields(other)] == ['0.05', '0.005']
    assert [row['val_acc'] for row in run_fields(other)] == [row['val_acc'] for row in run_fields(one)]
    assert_weights_are_close(other, one, rtol=0, atol=1e-5)


def test_run_outlives_a_sleep_of_the_machine_and_ends_with_a_killed_worker(tmp_path):
    """In the sleep all processes stand still for longer than the time after which silence ends a run."""
    run = tmp_path / 'run'
    words = (*MNIST[:-2], '--epochs', 400, '--batch-size', 32, '--kvstore', 'dist_sync', '--output-dir', run)
    process = start('launch.py', '--workers', 2, *words, PS_HEARTBEAT_INTERVAL='1', PS_HEARTBEAT_TIMEOUT='3')
    wait_for(run / 'metrics.csv', process)
    members = children(process)
    assert sorted(members) == ['scheduler', 'server', 'worker']
    pids = sum(members.values(), [])
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(6)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    slept_in = len(run_fields(run))
    time.sleep(4)  # silence would have ended it by now
    while len(run_fields(run)) < slept_in + 2:
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(members['worker'][1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    assert 'worker 1 on localhost was ended by signal 9' in errors and '--resume' in errors
    assert not any(os.path.exists(f'/proc/{pid}') for pid in pids)


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_interrupt_or_lost_terminal_stops_all_workers_at_one_step_and_resume_completes(
    run_script, run_here, tmp_path, number, code
):
    run, whole = tmp_path / 'run', tmp_path / 'whole'
    words = (*MNIST[1:-2], '--num-samples', 256, '--epochs', 3, '--momentum', 0.9, '--lr', 0.02)
    parts = '--batch-size', 8, '--kvstore', 'dist_sync', '--output-dir', run
    command = 'launch.py', '--workers', 2, MNIST[0], *words, *parts
    process = start(*command)
    wait_for(run / 'metrics.csv', process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert re.search(r'stopped (in|after) epoch', output)
    if number == signal.SIGINT:
        result = run_script(*command, '--resume')
        assert result.returncode == 0, result.stderr
        assert run_here('train_mnist', *words, '--batch-size', 16, '--output-dir', whole) == 0
        losses = [[float(row['train_loss']) for row in run_fields(folder)] for folder in (run, whole)]
        assert len(losses[0]) == 3 and losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_sigterm_to_all_processes_without_the_launcher_leaves_a_checkpoint(tmp_path):
    members = start_without_launcher(
        *MNIST[:-2], '--epochs', 50, '--batch-size', 8, '--output-dir', tmp_path / 'run'
    )
    try:
        wait_for(tmp_path / 'run' / 'metrics.csv', members[2])
        for member in members:
            member.terminate()
        assert [member.wait(timeout=60) for member in members] == [0, 0, 143, 143]
        assert RunFolder(tmp_path / 'run').has_checkpoint
        assert ''.join(member.communicate()[0] for member in members).count('stopped') == 1
    finally:
        for member in members:
            member.kill()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_without_the_launcher_a_killed_worker_is_noticed_by_its_heartbeat(tmp_path):
    members = start_without_launcher(
        *MNIST[:-2],
        '--epochs',
        500,
        '--batch-size',
        32,
        '--output-dir',
        tmp_path / 'run',
        PS_HEARTBEAT_INTERVAL='1',
        PS_HEARTBEAT_TIMEOUT='5',
    )
    try:
        wait_for(tmp_path / 'run' / 'metrics.csv', members[2])
        members[3].kill()
        killed = time.monotonic()
        for member in members[:3]:
            _, errors = member.communicate(timeout=60)
            assert member.returncode == 1
            assert 'silent for 5 seconds' in errors
        assert time.monotonic() - killed < 30
    finally:
        for member in members:
            member.kill()


def test_cifar_with_two_workers_takes_the_steps_of_two_devices(run_script, run_here, tmp_path):
    words = (
        'train_cifar.py',
        '--version',
        'baseline',
        '--num-samples',
        128,
        '--epochs',
        1,
        '--batch-size',
        32,
        '--warmup',
        'none',
        '--dtype',
        'float32',
        '--output-dir',
    )
    one, two = tmp_path / 'one', tmp_path / 'two'
    assert run_here('train_cifar', *words[1:], one, '--device', 'cpu:0,1') == 0
    result = run_script('launch.py', '--workers', 2, *words, two, '--kvstore', 'dist_sync')
    assert result.returncode == 0, result.stderr
    assert_weights_are_close(two, one, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_cifar_with_two_workers_is_as_accurate_as_one_process_and_survives_ten_kills(run_script, tmp_path):
    # Two contexts in the one process, so that BatchNorm sees the same parts of each batch.
    words = (
        'train_cifar.py',
        '--version',
        'fast',
        '--num-samples',
        4000,
        '--epochs',
        2,
        '--batch-size',
        50,
        '--dtype',
        'float32',
    )
    one, two = tmp_path / 'one', tmp_path / 'two'
    assert run_script(*words, '--device', 'cpu:0,1', '--output-dir', one).returncode == 0
    command = ('launch.py', '--workers', 2, *words, '--kvstore', 'dist_sync', '--output-dir')
    result = run_script(*command, two)
    assert result.returncode == 0, result.stderr
    wanted = pytest.approx(float(run_fields(one)[-1]['val_acc']), abs=0.02)
    assert float(run_fields(two)[-1]['val_acc']) == wanted

    rng, killed = np.random.default_rng(0), tmp_path / 'killed'
    for _ in range(10):
        resume = ['--resume'] * RunFolder(killed).has_checkpoint
        process = start(*command, killed, *resume)
        try:
            process.communicate(timeout=rng.uniform(5, 40))
        except subprocess.TimeoutExpired:
            pids = sum(children(process).values(), [])
            os.kill(int(rng.choice(pids)), signal.SIGKILL)
            process.communicate(timeout=60)
    result = run_script(*command, killed, *['--resume'] * RunFolder(killed).has_checkpoint)
    assert result.returncode == 0, result.stderr
    assert [row['epoch'] for row in run_fields(killed)] == ['1', '2']
    assert float(run_fields(killed)[-1]['val_acc']) == wanted
