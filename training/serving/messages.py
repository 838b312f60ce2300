"""What the server takes and gives, and the OpenAPI description of it."""

from typing import Any, Literal, Optional, Union

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

Position = tuple[float, float]


class Options(BaseModel):
    """How the images of a request are to be taken."""

    model_config = ConfigDict(extra='forbid')

    run: Optional[str] = Field(None, description='name of a run, as of /v1/runs; by default the first one')
    include: list[Literal['features', 'position', 'input']] = Field(
        [],
        description='also give the features, their position on the map of /v1/runs/{run}/map, or what the '
        'net saw as a PNG file in base64',
    )
    drawing: bool = Field(
        False, description="place what is drawn, light on black, as MNIST's digits are; 28 x 28 runs only"
    )


class Query(Options):
    """Images in JSON."""

    images: list[str] = Field(min_length=1, description='image files in base64')


class Upload(Options):
    """Images as files."""

    images: list[bytes] = Field(min_length=1, description='image files')


class Prediction(BaseModel):
    """What the run says of one image."""

    model_config = ConfigDict(extra='forbid')

    class_: str = Field(alias='class')
    probability: Optional[float] = Field(description='of this class; null where it is no number')
    log_likelihood: Optional[float] = Field(description='null unless the run was trained by L-GM')
    unlike_training: Optional[bool] = Field(
        description='whether the log-likelihood is below the threshold; null if the run has none'
    )
    probabilities: list[Optional[float]] = Field(description='in the order of the classes of /v1/runs')
    features: Optional[list[Optional[float]]] = None
    position: Optional[Position] = None
    input: Optional[str] = None


class Failure(BaseModel):
    """Why there is no answer, or none for one image."""

    model_config = ConfigDict(extra='forbid')

    error: str


class Answer(BaseModel):
    """One entry for each image, in the order of the request."""

    run: str
    predictions: list[Union[Prediction, Failure]]


class RunDescription(BaseModel):
    """A run that the server has."""

    model_config = ConfigDict(extra='forbid')

    name: str
    dataset: str
    loss: str
    classes: list[str]
    shape: tuple[int, int, int] = Field(description='channels, height and width of what the net sees')
    accuracy: Optional[float] = Field(description='on the validation images, at the end of the training')
    threshold: Optional[float] = Field(description='of the log-likelihood')
    likeliest: Optional[float] = Field(description='the log-likelihood at the likeliest class mean')
    drawing: bool = Field(description='whether digits can be drawn for it')
    map: bool = Field(description='whether it has a map')


class Runs(BaseModel):
    """The runs, the default one first."""

    runs: list[RunDescription]


class RunMap(BaseModel):
    """The plane in which positions are."""

    model_config = ConfigDict(extra='forbid')

    dimensions: int = Field(description='of the features; more than two are projected on principal axes')
    points: list[Position] = Field(description='validation images; may be empty')
    labels: list[int] = Field(description='their classes')
    means: Optional[list[Position]] = Field(description='class means or centers')
    ellipses: Optional[list[tuple[float, float, float]]] = Field(
        description='half axes and angle of the first in radians, around the means'
    )


class Health(BaseModel):
    """The state of the server."""

    status: Literal['ok']
    waiting: int = Field(description='images in the queue')


MODELS = Query, Upload, Answer, Failure, Runs, RunMap, Health
PREDICT_FAILURES = {
    '404': 'There is no such run.',
    '408': 'The request took too long to arrive.',
    '413': 'The request is too large, or has too many images.',
    '415': 'The content is neither JSON nor multipart.',
    '422': 'The request does not fit this description, or none of its images can be read.',
    '503': 'The server has too much to do; try again after the seconds in Retry-After.',
}


def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 description of the server."""
    _, schemas = models_json_schema(
        [(model, 'validation') for model in MODELS], ref_template='#/components/schemas/{model}'
    )
    in_path = {'name': 'run', 'in': 'path', 'required': True, 'schema': {'type': 'string'}}
    return {
        'openapi': '3.1.0',
        'info': {
            'title': 'Finished runs',
            'version': '1',
            'description': 'Classify images with a trained net.',
        },
        'paths': {
            '/v1/predict': {
                'post': {
                    'summary': 'Classify images',
                    'requestBody': {
                        'required': True,
                        'content': {
                            'application/json': _schema('Query'),
                            'multipart/form-data': _schema('Upload'),
                        },
                    },
                    'responses': {
                        **_success('Answer', 'At least one image could be read.'),
                        **{code: _failure(text) for code, text in PREDICT_FAILURES.items()},
                    },
                }
            },
            '/v1/runs': {'get': {'summary': 'The runs', 'responses': _success('Runs')}},
            '/v1/runs/{run}/map': {
                'get': {
                    'summary': "Where a run's features lie",
                    'parameters': [in_path],
                    'responses': {
                        **_success('RunMap'),
                        '404': _failure('There is no such run, or no map of it.'),
                    },
                }
            },
            '/healthz': {
                'get': {
                    'summary': 'Whether the server works',
                    'responses': {**_success('Health'), '503': _failure('It does not.')},
                }
            },
        },
        'components': {'schemas': schemas['$defs']},
    }


def _schema(name: str) -> dict[str, Any]:
    return {'schema': {'$ref': f'#/components/schemas/{name}'}}


def _success(name: str, text: str = 'Success.') -> dict[str, Any]:
    return {'200': {'description': text, 'content': {'application/json': _schema(name)}}}


def _failure(text: str) -> dict[str, Any]:
    return {'description': text, 'content': {'application/json': _schema('Failure')}}
