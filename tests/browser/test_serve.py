"""The page of serve.py as a person uses it: a mouse that draws, a photograph that is dropped."""

import base64
import io
import threading

import mxnet as mx
import numpy as np
import pytest
import uvicorn
from conftest import RECORD
from serving.conftest import CIFAR, MNIST, SOFTMAX, as_file

from training.data.pictures import read_picture
from training.machine.devices import Device
from training.serving.app import build_app
from training.serving.predictor import Predictor

pytestmark = pytest.mark.browser

# Strokes in shares of the pad.
DIGITS = {
    '1': [[(0.52, 0.15), (0.51, 0.35), (0.5, 0.6), (0.49, 0.85)]],
    '3': [
        [(0.32, 0.28), (0.42, 0.2), (0.55, 0.19), (0.66, 0.26), (0.66, 0.37), (0.56, 0.45), (0.45, 0.48)]
        + [(0.58, 0.5), (0.68, 0.58), (0.7, 0.7), (0.6, 0.8), (0.45, 0.83), (0.33, 0.76)]
    ],
    '4': [[(0.32, 0.2), (0.3, 0.5), (0.7, 0.5)], [(0.66, 0.2), (0.64, 0.85)]],
    '7': [[(0.28, 0.22), (0.5, 0.22), (0.72, 0.22), (0.6, 0.45), (0.45, 0.85)]],
}
SCRIBBLE = [
    [(0.2, 0.2), (0.8, 0.8), (0.2, 0.8), (0.8, 0.2), (0.5, 0.9), (0.5, 0.1), (0.1, 0.5), (0.9, 0.5)],
    [(0.3, 0.3), (0.3, 0.9), (0.7, 0.9), (0.7, 0.1), (0.1, 0.1), (0.9, 0.9)],
]


@pytest.fixture(scope='module')
def address():
    """Of a server with three kept runs."""
    device = Device('cpu', (0,), 'float32')
    app = build_app([Predictor(RECORD / name, device, mx.cpu()) for name in (MNIST, CIFAR, SOFTMAX)])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level='warning'))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f'http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}'
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(browser, address):
    """Opens the page with a run, and waits until it can be used."""

    def open_page(run):
        browser.get('about:blank')
        browser.get(f'{address}/#{run}')
        wait(browser, lambda: element(browser, 'run').get_attribute('value') == run)
        wait(browser, lambda: text(browser, 'sure') in ('Nothing drawn yet', 'No image yet'))
        return browser

    return open_page


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30, poll_frequency=0.1).until(lambda _: condition())


def element(browser, name):
    return browser.find_element('id', name)


def text(browser, name):
    return element(browser, name).text


def draw(browser, strokes):
    """Draw strokes with the mouse, and wait for the answer to the last one."""
    from selenium.webdriver.common.action_chains import ActionChains

    pad = element(browser, 'pad')
    side = pad.size['width']
    actions = ActionChains(browser, duration=10)
    for stroke in strokes:
        for number, (x, y) in enumerate(stroke):
            actions.move_to_element_with_offset(pad, int((x - 0.5) * side), int((y - 0.5) * side))
            if number == 0:
                actions.click_and_hold()
        actions.release()
    actions.perform()
    settle(browser)


def settle(browser):
    """Wait until no request is under way."""
    wait(browser, lambda: browser.execute_script('return document.body.getAttribute("aria-busy")') == 'false')


def ring(browser):
    """Where the ring is on the map, in its pixels."""
    (found,) = browser.find_elements('css selector', '#map .ring')
    return np.array([float(found.get_attribute(name)) for name in ('cx', 'cy')])


def mean(browser, name):
    """Where the name of a class is on the map."""
    (found,) = [one for one in browser.find_elements('css selector', '#map .name') if one.text == name]
    return np.array([float(found.get_attribute(name)) for name in 'xy'])


@pytest.mark.parametrize('digit', DIGITS)
def test_digit_is_recognised_and_lies_at_its_class(page, digit):
    browser = page(MNIST)
    draw(browser, DIGITS[digit])
    assert text(browser, 'class') == digit and text(browser, 'flag') == 'Like the training data'
    assert np.linalg.norm(ring(browser) - mean(browser, digit)) < 40
    best = browser.find_element('css selector', '#bars .best')
    assert best.text.startswith(digit) and text(browser, 'sure') in best.text


def test_scribble_is_flagged_and_clearing_takes_it_away(page):
    browser = page(MNIST)
    draw(browser, SCRIBBLE)
    assert text(browser, 'flag') == 'Unlike the training data'
    assert element(browser, 'flag').get_attribute('class') == 'unlike'
    element(browser, 'undo').click()
    element(browser, 'clear').click()
    settle(browser)
    assert text(browser, 'class') == '–' and not element(browser, 'flag').is_displayed()
    assert not browser.find_elements('css selector', '#map .ring')


def test_answer_changes_while_a_stroke_is_drawn(page):
    from selenium.webdriver.common.action_chains import ActionChains

    browser = page(MNIST)
    pad = element(browser, 'pad')
    actions = ActionChains(browser, duration=50)
    actions.move_to_element_with_offset(pad, 0, -90).click_and_hold()
    actions.move_to_element_with_offset(pad, 0, 90).perform()
    settle(browser)
    assert text(browser, 'class') == '1'
    ActionChains(browser).move_to_element_with_offset(pad, 110, 90).release().perform()
    settle(browser)
    assert text(browser, 'class') != '1' or text(browser, 'flag') == 'Unlike the training data'


def test_dropped_photograph_is_classified(page, cifar):
    _, test = cifar
    browser = page(CIFAR)
    content = as_file(np.kron(test.images[7], np.ones((1, 8, 8), np.uint8)))
    browser.execute_script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], 'frog.png', {type: 'image/png'}));
        document.getElementById('board').dispatchEvent(
            new DragEvent('drop', {dataTransfer, bubbles: true, cancelable: true}));
        """,
        base64.b64encode(content).decode(),
    )
    settle(browser)
    assert text(browser, 'class') == 'frog' and text(browser, 'flag') == 'Like the training data'
    seen = browser.execute_script(
        """
        const image = document.getElementById('input');
        const canvas = Object.assign(document.createElement('canvas'), {width: 32, height: 32});
        const context = canvas.getContext('2d');
        context.drawImage(image, 0, 0);
        return [image.naturalWidth, ...context.getImageData(0, 0, 32, 32).data];
        """
    )
    assert seen[0] == 32
    pixels = np.reshape(seen[1:], (32, 32, 4))[:, :, :3].transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels, read_picture(io.BytesIO(content), (3, 32, 32)))


def test_file_that_is_no_image_is_said_and_the_next_one_works(page, cifar, tmp_path):
    browser = page(CIFAR)
    (tmp_path / 'notes.png').write_text('no image')
    (tmp_path / 'photo.png').write_bytes(as_file(cifar[1].images[7]))
    element(browser, 'file').send_keys(str(tmp_path / 'notes.png'))
    settle(browser)
    assert 'no image that can be read' in text(browser, 'problem')
    browser.get_log('browser')  # Chromium lists an answer of 422 as an error
    element(browser, 'file').send_keys(str(tmp_path / 'photo.png'))
    settle(browser)
    assert not element(browser, 'problem').is_displayed() and text(browser, 'class') == 'frog'


def test_run_without_likelihood_and_map_shows_neither(page, cifar, tmp_path):
    browser = page(SOFTMAX)
    (tmp_path / 'photo.png').write_bytes(as_file(cifar[1].images[7]))
    element(browser, 'file').send_keys(str(tmp_path / 'photo.png'))
    settle(browser)
    assert text(browser, 'class') == 'frog'
    for name in ('flag', 'likelihood', 'place'):
        assert not element(browser, name).is_displayed()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_page_fits_a_phone_and_can_be_read(page, browser, scheme):
    browser.execute_cdp_cmd(
        'Emulation.setEmulatedMedia', {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]}
    )
    browser.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        {'width': 360, 'height': 740, 'deviceScaleFactor': 2, 'mobile': True},
    )
    page(MNIST)
    assert browser.execute_script('return document.documentElement.scrollWidth') <= 360
    draw(browser, DIGITS['7'])
    assert text(browser, 'class') == '7'
    for name in ('about', 'class', 'sure', 'flag', 'threshold', 'legend', 'run', 'clear'):
        assert contrast(browser, name) >= 4.5, name


def contrast(browser, name):
    """The contrast of an element's text with what is behind it, as WCAG defines it."""
    colours = browser.execute_script(
        """
        let element = document.getElementById(arguments[0]);
        const text = getComputedStyle(element).color;
        const back = () => getComputedStyle(element).backgroundColor;
        while (back() === 'rgba(0, 0, 0, 0)') element = element.parentElement;
        return [text, back()];
        """,
        name,
    )
    levels = []
    for colour in colours:
        share = np.array([float(part) for part in colour[colour.index('(') + 1 : -1].split(',')[:3]]) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        levels.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(levels) + 0.05) / (min(levels) + 0.05)


def test_all_controls_are_reached_by_the_keyboard(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser = page(MNIST)
    draw(browser, DIGITS['7'])
    reached = ['run']
    browser.execute_script('document.getElementById("run").focus()')
    for _ in range(4):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(browser.switch_to.active_element.get_attribute('id'))
    assert reached == ['run', 'pad', 'undo', 'clear', 'file']
    element(browser, 'pad').send_keys(Keys.ESCAPE)
    settle(browser)
    assert text(browser, 'class') == '–'
