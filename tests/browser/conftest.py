"""The browser that the tests of pages look through."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if BROWSER is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        # Where tests run as root, as in containers, Chromium cannot make its sandbox.
        started = running.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The address of the page of ``licquant serve``."""
    from tests.served_page import serving

    with serving() as url:
        yield url


@pytest.fixture(scope="module")
def window(browser: Any, served: str) -> Iterator[Any]:
    """One for all tests: to start the decoder takes longer than to decode."""
    from tests.served_page import Opened

    found = Opened(browser, served)
    yield found
    found.context.close()


@pytest.fixture
def opened(window: Any, served: str) -> Iterator[Any]:
    """The window; fails if the browser complained, or asked anybody else."""
    yield window
    complaints, requests = list(window.complaints), list(window.requests)
    window.complaints.clear()
    window.requests.clear()
    assert complaints == []
    assert [url for url in requests if not url.startswith((served, "blob:"))] == []
