"""serve.py as a process: it says where it is, and ends once all is answered."""

import base64
import signal
import socket
import threading

import httpx
import numpy as np
import pytest
from conftest import RECORD, ROOT
from serving.conftest import as_file
from serving.processes import serving

from benchmarks import serve as load
from serve import listen

MNIST = RECORD / 'mnist-lgm-full'


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_are_answered_before_the_end(number):
    image = base64.b64encode(as_file(np.zeros((1, 28, 28), np.uint8))).decode()
    answers = []

    def ask():
        answers.append(httpx.post(f'{address}/v1/predict', json={'images': [image] * 256}, timeout=60))

    with serving(MNIST) as (process, address):
        assert httpx.get(f'{address}/v1/runs').json()['runs'][0]['name'] == MNIST.name
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if httpx.get(f'{address}/healthz').json()['waiting'] > 512:  # the server has all three
                break
        process.send_signal(number)
        for thread in threads:
            thread.join()
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and errors == ''
    assert [answer.status_code for answer in answers] == [200] * 3
    assert all(len(answer.json()['predictions']) == 256 for answer in answers)


def test_clients_that_leave_or_talk_nonsense_do_no_harm():
    with serving(MNIST) as (process, address):
        port = int(address.rpartition(':')[2])
        head = b'POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n'
        for content in (
            head + b'Content-Length: 999\r\n\r\n{"images"',
            b'\x00\xff\r\n\r\n',
            b'GET /' + b'a' * 10**5,
        ):
            with socket.create_connection(('127.0.0.1', port)) as connection:
                connection.sendall(content)
        assert httpx.get(f'{address}/healthz').json() == {'status': 'ok', 'waiting': 0}
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and 'Traceback' not in errors


@pytest.mark.parametrize(
    'words, message',
    [
        ([MNIST, '--port', '70000'], '--port 70000: expected 0 to 65535'),
        ([MNIST, '--host', '256.0.0.1', '--port', '0'], '--host 256.0.0.1 --port 0: '),
        ([MNIST, RECORD / '..' / 'record' / MNIST.name], 'two runs have the same name'),
        (['nowhere', '--port', '0'], 'nowhere: there is no run in this folder'),
        ([RECORD / 'mnist-lgm-off', '--port', '0'], 'there is no such weights file'),
        ([MNIST, '--false-alarm-rate', '0.5'], '--false-alarm-rate: invalid choice'),
    ],
)
def test_mistakes_are_one_line(run_here, capsys, words, message):
    assert run_here('serve', *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith('error: ') and error.count('\n') == 1


def test_port_that_is_taken_is_one_line(run_here, capsys):
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        assert run_here('serve', MNIST, '--port', port) == 2
    assert f'--port {port}: Address already in use; choose another' in capsys.readouterr().err


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost'])
def test_answers_are_sent_at_once(host):
    """asyncio sets TCP_NODELAY on sockets that say their protocol; without, each answer takes 40 ms more."""
    with listen(host, 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


@pytest.mark.slow
def test_nothing_is_lost_or_mixed_up_under_load(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    load.soak({name: load.requests_for(run, tmp_path) for name, run in load.RUNS.items()}, 2000, 64)
    assert '2000 requests by 64 clients, 100 of them bad: 0 lost, 0 wrong' in capsys.readouterr().out
