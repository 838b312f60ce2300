"""A real browser for the tests of pages: `make test-browser` installs it and runs them.

This folder is a package, so that its conftest does not hide the one above.
"""

import shutil

import pytest

SIZE = 1280, 900
NEEDS = 'is missing; `make test-browser` installs what these tests need'


def program(*names):
    """The path of the first of these programs that is installed; fails the test without one."""
    return next(filter(None, map(shutil.which, names)), None) or pytest.fail(f'{names[0]} {NEEDS}')


@pytest.fixture(scope='session')
def chromium(tmp_path_factory):
    """A headless Chromium with a new profile and no way to any other machine; a Selenium driver."""
    selenium = pytest.importorskip('selenium.webdriver', reason=f'selenium {NEEDS}')
    options = selenium.ChromeOptions()
    options.binary_location = program('chromium', 'chromium-browser', 'google-chrome')
    for word in (
        'headless',
        'no-sandbox',
        'disable-gpu',
        'disable-quic',
        'no-first-run',
        'disable-background-networking',
        'disable-component-update',
        'disable-sync',
        'disable-dev-shm-usage',
        'host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
        f'user-data-dir={tmp_path_factory.mktemp("profile")}',
    ):
        options.add_argument(f'--{word}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    service = selenium.ChromeService(program('chromedriver'))
    driver = selenium.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium):
    """That browser on an empty page of 1280 x 900; the test fails if its pages log an error.

    A test that expects one takes it out: `browser.get_log('browser')`.
    """
    chromium.get('about:blank')
    chromium.get_log('browser')
    chromium.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})
    chromium.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    chromium.set_window_size(*SIZE)
    yield chromium
    errors = [entry['message'] for entry in chromium.get_log('browser') if entry['level'] == 'SEVERE']
    assert not errors, errors
