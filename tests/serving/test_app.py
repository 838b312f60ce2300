"""The server answers as predict.py does, and names in one line what is wrong with a request."""

import base64
import io
import json
import re

import numpy as np
import pytest
from conftest import RECORD
from PIL import Image
from starlette.testclient import TestClient

from training.data import datasets
from training.data.pictures import place_digit
from training.serving import messages
from training.serving.app import build_app
from training.serving.intake import Limits

from .conftest import CENTER, CIFAR, MNIST, SOFTMAX, as_file

BLACK = as_file(np.zeros((1, 28, 28), np.uint8))


@pytest.fixture(scope='module')
def pictures(cifar, tmp_path_factory):
    """{run: {name: file content}} of real test images, and an enlarged one as JPEG; as files too."""
    sets = {MNIST: datasets.load_mnist()[1], CIFAR: cifar[1], SOFTMAX: cifar[1]}
    folder, found = tmp_path_factory.mktemp('pictures'), {}
    for run, split in sets.items():
        (folder / run).mkdir()
        files = {f'{number:02d}.png': as_file(split.images[number]) for number in range(40)}
        large = np.kron(split.images[40], np.ones((1, 3, 3), np.uint8))
        found[run] = {**files, 'photo.jpeg': as_file(large, 'JPEG', quality=90)}
        for name, content in found[run].items():
            (folder / run / name).write_bytes(content)
    return folder, found


def post(client, *contents, **fields):
    """Image files by multipart."""
    return client.post('/v1/predict', files=[('images', ('image', part)) for part in contents], data=fields)


def in_base64(content):
    return base64.b64encode(content).decode()


@pytest.mark.parametrize('run', [MNIST, CIFAR, SOFTMAX])
def test_answers_are_those_of_predict(client, pictures, run_here, run, tmp_path):
    folder, files = pictures
    assert run_here('predict', RECORD / run, folder / run, '--output', tmp_path / 'out.json') == 0
    rows = json.loads((tmp_path / 'out.json').read_text())
    uploaded = post(client, *files[run].values(), run=run)
    in_json = client.post(
        '/v1/predict', json={'run': run, 'images': [in_base64(content) for content in files[run].values()]}
    )
    one_by_one = [post(client, content, run=run).json()['predictions'][0] for content in files[run].values()]
    for entries in (uploaded.json()['predictions'], in_json.json()['predictions'], one_by_one):
        assert len(entries) == len(rows) == 41
        for entry, row in zip(entries, rows):
            assert (entry['class'], entry['unlike_training']) == (row['class'], row['unlike_training'])
            assert entry['probability'] == pytest.approx(row['probability'], abs=1e-5)
            assert entry['probability'] == max(entry['probabilities'])
            assert entry['log_likelihood'] == pytest.approx(row['log_likelihood'], abs=2e-3)
    assert uploaded.status_code == in_json.status_code == 200 and uploaded.json()['run'] == run


def test_bad_image_has_an_error_of_its_own(client, pictures):
    good = list(pictures[1][MNIST].values())[:2]
    broken = good[0][:80]
    entries = post(client, good[0], broken, b'', b'GIF89a', good[1]).json()['predictions']
    assert ['error' in entry for entry in entries] == [False, True, True, True, False]
    alone = post(client, *good).json()['predictions']
    assert [entries[0]['class'], entries[4]['class']] == [entry['class'] for entry in alone]
    assert all(entry['error'].startswith('no image that can be read (') for entry in entries[1:4])
    assert not any('0x' in entry['error'] for entry in entries[1:4])
    response = client.post('/v1/predict', json={'images': ['###', in_base64(BLACK)]})
    assert 'no base64' in response.json()['predictions'][0]['error']
    assert response.json()['predictions'][1]['class'] and response.status_code == 200
    response = post(client, broken)
    assert response.status_code == 422 and 'error' in response.json()['predictions'][0]


def test_what_is_asked_for_is_given_too(client, predictors, pictures):
    content = pictures[1][CIFAR]['photo.jpeg']
    (entry,) = post(client, content, run=CIFAR, include=['features', 'input', 'position']).json()[
        'predictions'
    ]
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry['input'])))).transpose(2, 0, 1)
    assert seen.shape == (3, 32, 32)
    np.testing.assert_allclose(entry['features'], predictors[CIFAR](seen[None]).features[0], atol=1e-4)
    assert len(entry['features']) == 64 and len(entry['position']) == 2
    (entry,) = post(client, BLACK, include=['features', 'position']).json()['predictions']
    np.testing.assert_allclose(entry['position'], entry['features'], atol=1e-4)
    (entry,) = post(client, BLACK).json()['predictions']
    assert not {'features', 'position', 'input'} & set(entry)


def test_drawing_is_placed_as_a_digit(client, predictors):
    drawn = Image.new('L', (280, 280))
    drawn.paste(255, (200, 30, 222, 150))
    file = io.BytesIO()
    drawn.save(file, 'PNG')
    (entry,) = post(client, file.getvalue(), drawing='true', include='input').json()['predictions']
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry['input']))))
    np.testing.assert_array_equal(seen, place_digit(drawn, (28, 28)))
    assert entry['class'] == '1' and entry['unlike_training'] is False
    response = post(client, file.getvalue(), drawing='true', run=CIFAR)
    assert response.status_code == 422 and CIFAR in response.json()['error']


@pytest.mark.parametrize(
    'status, message, request_',
    [
        (422, 'images: Field required', {'json': {}}),
        (422, 'images: List should have at least 1 item', {'json': {'images': []}}),
        (422, 'images.0: Input should be a valid string', {'json': {'images': [3]}}),
        (422, 'colour: Extra inputs', {'json': {'images': ['a'], 'colour': 1}}),
        (422, 'include.0: Input should be', {'json': {'images': ['a'], 'include': ['more']}}),
        (422, 'Invalid JSON', {'content': b'{"images"', 'headers': {'Content-Type': 'application/json'}}),
        (422, 'Invalid JSON', {'content': b'[' * 10**5, 'headers': {'Content-Type': 'application/json'}}),
        (422, 'Missing boundary', {'content': b'a', 'headers': {'Content-Type': 'multipart/form-data'}}),
        (422, 'images: expected files', {'files': {'images': (None, 'text')}}),
        (422, 'images: Field required', {'files': {'image': ('a.png', BLACK)}, 'data': {}}),
        (
            422,
            'drawing: Input should be',
            {'files': {'images': ('a', BLACK)}, 'data': {'drawing': 'perhaps'}},
        ),
        (
            404,
            f'run none: there is none of this name, only {MNIST}',
            {'json': {'images': ['a'], 'run': 'none'}},
        ),
        (422, f'{SOFTMAX} has no map', {'json': {'images': ['a'], 'run': SOFTMAX, 'include': ['position']}}),
        (415, 'content type missing: expected application/json or', {'content': b'{}'}),
        (415, 'content type text/plain', {'content': b'{}', 'headers': {'Content-Type': 'text/plain'}}),
    ],
)
def test_what_is_wrong_with_a_request_is_one_line(client, status, message, request_):
    response = client.post('/v1/predict', **request_)
    assert response.status_code == status
    error = messages.Failure.model_validate(response.json()).error
    assert message in error and '\n' not in error


def test_limits_hold(predictors):
    limits = Limits(body=20_000, bodies=30_000, images=3, pixels=100 * 100, waiting=2, seconds=0.2)
    with TestClient(build_app([predictors[MNIST]], limits)) as client:

        def error(response, status):
            assert response.status_code == status
            return response.json()['error']

        assert 'at most 20,000 bytes' in error(client.post('/v1/predict', content=b'0' * 20_001), 413)
        pieces = (b'0' * 1000 for _ in range(21))  # without a length in the headers
        headers = {'Content-Type': 'application/json'}
        assert 'too large' in error(client.post('/v1/predict', content=pieces, headers=headers), 413)
        assert '4 images: at most 3' in error(client.post('/v1/predict', json={'images': ['a'] * 4}), 413)
        assert '4 images: at most 3' in error(post(client, *[BLACK] * 4), 413)
        assert error(post(client, *[BLACK] * 30), 422)
        response = post(client, *[BLACK] * 3)
        assert 'at most 2 may; try again' in error(response, 503) and response.headers['Retry-After'] == '1'
        large = as_file(np.zeros((1, 101, 100), np.uint8))
        first, second = post(client, large, BLACK).json()['predictions']
        assert first == {'error': '100 x 101 pixels, more than the 10,000 that are allowed'}
        assert second['class']


def test_our_own_mistake_is_said_without_its_details(predictors, monkeypatch):
    class Broken:
        name, centers, mixture, shape = 'broken', None, None, (1, 28, 28)
        folder, recipe = predictors[SOFTMAX].folder, predictors[SOFTMAX].recipe

        def __call__(self, images):
            raise RuntimeError('secret')

    with TestClient(build_app([Broken()]), raise_server_exceptions=False) as client:
        response = post(client, BLACK)
        assert response.status_code == 500 and 'secret' not in response.text
        assert client.get('/healthz').json() == {'status': 'ok', 'waiting': 0}


def test_responses_are_what_the_description_says(client):
    description = client.get('/openapi.json').json()
    assert description['openapi'].startswith('3.1')
    names = set(re.findall(r'#/components/schemas/(\w+)', json.dumps(description)))
    assert names <= set(description['components']['schemas'])
    answer = post(client, BLACK, b'none', include=['features', 'position', 'input']).json()
    assert len(messages.Answer.model_validate(answer).predictions) == 2
    runs = messages.Runs.model_validate(client.get('/v1/runs').json()).runs
    assert [run.name for run in runs] == [MNIST, CIFAR, SOFTMAX, CENTER]
    assert [run.drawing for run in runs] == [True, False, False, True]
    assert [run.map for run in runs] == [True, True, False, True]
    assert [run.threshold is None for run in runs] == [False, False, True, True]
    for run in (MNIST, CIFAR, CENTER):
        messages.RunMap.model_validate(client.get(f'/v1/runs/{run}/map').json())
    assert client.get(f'/v1/runs/{SOFTMAX}/map').status_code == 404
    messages.Health.model_validate(client.get('/healthz').json())
    for path, methods in description['paths'].items():
        for method in methods:
            response = client.request(method, path.replace('{run}', MNIST))
            assert str(response.status_code) in methods[method]['responses']


def test_page_is_served_with_all_that_it_needs_and_reaches_nothing_else(client):
    page = client.get('/')
    assert page.headers['content-type'].startswith('text/html')
    assert "default-src 'none'" in page.headers['content-security-policy']
    for kind, name in (('css', 'style.css'), ('javascript', 'page.js'), ('javascript', 'map.js')):
        file = client.get(f'/{name}')
        assert kind in file.headers['content-type'] and file.status_code == 200
        assert 'https://' not in file.text.replace('http://www.w3.org/', '')
    assert client.get('/missing.js').status_code == 404
