"""Try finished runs in a browser, and let other programs use them over HTTP.

    python serve.py output/record/mnist-lgm-full output/record/cifar-fast-lambda0.1-seed0

Prints the address of a page on which one draws a digit or drops a photograph, and sees what the net
makes of it. POST /v1/predict is the same for programs; /openapi.json describes it. Ctrl-C or SIGTERM
ends the server once the requests in flight are answered.
"""

import os
import socket
import warnings
from pathlib import Path
from typing import Optional

from training import errors
from training.config.options import Parser, add_prediction_options
from training.errors import UserError, naming
from training.machine import devices

GRACE = 30  # seconds that requests in flight have at the end
BACKLOG = 512  # connections that wait to be accepted


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN', help='folders of finished runs')
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to listen at (default 127.0.0.1: this machine alone)'
    )
    parser.add_argument(
        '--port', type=int, default=8000, metavar='N', help='0 takes a free one (default 8000)'
    )
    add_prediction_options(parser)
    return parser


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections; UserError where it cannot."""
    if not 0 <= port < 2**16:
        raise UserError(f'--port {port}: expected 0 to {2**16 - 1}')
    with naming(f'--host {host} --port {port}', '; choose another'):
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)  # asyncio sends at once only if told that it is TCP
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        return listener


def main(argv: list[str]) -> int:
    options = make_parser().parse_args(argv)
    names = [path.resolve().name for path in options.runs]
    if len(set(names)) < len(names):
        raise UserError(f'{" ".join(names)}: two runs have the same name; serve them apart')
    listener = listen(options.host, options.port)
    # One core is left to the requests: threads of the net that wait for each other would stand still.
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, devices.usable_cores() - 1)))
    device = devices.prepare(options.device, options.dtype)

    import uvicorn
    from PIL import Image

    from training.serving.app import build_app
    from training.serving.predictor import Predictor

    warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # the server has a limit of its own
    host, port = listener.getsockname()[:2]
    place = f'http://{f"[{host}]" if ":" in host else host}:{port}'

    class Server(uvicorn.Server):
        async def startup(self, sockets: Optional[list[socket.socket]] = None) -> None:
            await super().startup(sockets)
            print(f'{", ".join(names)}: {place}', flush=True)

    context = device.contexts()[0]
    predictors = [Predictor(run, device, context, options.false_alarm_rate) for run in options.runs]
    server = Server(
        uvicorn.Config(
            build_app(predictors), log_level='warning', access_log=False, timeout_graceful_shutdown=GRACE
        )
    )
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # raised again by uvicorn once all is answered
        if server.force_exit:
            raise
    return 0


if __name__ == '__main__':
    errors.exit_with(main)
