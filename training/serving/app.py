"""The server: its routes, and what they do."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from training.data.pictures import PictureError
from training.machine.devices import usable_cores
from training.serving import messages
from training.serving.batching import Answer, Batcher, Overloaded
from training.serving.feature_map import feature_map
from training.serving.intake import Intake, Limits, decode, overloaded
from training.serving.predictor import Predictor

PAGE = Path(__file__).parent / 'page'
FILES = {'/': 'index.html', **{f'/{name}': name for name in ('style.css', 'page.js', 'pad.js', 'map.js')}}
DIGITS = 'mnist', 'idx'  # data sets whose images can be drawn
SAFETY = {
    'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'",
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-cache',
}


class Service:
    """Runs under their names, and what handles requests about them.

    Parameters
    ----------
    predictors : sequence of Predictor
        The first is the default.
    limits : Limits
    """

    def __init__(self, predictors: Sequence[Predictor], limits: Limits) -> None:
        self.predictors = {predictor.name: predictor for predictor in predictors}
        self.maps = {name: feature_map(predictor) for name, predictor in self.predictors.items()}
        self.intake = Intake(limits)
        self.batcher = Batcher(most_waiting=limits.waiting)
        self.decoders = ThreadPoolExecutor(usable_cores(), thread_name_prefix='decoder')

    def close(self) -> None:
        """End all threads, once their work is done."""
        self.decoders.shutdown()
        self.batcher.close()

    async def predict(self, request: Request) -> Response:
        """POST /v1/predict."""
        predictor, include, images, future = await self._accept(request)
        answers = iter([] if future is None else await asyncio.wrap_future(future))
        entries = [
            {'error': str(image)}
            if isinstance(image, PictureError)
            else self._entry(predictor, image, next(answers), include)
            for image in images
        ]
        return JSONResponse({'run': predictor.name, 'predictions': entries}, 422 if future is None else 200)

    async def _accept(
        self, request: Request
    ) -> tuple[Predictor, list[str], list[Union[np.ndarray, PictureError]], Optional[Future]]:
        """Read a request and hand its images to the net: what is needed of it from there on."""
        with self.batcher.expecting(), self.intake.reading(request) as limited:
            query = await self.intake.read(limited)
            predictor = self._find(query.run)
            if query.drawing and not _draws(predictor):
                raise HTTPException(
                    422, f'drawing: {predictor.name} takes no drawings, as it knows no digits'
                )
            if 'position' in query.include and self.maps[predictor.name] is None:
                raise HTTPException(422, f'include: {predictor.name} has no map, hence no positions')
            images = await asyncio.get_running_loop().run_in_executor(
                self.decoders, self._decode_all, query, predictor
            )
            good = [image for image in images if not isinstance(image, PictureError)]
            try:
                future = self.batcher.submit(predictor, good) if good else None
            except Overloaded as error:
                raise overloaded(str(error)) from None
        return predictor, list(query.include), images, future

    def _decode_all(
        self, query: Union[messages.Query, messages.Upload], predictor: Predictor
    ) -> list[Union[np.ndarray, PictureError]]:
        pixels = self.intake.limits.pixels
        return [
            decode(image, predictor.shape, pixels, query.drawing, predictor.short_side)
            for image in query.images
        ]

    def _entry(
        self, predictor: Predictor, image: np.ndarray, answer: Answer, include: Sequence[str]
    ) -> dict[str, Any]:
        predictions, number = answer
        entry = predictor.describe(predictions, number)
        entry['probabilities'] = _listed(predictions.posterior[number], 6)
        features = predictions.features[number]
        if 'features' in include:
            entry['features'] = _listed(features, 6)
        if 'position' in include:
            entry['position'] = _listed(self.maps[predictor.name].place(features), 4)
        if 'input' in include:
            entry['input'] = _png(image)
        return entry

    async def runs(self, request: Request) -> Response:
        """GET /v1/runs."""
        return JSONResponse({'runs': [self._describe(run) for run in self.predictors.values()]})

    def _describe(self, predictor: Predictor) -> dict[str, Any]:
        return {
            'name': predictor.name,
            'dataset': predictor.title,
            'loss': predictor.recipe.loss.loss,
            'classes': predictor.class_names,
            'shape': predictor.shape,
            'accuracy': predictor.accuracy,
            'threshold': predictor.threshold,
            'likeliest': predictor.likeliest,
            'drawing': _draws(predictor),
            'map': self.maps[predictor.name] is not None,
        }

    async def map(self, request: Request) -> Response:
        """GET /v1/runs/{run}/map."""
        predictor = self._find(request.path_params['run'])
        if (found := self.maps[predictor.name]) is None:
            raise HTTPException(
                404, f'{predictor.name} has neither class means nor kept features, hence no map'
            )
        return JSONResponse(found.to_json())

    async def health(self, request: Request) -> Response:
        """GET /healthz."""
        if not self.batcher.alive:
            raise HTTPException(503, 'the thread of the nets has ended')
        return JSONResponse({'status': 'ok', 'waiting': self.batcher.waiting})

    def _find(self, name: Optional[str]) -> Predictor:
        if name is None:
            return next(iter(self.predictors.values()))
        if name not in self.predictors:
            raise HTTPException(
                404, f'run {name}: there is none of this name, only {", ".join(self.predictors)}'
            )
        return self.predictors[name]


def build_app(predictors: Sequence[Predictor], limits: Optional[Limits] = None) -> Starlette:
    """The ASGI application for some runs, whose names differ; its threads end with its lifespan."""
    service = Service(predictors, limits or Limits())
    description = messages.openapi()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        service.close()

    async def describe(request: Request) -> Response:
        return JSONResponse(description)

    async def file(request: Request) -> Response:
        return FileResponse(PAGE / FILES[request.url.path], headers=SAFETY)

    return Starlette(
        routes=[
            Route('/v1/predict', service.predict, methods=['POST']),
            Route('/v1/runs', service.runs),
            Route('/v1/runs/{run}/map', service.map),
            Route('/healthz', service.health),
            Route('/openapi.json', describe),
            *(Route(path, file) for path in FILES),
        ],
        exception_handlers={HTTPException: _refuse, ClientDisconnect: _leave, Exception: _fail},
        lifespan=lifespan,
    )


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({'error': error.detail}, error.status_code, headers=error.headers)


async def _fail(request: Request, error: Exception) -> Response:
    """Our mistake: the server prints its traceback."""
    return JSONResponse({'error': 'the server failed; its terminal says how'}, 500)


async def _leave(request: Request, error: Exception) -> Response:
    """The client went away before its request was read: nobody reads this."""
    return JSONResponse({'error': 'the request was not sent whole'}, 400)


def _draws(predictor: Predictor) -> bool:
    """Whether digits can be drawn for a run."""
    return predictor.recipe.data.dataset in DIGITS


def _listed(values: np.ndarray, digits: int) -> list[Optional[float]]:
    """Numbers for JSON, None for those that it has no way to say."""
    rounded = np.round(values.astype(np.float64), digits)
    return [value if np.isfinite(value) else None for value in rounded.tolist()]


def _png(image: np.ndarray) -> str:
    """Uint8 (channels, height, width) as a PNG file in base64."""
    pixels, file = np.squeeze(image.transpose(1, 2, 0)), io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG')
    return base64.b64encode(file.getvalue()).decode()
