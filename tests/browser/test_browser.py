"""The browser that the other tests use."""

import pytest

pytestmark = pytest.mark.browser


def test_no_other_machine_can_be_reached(browser, tmp_path):
    page = tmp_path / 'page.html'
    page.write_text('<title>page</title><script src="https://example.com/library.js"></script>')
    browser.get(page.as_uri())
    assert browser.title == 'page'
    (error,) = browser.get_log('browser')
    assert 'ERR_NAME_NOT_RESOLVED' in error['message']
