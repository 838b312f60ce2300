"""serve.py under load: requests of one image each, by several clients on this machine.

Run as `python -m benchmarks.serve RUN`, prints how many images a second go through the net one by one.
"""

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RECORD = Path('output/record')
RUNS = {'MNIST': 'mnist-lgm-full', 'CIFAR-10': 'cifar-fast-lambda0.1-seed0'}
CLIENTS = 1, 8, 64
SECONDS = 5  # of each measurement
PICTURES = 200  # different images of each data set
SOAK = 10_000  # requests
BAD = 20  # one request of so many is bad
BOUNDARY = 'part-of-the-benchmark'


class Request(NamedTuple):
    """Bytes to send, and the answer that predict.py has for them; None where the request is bad."""

    content: bytes
    wanted: Any


class Reply(NamedTuple):
    request: Request
    status: int
    body: bytes
    seconds: float


def write_pictures(run: str, folder: Path) -> list[Path]:
    """The first test images of a run's data set as PNG files."""
    from PIL import Image

    from training.config.recipe import load_run
    from training.data import datasets

    _, test = datasets.load_first(load_run(RECORD / run / 'config.yaml').data, PICTURES)
    paths = [folder / f'{run}-{number:03d}.png' for number in range(PICTURES)]
    for path, image in zip(paths, test.images):
        Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(path)
    return paths


def predicted(run: str, paths: list[Path], folder: Path) -> list[dict[str, Any]]:
    """What predict.py says of image files."""
    output = folder / f'{run}.json'
    command = [sys.executable, '-W', 'ignore', 'predict.py', RECORD / run, *paths, '--output', output]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(output.read_text())


def post(picture: bytes, run: str, kind: str = f'multipart/form-data; boundary={BOUNDARY}') -> bytes:
    """An HTTP request with one image."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name='
    body = f'{part}"run"\r\n\r\n{run}\r\n{part}"images"; filename="image"\r\n\r\n'.encode()
    body += picture + f'\r\n--{BOUNDARY}--\r\n'.encode()
    head = (
        f'POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}'
    )
    return f'{head}\r\n\r\n'.encode() + body


def requests_for(run: str, folder: Path) -> list[Request]:
    """One request for each picture, with what predict.py says of it."""
    paths = write_pictures(run, folder)
    rows = predicted(run, paths, folder)
    return [Request(post(path.read_bytes(), run), row) for path, row in zip(paths, rows)]


def bad_requests(run: str) -> list[Request]:
    """One of each kind."""
    contents = (
        post(b'\x89PNG\r\n\x1a\n cut', run),
        post(b'', run),
        post(b'a', 'none'),
        post(b'a', run, 'text/plain'),
    )
    return [Request(content, None) for content in contents]


@contextmanager
def server(*runs: str) -> Iterator[tuple[int, int]]:
    """(process id, port) of serve.py with these runs."""
    command = [
        sys.executable,
        '-W',
        'ignore',
        'serve.py',
        *(str(RECORD / run) for run in runs),
        '--port',
        '0',
    ]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
    try:
        yield process.pid, int(re.search(r':(\d+)$', process.stdout.readline())[1])
    finally:
        process.terminate()
        if process.wait():
            raise RuntimeError(f'serve.py ended with exit code {process.returncode}')


async def ask(port: int, requests: Iterator[Request], clients: int) -> list[Reply]:
    """The replies to requests that clients send, each the next one when its last is answered."""
    replies = []

    async def client() -> None:
        writer = None
        for request in requests:
            began = time.perf_counter()
            if writer is None:
                reader, writer = await asyncio.open_connection('127.0.0.1', port)
            writer.write(request.content)
            head = (await reader.readuntil(b'\r\n\r\n')).lower()
            body = await reader.readexactly(int(re.search(rb'content-length: (\d+)', head)[1]))
            replies.append(Reply(request, int(head.split()[1]), body, time.perf_counter() - began))
            if b'connection: close' in head:
                writer.close()
                writer = None
        if writer is not None:
            writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return replies


def agrees(reply: Reply) -> bool:
    """Whether a reply is what predict.py says, or an error if the request is bad."""
    answer, wanted = json.loads(reply.body), reply.request.wanted
    if wanted is None:
        return 400 <= reply.status < 500 and 'error' in json.dumps(answer)
    if reply.status != 200:
        return False
    (entry,) = answer['predictions']
    return (
        entry['class'] == wanted['class']
        and entry['unlike_training'] == wanted['unlike_training']
        and abs(entry['probability'] - wanted['probability']) < 1e-4
        and abs(entry['log_likelihood'] - wanted['log_likelihood']) < 1e-2
    )


def memory(process: int) -> float:
    """Resident MiB of a process."""
    pages = int(Path(f'/proc/{process}/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def for_a_while(requests: list[Request]) -> Iterator[Request]:
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        yield from requests


def bench_speed(requests: dict[str, list[Request]], rounds: int) -> None:
    """Print requests per second and latencies, in rounds that take turns."""
    rates: dict[str, list[float]] = {}
    waits: dict[str, list[float]] = {}
    with server(*RUNS.values()) as (_, port):
        for _ in range(rounds):
            for name, run in RUNS.items():
                words = [sys.executable, '-W', 'ignore', '-m', 'benchmarks.serve', run]
                alone = subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE)
                rates.setdefault(f'{name}, one by one', []).append(float(alone.stdout))
                for clients in CLIENTS:
                    began = time.perf_counter()
                    replies = asyncio.run(ask(port, for_a_while(requests[name]), clients))
                    label = f'{name}, {clients} client{"s" * (clients > 1)}'
                    rates.setdefault(label, []).append(len(replies) / (time.perf_counter() - began))
                    waits.setdefault(label, []).extend(1e3 * reply.seconds for reply in replies)
    print('\nserve.py, one image a request               images/s    p50 ms    p99 ms')
    for label, values in rates.items():
        line = f'  {label:40s}{statistics.median(values):10.0f}'
        if label in waits:
            line += '{:10.1f}{:10.1f}'.format(*np.percentile(waits[label], (50, 99)))
        print(line)


def soak(requests: dict[str, list[Request]], count: int, clients: int) -> None:
    """Print what became of many requests to both runs, some of them bad, and of the server's memory."""
    bad = [request for run in RUNS.values() for request in bad_requests(run)]
    rng = np.random.default_rng(0)
    good = [request for name in RUNS for request in requests[name]]
    order = [
        bad[rng.integers(len(bad))] if number % BAD == 0 else good[rng.integers(len(good))]
        for number in range(count)
    ]
    sizes, replies = [], []
    with server(*RUNS.values()) as (process, port):
        for part in np.array_split(np.arange(count), 5):
            replies += asyncio.run(ask(port, iter([order[number] for number in part]), clients))
            sizes.append(memory(process))
    wrong = sum(not agrees(reply) for reply in replies)
    refused = sum(reply.request.wanted is None for reply in replies)
    print(
        f'\n{count} requests by {clients} clients, {refused} of them bad: {count - len(replies)} lost, '
        f'{wrong} wrong; memory after each fifth {", ".join(f"{size:.0f}" for size in sizes)} MiB'
    )
    if wrong or len(replies) < count:
        raise RuntimeError('serve.py lost requests or mixed them up')


def report(rounds: int) -> None:
    """Print all of it."""
    with tempfile.TemporaryDirectory() as folder:
        requests = {name: requests_for(run, Path(folder)) for name, run in RUNS.items()}
    bench_speed(requests, rounds)
    soak(requests, SOAK, CLIENTS[-1])


def one_by_one(run: str) -> float:
    """Images per second from PNG files in memory, each read and predicted by itself."""
    import io

    from training.machine import devices

    device = devices.prepare('cpu')

    from training.data.pictures import read_picture
    from training.serving.predictor import Predictor

    predictor = Predictor(RECORD / run, device, device.contexts()[0])
    with tempfile.TemporaryDirectory() as folder:
        files = [path.read_bytes() for path in write_pictures(run, Path(folder))]

    def through() -> None:
        for file in files:
            predictor.describe(predictor(read_picture(io.BytesIO(file), predictor.shape)[None]), 0)

    through()
    began = time.perf_counter()
    through()
    return len(files) / (time.perf_counter() - began)


if __name__ == '__main__':
    print(one_by_one(sys.argv[1]))
