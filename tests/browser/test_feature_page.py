"""The page of feature maps as a reader uses it, in a real browser."""

import numpy as np
import pytest
from recorded_run import CLASSES, COUNT, EPOCHS, SPLITS, images, labels, record_run, snapshot
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from training.runs import feature_page
from training.runs.folder import RunFolder

pytestmark = pytest.mark.browser

TRAIN, TEST = range(SPLITS[0]), range(SPLITS[0], COUNT)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Folders of two runs of the same images, each with its page; the second has no mixture."""
    root = tmp_path_factory.mktemp('runs')
    folders = record_run(root / 'mixture'), record_run(root / 'centers', mixture=False, seed=1)
    pages = [[(path.name, path)] for path in folders]
    for path, content in zip((*folders, root), (*pages, sum(pages, []))):
        RunFolder(path).write_figure('features.html', feature_page.write, content)
    return folders


def wait(browser, condition):
    return WebDriverWait(browser, 20, 0.05).until(lambda _: condition())


def script(browser, text, *words):
    return browser.execute_script(f'return {text}', *words)


def open_page(browser, folder):
    browser.get((folder / 'features.html').as_uri())
    wait(browser, lambda: script(browser, 'document.body.dataset.ready'))


def drawn(browser, name, number=0):
    """The columns of a source as they are drawn now."""
    columns = script(browser, f'maps[{number}].model("{name}").data')
    return {column: list(values) for column, values in columns.items()}


def move_to(browser, sample, number=0):
    """Move the pointer to where a sample is drawn."""
    box = browser.find_elements(By.CSS_SELECTOR, '.map')[number]
    x, y = script(browser, f'maps[{number}].screen({sample})')
    pixels = round(x - box.size['width'] / 2), round(y - box.size['height'] / 2)
    ActionChains(browser, duration=0).move_to_element_with_offset(box, *pixels).perform()


def alone(browser, epoch=EPOCHS):
    """A test sample with no other test sample near it on the map."""
    points = snapshot(epoch).test_features
    apart = np.linalg.norm(points[:, None] - points, axis=2) + 1e9 * np.eye(len(points))
    return SPLITS[0] + int(apart.min(axis=1).argmax())


def click(browser, selector):
    script(browser, 'document.querySelector(arguments[0]).click()', selector)


def points(browser):
    columns = drawn(browser, 'points')
    return np.array([columns['x'], columns['y']]).T


def features(epoch, chosen):
    """Features of samples by number, as the page orders them: correct ones before mistakes."""
    one = snapshot(epoch)
    wrong = one.predicted != labels()
    order = sorted(chosen, key=lambda number: wrong[number])
    return np.concatenate([one.train_features, one.test_features])[order]


def test_slider_moves_the_points_to_their_epoch(browser, runs):
    open_page(browser, runs[0])
    slider = browser.find_element(By.ID, 'slider')
    for epoch in (3, 2, 1):
        assert browser.find_element(By.ID, 'epoch').text == f'epoch {epoch} / {EPOCHS}'
        expected = features(epoch, TEST)
        np.testing.assert_allclose(points(browser), expected, atol=2e-4 * np.ptp(expected))
        np.testing.assert_allclose(
            [drawn(browser, 'centers')[axis] for axis in 'xy'], snapshot(epoch).centers.T, rtol=1e-4
        )
        slider.send_keys(Keys.ARROW_LEFT)


def test_play_goes_on_to_the_last_epoch(browser, runs):
    open_page(browser, runs[0])
    browser.find_element(By.ID, 'slider').send_keys(Keys.HOME)
    assert script(browser, 'document.body.dataset.epoch') == '1'
    browser.find_element(By.ID, 'play').click()
    assert script(browser, 'state.playing')
    wait(browser, lambda: script(browser, 'document.body.dataset.epoch') == str(EPOCHS))
    wait(browser, lambda: not script(browser, 'state.playing'))
    expected = features(EPOCHS, TEST)
    np.testing.assert_allclose(points(browser), expected, atol=2e-4 * np.ptp(expected))


def test_hover_shows_the_image_pixel_by_pixel_and_what_the_net_says_of_it(browser, runs):
    open_page(browser, runs[0])
    sample = alone(browser)
    move_to(browser, sample)
    wait(browser, lambda: browser.find_elements(By.ID, 'tip'))
    pixels = script(
        browser,
        'Array.from(document.querySelector("#tip canvas").getContext("2d").getImageData(0, 0, 28, 28).data)',
    )
    image = np.reshape(pixels, (28, 28, 4))
    for channel in range(3):
        np.testing.assert_array_equal(image[..., channel], images()[sample, 0])
    one, text = snapshot(EPOCHS), browser.find_element(By.ID, 'tip').text
    true, predicted = labels()[sample], one.predicted[sample]
    mark = '✓' if true == predicted else '✗'
    assert f'true class\n{CLASSES[true]}\ntest image {sample - SPLITS[0]}' in text
    assert f'predicted {CLASSES[predicted]} {mark}' in text
    assert f'probability {one.probability[sample]:.4f}'[:-1] in text
    assert f'log-likelihood {one.log_likelihood[sample]:.3g}'[:-1] in text
    corner = browser.find_element(By.TAG_NAME, 'h1')
    ActionChains(browser, duration=0).move_to_element(corner).perform()
    wait(browser, lambda: not browser.find_elements(By.ID, 'tip'))


def test_click_keeps_a_sample_through_the_epochs(browser, runs):
    open_page(browser, runs[0])
    sample = alone(browser)
    move_to(browser, sample)
    ActionChains(browser).click().perform()
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, '#kept .card'))
    browser.find_element(By.ID, 'slider').send_keys(Keys.HOME)
    card = browser.find_element(By.CSS_SELECTOR, '#kept .card')
    assert card.get_attribute('data-sample') == str(sample)
    assert f'probability {snapshot(1).probability[sample]:.4f}'[:-1] in card.text
    browser.find_element(By.ID, 'slider').send_keys(Keys.END)
    trail = drawn(browser, 'trails')['xs'][0]
    path = [snapshot(epoch).test_features[sample - SPLITS[0]][0] for epoch in (1, 2, 3)]
    np.testing.assert_allclose(trail, path, atol=0.01)
    card = browser.find_element(By.CSS_SELECTOR, '#kept .card')
    card.find_element(By.TAG_NAME, 'button').click()
    assert not browser.find_elements(By.CSS_SELECTOR, '#kept .card')


def test_keyboard_points_keeps_and_turns_the_epochs(browser, runs):
    open_page(browser, runs[0])
    box = browser.find_element(By.CSS_SELECTOR, '.map')
    for key in (Keys.ARROW_UP, Keys.ARROW_LEFT):
        box.send_keys(key)
    pointed = script(browser, 'state.pointed')
    assert pointed in TEST and browser.find_element(By.ID, 'tip')
    assert CLASSES[labels()[pointed]] in browser.find_element(By.ID, 'spoken').get_attribute('textContent')
    box.send_keys(Keys.ENTER)
    assert script(browser, 'state.kept') == [pointed]
    box.send_keys(',')
    assert script(browser, 'document.body.dataset.epoch') == '2'
    box.send_keys(Keys.ESCAPE)
    assert script(browser, 'state.kept') == []
    focusable = 'button:not([hidden]), input, .map'
    assert script(
        browser, '[...document.querySelectorAll(arguments[0])].every(one => one.tabIndex >= 0)', focusable
    )


def test_filters_choose_splits_classes_and_mistakes(browser, runs):
    open_page(browser, runs[0])
    one = snapshot(EPOCHS)
    wrong = one.predicted != labels()
    caption = browser.find_element(By.TAG_NAME, 'figcaption')
    for split, chosen in (('train', TRAIN), ('both', range(COUNT)), ('test', TEST)):
        click(browser, f'#splits input[value={split}]')
        assert len(points(browser)) == len(chosen)
        assert f'{wrong[list(chosen)].sum()} mistakes in {len(chosen)} ' in caption.text
    click(browser, '#classes input[value="1"]')
    np.testing.assert_allclose(
        points(browser), features(EPOCHS, [n for n in TEST if labels()[n] != 1]), atol=0.01
    )
    assert len(drawn(browser, 'centers')['x']) == len(drawn(browser, 'ellipses')['x']) == 2
    click(browser, '#mistakes')
    left = [n for n in TEST if wrong[n] and labels()[n] != 1]
    np.testing.assert_allclose(points(browser), features(EPOCHS, left), atol=0.01)
    click(browser, '#none')
    assert not len(points(browser))
    click(browser, '#all')
    click(browser, '#mistakes')
    assert len(points(browser)) == len(TEST)


def test_means_ellipses_and_contour_can_be_left_out(browser, runs):
    open_page(browser, runs[0])
    for box, source in (('centers', 'centers'), ('ellipses', 'ellipses'), ('contour', 'contour')):
        column = 'xs' if source == 'contour' else 'x'
        assert drawn(browser, source)[column]
        click(browser, f'#{box}')
        assert not drawn(browser, source)[column]
    open_page(browser, runs[1])
    assert not browser.find_element(By.ID, 'ellipses').is_displayed()
    assert browser.find_element(By.ID, 'centers-name').text == 'centers'


def test_samples_are_marked_in_all_runs_of_a_page(browser, runs):
    open_page(browser, runs[0].parent)
    assert 'mixture' in browser.title and 'centers' in browser.title
    sample = alone(browser)
    move_to(browser, sample)
    wait(browser, lambda: browser.find_elements(By.ID, 'tip'))
    other = snapshot(EPOCHS, mixture=False, seed=1).test_features[sample - SPLITS[0]]
    rings = drawn(browser, 'rings', number=1)
    np.testing.assert_allclose([rings['x'][0], rings['y'][0]], other, atol=0.01)
    rows = browser.find_elements(By.CSS_SELECTOR, '#tip tr')
    assert [row.text.split()[0] for row in rows[1:]] == ['mixture', 'centers']


def test_axes_of_more_dimensions_are_named(browser, tmp_path):
    folder = record_run(tmp_path / 'run', dimensions=5)
    RunFolder(folder).write_figure('features.html', feature_page.write, [('run', folder)])
    open_page(browser, folder)
    about = browser.find_element(By.ID, 'about').text
    assert 'PCA, fitted once on the last epoch' in about and 'of the variance of 5 features' in about


def test_light_dark_and_the_width_of_a_phone(browser, runs):
    colour = 'maps[0].figure.background_fill_color'
    open_page(browser, runs[0])
    light = script(browser, colour)
    dark = {'features': [{'name': 'prefers-color-scheme', 'value': 'dark'}]}
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dark)
    wait(browser, lambda: script(browser, colour) != light)
    phone = {'width': 390, 'height': 800, 'deviceScaleFactor': 1, 'mobile': True}
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', phone)
    open_page(browser, runs[0].parent)
    assert script(browser, 'document.documentElement.scrollWidth') <= 390
    assert script(browser, 'document.querySelector(".plot").offsetWidth') > 300
