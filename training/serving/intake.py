"""From a request to the image files in it, within limits."""

import asyncio
import base64
import binascii
import io
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Optional, Union

import numpy as np
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from training.data.pictures import PictureError, read_picture
from training.serving.messages import Query, Upload

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """What keeps the memory bounded.

    Attributes
    ----------
    body : int
        Bytes of a request.
    bodies : int
        Bytes of all requests that are being handled.
    images : int
        Of a request.
    pixels : int
        Of an image.
    waiting : int
        Images in the queue of the nets.
    seconds : float
        In which a request has to arrive.
    """

    body: int = 16 * MEBIBYTE
    bodies: int = 128 * MEBIBYTE
    images: int = 256
    pixels: int = 25_000_000
    waiting: int = 1024
    seconds: float = 30


class Intake:
    """Reads requests to /v1/predict.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._held = 0

    @contextmanager
    def reading(self, request: Request) -> Iterator[Request]:
        """A context for as long as the request's content is needed; gives it with limits to its body.

        Raises
        ------
        HTTPException
            413 or 503, here or where the body is read.
        """
        held = 0

        async def receive() -> Message:
            nonlocal held
            message = await request.receive()
            size = len(message.get('body', b''))
            held += size
            self._held += size
            if held > self.limits.body:
                raise self._too_large()
            if self._held > self.limits.bodies:
                raise overloaded('the requests that are being handled fill the memory set aside for them')
            return message

        try:
            announced = request.headers.get('content-length', '')
            if announced.isdecimal() and int(announced) > self.limits.body:
                raise self._too_large()
            yield Request(request.scope, receive)
        finally:
            self._held -= held

    async def read(self, request: Request) -> Union[Query, Upload]:
        """What a request from `reading` asks for.

        Raises
        ------
        HTTPException
            408, 413, 415, 422 or 503.
        """
        kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
        readers: dict[str, Callable[[Request], Awaitable[Union[Query, Upload]]]] = {
            'application/json': _read_json,
            'multipart/form-data': self._read_form,
        }
        if kind not in readers:
            raise HTTPException(415, f'content type {kind or "missing"}: expected {" or ".join(readers)}')
        try:
            query = await asyncio.wait_for(readers[kind](request), self.limits.seconds)
        except asyncio.TimeoutError:
            raise HTTPException(
                408, f'the request took more than {self.limits.seconds:g} seconds to arrive'
            ) from None
        except ValidationError as error:
            raise HTTPException(422, _first_problem(error)) from None
        if len(query.images) > self.limits.images:
            raise HTTPException(413, f'{len(query.images)} images: at most {self.limits.images} are allowed')
        return query

    async def _read_form(self, request: Request) -> Upload:
        fields: dict[str, object] = {}
        try:
            async with request.form(max_files=self.limits.images + 1, max_fields=20) as form:
                for name in form:
                    values = form.getlist(name)
                    fields[name] = values if name == 'include' else values[-1]
                    if name == 'images':
                        files = [value for value in values if isinstance(value, UploadFile)]
                        if len(files) < len(values):
                            raise HTTPException(422, 'images: expected files, which have a filename')
                        fields[name] = [await file.read() for file in files]
        except HTTPException as error:
            raise HTTPException(422, error.detail) if error.status_code == 400 else error from None
        return Upload.model_validate(fields)

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f'the request is too large: at most {self.limits.body:,} bytes are allowed')


async def _read_json(request: Request) -> Query:
    return Query.model_validate_json(await request.body())


def overloaded(message: str) -> HTTPException:
    """503 with the advice to try again."""
    return HTTPException(503, f'{message}; try again', {'Retry-After': '1'})


def decode(
    image: Union[str, bytes],
    shape: tuple[int, int, int],
    pixels: int,
    drawing: bool,
    short_side: Optional[int] = None,
) -> Union[np.ndarray, PictureError]:
    """An image file, or one in base64, as of `read_picture`, or what is wrong with it."""
    try:
        if isinstance(image, str):
            image = base64.b64decode(image, validate=True)
        return read_picture(io.BytesIO(image), shape, pixels, drawing, short_side)
    except binascii.Error as error:
        return PictureError(f'no base64 ({error})')
    except PictureError as error:
        return error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = '.'.join(map(str, problem['loc']))
    return f'{place}: {problem["msg"]}' if place else problem['msg']
