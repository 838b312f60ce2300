"""Distributed runs: real schedulers, servers and workers on loopback, and what needs none."""
import json
import os
import re
import signal
import subprocess
import sys
import time

import mxnet as mx
import numpy as np
import pytest
from mxnet import cpu, nd

import launch
from conftest import ROOT, run_fields
from training import batches, cli, cluster, loop, parameter_server, runtime
from training import recipe as recipes
from training.cluster import Workers
from training.run_folder import RunFolder
from training.runtime import UserError

MNIST = ('train_mnist.py', '--num-samples', '640', '--lr', '0.05', '--dtype', 'float32',
         '--epochs', '2')


def of_size(rank, size):
    workers = Workers()
    workers.rank, workers.size = rank, size
    return workers


@pytest.mark.parametrize('count, size', [(128, 2), (10, 3), (7, 7), (5, 2)])
def test_shares_are_disjoint_and_complete(count, size):
    items = list(range(count))
    shares = [items[of_size(rank, size).share(count)] for rank in range(size)]
    assert sum(shares, []) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_workers_together_see_the_batches_of_one_process(cifar):
    from training import augment

    def seen_by(workers):
        data = batches.TrainingData(cifar[0].select(slice(200)), [cpu()], augment.PadCropFlip(4),
                                 'random', 50, 3, workers=workers)
        data.augment.initialize()
        return [[part.asnumpy() for part in batch[0]] for batch in data.batches(1)]

    whole, shares = seen_by(Workers()), [seen_by(of_size(rank, 3)) for rank in range(3)]
    assert len(whole) == 4
    for step, (images, labels) in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([share[step][0] for share in shares]), images)
        np.testing.assert_array_equal(np.concatenate([share[step][1] for share in shares]), labels)


def test_class_sizes_are_those_of_the_whole_step(cifar):
    from training import augment
    contexts = [cpu(0), cpu(1)]
    data = batches.TrainingData(cifar[0].select(slice(120)), contexts, augment.PadCropFlip(4),
                             'random', 40, 0, class_sizes=True)
    data.augment.initialize(ctx=contexts)
    for (_, first, first_sizes), (_, second, second_sizes) in data.batches(0):
        labels = np.concatenate([first.asnumpy(), second.asnumpy()])
        sizes = np.concatenate([first_sizes.asnumpy(), second_sizes.asnumpy()])
        assert sizes.tolist() == [(labels == label).sum() for label in labels]


def test_batchnorm_statistics_become_the_mean_over_devices():
    from mxnet.gluon import nn
    contexts = [cpu(0), cpu(1)]
    net = nn.HybridSequential()
    net.add(nn.Dense(3, in_units=2), nn.BatchNorm(in_channels=3), nn.BatchNorm(in_channels=5))
    net.initialize(ctx=contexts)
    rng = np.random.default_rng(0)
    means = []
    for norm in net[1], net[2]:
        for parameter in norm.running_mean, norm.running_var:
            values = rng.normal(size=(2, *parameter.shape)).astype(np.float32)
            for array, value in zip(parameter.list_data(), values):
                array[:] = nd.array(value)
            means.append((parameter, values.mean(axis=0)))
    gamma = net[1].gamma.data(contexts[0]).asnumpy()
    data = type('Data', (), {'contexts': contexts, 'workers': Workers()})
    loop.average_statistics(net, data)
    for parameter, mean in means:
        for array in parameter.list_data():
            np.testing.assert_allclose(array.asnumpy(), mean, rtol=1e-6)
    np.testing.assert_array_equal(net[1].gamma.data(contexts[0]).asnumpy(), gamma)


def test_batchnorm_statistics_become_the_mean_over_workers():
    from mxnet.gluon import nn
    net = nn.BatchNorm(in_channels=3)
    net.initialize()
    net.running_mean.set_data(nd.array([1, 2, 3]))
    workers = of_size(0, 2)
    workers.sum = lambda values: np.asarray(values) + [5, 6, 7, 3, 3, 3]  # the other one's
    loop.average_statistics(net, type('Data', (), {'contexts': [cpu()], 'workers': workers}))
    assert net.running_mean.data().asnumpy().tolist() == [3, 4, 5]
    assert net.running_var.data().asnumpy().tolist() == [2, 2, 2]


def test_workers_that_differ_are_refused():
    def agree(ours, theirs):
        sent, workers, other = [], of_size(0, 2), of_size(1, 2)
        other.sum = lambda halves: sent.append(halves) or halves * 2
        other.agree(theirs, '')
        workers.sum = lambda halves: halves + sent[0]
        workers.agree(ours, 'they differ')

    agree('one recipe', 'one recipe')
    with pytest.raises(UserError, match='they differ'):
        agree('one recipe', 'another one')


@pytest.mark.parametrize('silences, ended', [([0, 1, 1, 0, 1, 1, 0, 0], False), ([0, 1, 1, 1], True)])
def test_silence_that_lasts_ends_the_process(monkeypatch, capsys, silences, ended):
    """Two heartbeats of a second each; what the engine says of the others is made up."""
    from mxnet import base
    answers, codes = iter(silences), []

    class Ended:
        def wait(self, seconds):
            return bool(codes) or self.over

        over = False

    def count_silent(handle, nodes, silent, timeout):
        silent._obj.value = next(answers)
        Ended.over = answers.__length_hint__() == 0
        return 0

    monkeypatch.setattr(base, '_LIB', type('Engine', (), {
        'MXKVStoreGetNumDeadNode': staticmethod(count_silent)}))
    monkeypatch.setattr(parameter_server.os, '_exit', codes.append)
    for name, value in zip(parameter_server.HEARTBEAT, ('1', '5')):
        monkeypatch.setenv(name, value)
    watch = parameter_server.Watch.__new__(parameter_server.Watch)
    watch._store, watch._ended = type('Store', (), {'handle': None}), Ended()
    watch.run()
    assert codes == ([1] if ended else [])
    assert ('silent for 5 seconds' in capsys.readouterr().err) == ended


def test_what_a_member_on_another_machine_is_told(monkeypatch):
    commands = []
    monkeypatch.setattr(launch.subprocess, 'Popen', lambda words, **_: commands.append(words))
    for name, value in (('MXNET_HOME', '/data sets'), ('PS_HEARTBEAT_TIMEOUT', '9')):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    environment = {**dict.fromkeys(parameter_server.ENVIRONMENT, '1'), runtime.PLACE: '1/2'}
    launch.start('worker', 1, 'node', ['python', 'a b.py'], environment)
    remote = commands[0][-1]
    assert commands[0][0] == 'ssh' and 'node' in commands[0]
    assert remote.startswith(f'cd {os.getcwd()} && exec env ') and remote.endswith("python 'a b.py'")
    for part in ('DMLC_ROLE=worker', 'DMLC_NUM_WORKER=1', f'{runtime.PLACE}=1/2',
                 "'MXNET_HOME=/data sets'", 'PS_HEARTBEAT_TIMEOUT=9'):
        assert part in remote
    assert 'OMP_NUM_THREADS' not in remote


@pytest.mark.parametrize('kvstore, environment, message', [
    ('device', {'DMLC_ROLE': 'worker'}, 'DMLC_ROLE is worker.*--kvstore dist_sync, or unset'),
    ('dist_sync', {}, 'DMLC_ROLE, DMLC_PS_ROOT_URI.*must be set, which launch.py does'),
    ('dist_sync', dict.fromkeys(parameter_server.ENVIRONMENT, 'x'), 'expected worker, server or scheduler'),
])
def test_environment_and_kvstore_must_go_together(monkeypatch, kvstore, environment, message):
    for name in parameter_server.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        parameter_server.check_environment(kvstore)


@pytest.mark.parametrize('words, message', [
    (('--workers', '0', 'x.py'), '--workers 0'), (('--workers', '2'), 'no script to run'),
    (('--workers', '1', '--hosts', ',', 'x.py'), '--hosts ,')])
def test_launcher_mistakes_are_one_clear_line(run_script, words, message):
    result = run_script('launch.py', *words)
    assert result.returncode == 2 and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize('words, message', [
    (('--lrr', 3), 'error: --lrr: unknown option'), ((), 'error: DMLC_ROLE is worker')])
def test_mistakes_in_the_launched_command_are_one_clear_line(run_script, words, message):
    result = run_script('launch.py', '--workers', 2, 'train_cifar.py', *words)
    assert result.returncode == 2 and result.stderr.startswith(message)
    assert len(result.stderr.strip().splitlines()) == 1


UNEVEN = '''
import sys, time
from training import cluster, parameter_server, runtime
if parameter_server.check_environment('dist_sync'):
    parameter_server.serve(None)
runtime.prepare('cpu')
def main(_):
    workers = cluster.Workers('dist_sync')
    runtime.departure = workers.leave
    open(f'{sys.argv[1]}/{workers.rank}', 'w')
    if workers.rank == 0:
        workers.sum([0])
    time.sleep(600)
runtime.exit_with(main)
'''


def test_ctrl_c_before_the_training_ends_workers_that_wait_for_each_other(tmp_path):
    process = start('launch.py', '--workers', 2, '--', '-c', UNEVEN, tmp_path)
    for rank in '01':
        wait_for(tmp_path / rank, process)
    time.sleep(1)  # for the first to be waiting in its sum
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors


def weights(folder):
    return {name: array.asnumpy() for name, array in nd.load(str(folder / 'last.params')).items()}


def test_two_workers_end_where_one_process_with_the_same_batch_ends(run_script, tmp_path):
    """LeNet++ has no BatchNorm, so that all that differs is the order of the sums."""
    one, two = tmp_path / 'one', tmp_path / 'two'
    words = (*MNIST, '--epochs', 1, '--version', 'softmax-center')
    assert run_script(*words, '--batch-size', 64, '--output-dir', one).returncode == 0
    result = run_script('launch.py', '--workers', 2, '--servers', 2, *words, '--batch-size', 16,
                        '--device', 'cpu:1,2', '--kvstore', 'dist_sync', '--output-dir', two)
    assert result.returncode == 0, result.stderr
    assert '2 workers (dist_sync)' in result.stdout
    assert result.stdout.count('epoch   1') == 1, 'only the chief prints'
    (first,), (second,) = run_fields(one), run_fields(two)
    assert float(second['train_loss']) == pytest.approx(float(first['train_loss']), rel=1e-5)
    assert second['train_acc'] == first['train_acc'] and second['val_acc'] == first['val_acc']
    found = weights(two)
    for name, array in weights(one).items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5, err_msg=name)


AGREEMENT = '''
from training import cluster, parameter_server, runtime
if parameter_server.check_environment('dist_sync'):
    parameter_server.serve(None)
runtime.prepare('cpu')
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
'''


def test_workers_without_work_stop_at_the_same_steps(run_script):
    """Nothing but the agreement itself keeps them together here."""
    result = run_script('launch.py', '--workers', 2, '--', '-c', AGREEMENT)
    assert result.returncode == 0, result.stderr
    first, second = map(json.loads, result.stdout.splitlines())
    assert first == second and len(first) == 40


def test_asynchronous_worker_alone_ends_where_one_process_ends(run_script, tmp_path):
    one, other = tmp_path / 'one', tmp_path / 'other'
    words = (*MNIST, '--version', 'softmax', '--batch-size', 64, '--decay-epochs', 1)
    assert run_script(*words, '--output-dir', one).returncode == 0
    result = run_script('launch.py', '--workers', 1, *words, '--kvstore', 'dist_async',
                        '--output-dir', other)
    assert result.returncode == 0, result.stderr
    assert [row['lr'] for row in run_fields(other)] == ['0.05', '0.005']
    assert [row['val_acc'] for row in run_fields(other)] == [row['val_acc'] for row in run_fields(one)]
    expected, found = weights(one), weights(other)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5, err_msg=name)


def test_servers_take_rates_and_multipliers_of_each_parameter():
    from training import optim
    optimizer = optim.server_optimizer('sgd', {'wd': 0.5, 'momentum': 0}, 0.25, {'3': 2, '4': 1},
                                       {'3': 1, '4': 0})
    update = mx.optimizer.get_updater(optimizer)
    optimizer.set_learning_rate(0.1)
    for key, expected in ((3, 1 - 0.1 * 2 * (8 * 0.25 + 0.5)), (4, 1 - 0.1 * 8 * 0.25)):
        weight = nd.ones(2)
        update(key, nd.full(2, 8), weight)
        np.testing.assert_allclose(weight.asnumpy(), expected, rtol=1e-6)


def test_address_may_be_a_name_and_is_refused_where_it_is_none():
    assert launch.resolved('localhost') == '127.0.0.1' == launch.resolved('127.0.0.1')
    for words, message in (('--address no-such-host.invalid', '--address no-such-host.invalid: '),
                           ('--hosts no-such-host.invalid', "give this machine's --address")):
        with pytest.raises(UserError, match=message):
            launch.main(['--workers', '1', *words.split(), 'x.py'])


@pytest.mark.parametrize('hosts, asked', [
    ('localhost, node2', 'node2'), ('me@node1,localhost', 'me@node1'), ('localhost', 'localhost')])
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
        'seen from localhost' if hosts == 'localhost' else None}
    places = [(host, environment[runtime.PLACE]) for role, _, host, _, environment in told
              if role == 'worker']
    first, second = hosts.replace(' ', '').split(',') if ',' in hosts else (hosts, None)
    assert places == ([(first, '0/2'), (second, '0/1'), (first, '1/2')] if second else
                      [(first, f'{number}/3') for number in range(3)])
    assert [runtime.ECHO in member[-1] for member in told] == [True, True, False, True, True]


def start(*words, hangup=signal.SIG_DFL, **environment):
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=dict(os.environ, **environment),
                            preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup))


def start_without_launcher(*words, **environment):
    """Scheduler, server and two workers."""
    environment.update(DMLC_PS_ROOT_URI='127.0.0.1', DMLC_PS_ROOT_PORT=str(launch.free_port()),
                       DMLC_NUM_WORKER='2', DMLC_NUM_SERVER='1', OMP_NUM_THREADS='1')
    return [start(*words, '--kvstore', 'dist_sync', **environment, DMLC_ROLE=role)
            for role in ('scheduler', 'server', 'worker', 'worker')]


def wait_for(path, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children(process):
    """Process ids of a launcher's children by their role."""
    roles = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/stat') as file:
                parent = int(file.read().rpartition(')')[2].split()[1])
            with open(f'/proc/{pid}/environ') as file:
                role = re.search(r'DMLC_ROLE=(\w+)', file.read())
        except OSError:
            continue
        if parent == process.pid and role:
            roles.setdefault(role[1], []).append(int(pid))
    return roles


def test_killed_worker_ends_the_run(tmp_path):
    run = tmp_path / 'run'
    command = ('launch.py', '--workers', 2, *MNIST[:-2], '--epochs', 400, '--batch-size', 32,
               '--kvstore', 'dist_sync', '--output-dir', run)
    process = start(*command)
    wait_for(run / 'metrics.csv', process)
    members = children(process)
    os.kill(members['worker'][1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    assert 'worker 1 on localhost was ended by signal 9' in errors and '--resume' in errors
    assert sorted(members) == ['scheduler', 'server', 'worker']
    assert not any(os.path.exists(f'/proc/{pid}') for pids in members.values() for pid in pids)


def test_run_outlives_a_sleep_of_the_machine(tmp_path):
    """All processes stand still for longer than the time after which silence ends a run."""
    run = tmp_path / 'run'
    process = start('launch.py', '--workers', 2, *MNIST[:-2], '--epochs', 8, '--batch-size', 32,
                    '--kvstore', 'dist_sync', '--output-dir', run,
                    PS_HEARTBEAT_INTERVAL='1', PS_HEARTBEAT_TIMEOUT='3')
    wait_for(run / 'metrics.csv', process)
    members = sum(children(process).values(), [])
    for pid in members:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(6)
    for pid in members:
        os.kill(pid, signal.SIGCONT)
    slept_in = len(run_fields(run))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert slept_in < len(run_fields(run)) == 8


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_interrupt_or_lost_terminal_stops_all_workers_at_one_step_and_resume_completes(
        run_script, run_here, tmp_path, number, code):
    run, whole = tmp_path / 'run', tmp_path / 'whole'
    words = (*MNIST[1:-2], '--epochs', 4, '--momentum', 0.9, '--lr', 0.02)
    command = ('launch.py', '--workers', 2, MNIST[0], *words, '--batch-size', 8, '--kvstore',
               'dist_sync', '--output-dir', run)
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
        losses = [[float(row['train_loss']) for row in run_fields(folder)]
                  for folder in (run, whole)]
        assert len(losses[0]) == 4 and losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_sigterm_to_all_processes_without_the_launcher_leaves_a_checkpoint(tmp_path):
    members = start_without_launcher(*MNIST[:-2], '--epochs', 50, '--batch-size', 8,
                                     '--output-dir', tmp_path / 'run')
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


@pytest.mark.parametrize('hangup, code', [(signal.SIG_IGN, 0), (signal.SIG_DFL, 143)])
def test_run_under_nohup_outlives_the_terminal(tmp_path, hangup, code):
    process = start('launch.py', '--workers', 1, '--', '-c', 'import pathlib, time; '
                    f'pathlib.Path("{tmp_path}/begun").touch(); time.sleep(2)', hangup=hangup)
    wait_for(tmp_path / 'begun', process)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors


@pytest.mark.parametrize('asked, kvstore, kept', [
    ('auto', 'dist_sync', 'gpu'), ('gpu', 'dist_sync', 'gpu'), ('gpu:1', 'dist_sync', 'gpu:1'),
    ('auto', 'device', 'gpu:1')])
def test_resumed_workers_take_gpus_in_turn_as_before(monkeypatch, tmp_path, asked, kvstore, kept):
    monkeypatch.setattr(parameter_server, 'check_environment', lambda _: False)
    monkeypatch.setattr(runtime, 'prepare', lambda *_: runtime.Device('gpu', (1,), 'float32'))
    monkeypatch.setattr(cluster, 'join', lambda *_: Workers())
    path = recipes.version_path('cifar', 'fast')
    recipe = recipes.load(path, recipes.CifarRecipe, {'device': asked, 'kvstore': kvstore})
    cli.begin(recipe, path, 'fast', RunFolder(tmp_path), {})
    assert recipe.run.device == kept


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_remote_workers_are_stopped_through_their_terminal(tmp_path, number):
    """Whatever ends the launcher: a signal to ssh itself would cut them off without a checkpoint."""
    stand_in = tmp_path / 'ssh'
    stand_in.write_text(f'''#!/bin/bash
trap "" INT
[[ $5 == *DMLC_ROLE=worker* ]] || exec sleep 60
touch {tmp_path}/begun
read -rN1 key
[[ $key == $'\\x03' ]] && touch {tmp_path}/asked
exit 130
''')
    stand_in.chmod(0o755)
    process = start('launch.py', '--workers', 1, '--hosts', 'node1', '--address', '127.0.0.1',
                    '--', '-c', 'import time; time.sleep(60)',
                    PATH=f'{tmp_path}:{os.environ["PATH"]}')
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
    result = run_script('launch.py', '--workers', 2, '--hosts', 'node1,node2', '--address',
                        '127.0.0.1', *MNIST, '--batch-size', 32, '--kvstore', 'dist_async',
                        '--version', 'softmax', '--output-dir', tmp_path / 'run',
                        PATH=f'{tmp_path}:{os.environ["PATH"]}')
    assert result.returncode == 0, result.stderr
    assert sorted((tmp_path / 'hosts').read_text().split()) == ['node1', 'node1', 'node2']
    assert len(run_fields(tmp_path / 'run')) == 2
    assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['epochs'] == 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_without_the_launcher_a_killed_worker_is_noticed_by_its_heartbeat(tmp_path):
    members = start_without_launcher(*MNIST[:-2], '--epochs', 500, '--batch-size', 32,
                                     '--output-dir', tmp_path / 'run',
                                     PS_HEARTBEAT_INTERVAL='1', PS_HEARTBEAT_TIMEOUT='5')
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


def test_cifar_with_two_workers_takes_the_steps_of_two_devices(run_script, tmp_path):
    words = ('train_cifar.py', '--version', 'baseline', '--num-samples', 128, '--epochs', 1,
             '--batch-size', 32, '--warmup', 'none', '--dtype', 'float32', '--output-dir')
    one, two = tmp_path / 'one', tmp_path / 'two'
    assert run_script(*words, one, '--device', 'cpu:0,1').returncode == 0
    result = run_script('launch.py', '--workers', 2, *words, two, '--kvstore', 'dist_sync')
    assert result.returncode == 0, result.stderr
    expected, found = weights(one), weights(two)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_cifar_with_two_workers_is_as_accurate_as_one_process_and_survives_ten_kills(
        run_script, tmp_path):
    # Two contexts in the one process, so that BatchNorm sees the same parts of each batch.
    words = ('train_cifar.py', '--version', 'fast', '--num-samples', 4000, '--epochs', 2,
             '--batch-size', 50, '--dtype', 'float32')
    one, two = tmp_path / 'one', tmp_path / 'two'
    assert run_script(*words, '--device', 'cpu:0,1', '--output-dir', one).returncode == 0
    command = ('launch.py', '--workers', 2, *words, '--kvstore', 'dist_sync', '--output-dir')
    result = run_script(*command, two)
    assert result.returncode == 0, result.stderr
    assert float(run_fields(two)[-1]['val_acc']) == pytest.approx(float(run_fields(one)[-1]['val_acc']), abs=0.02)

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
    assert float(run_fields(killed)[-1]['val_acc']) == pytest.approx(float(run_fields(one)[-1]['val_acc']),
                                                               abs=0.02)
