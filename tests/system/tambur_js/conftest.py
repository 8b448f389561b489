"""Pages that have loaded tambur.js, over each transport."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tambur.server import Server
from tests.support.browser import Browser, page
from tests.support.firefox import Firefox, firefox

pytest.register_assert_rewrite("tests.system.tambur_js.page", "tests.system.tambur_js.line")

from .page import HTML, Page, opened  # noqa: E402 - after that, so that its assertions show the values

BROWSERS = ["chromium", "Firefox"]
TRANSPORTS = ["WebSocket", "long polling"]


@pytest.fixture(scope="session")
def the_firefox() -> Iterator[Firefox]:
    with firefox() as made:
        yield made


@pytest.fixture(scope="session", params=BROWSERS)
def driver(request: pytest.FixtureRequest, driver: Browser) -> Browser:
    """Each browser, shared by the whole run. Each test opens its own page."""
    if request.param == "chromium":
        return driver
    made: Firefox = request.getfixturevalue("the_firefox")
    return made


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture(scope="module")
def address(server: Server) -> Iterator[str]:
    with page(HTML % server.url) as url:
        yield url


@pytest.fixture
def browser(driver: Browser, address: str, transport: str) -> Iterator[Page]:
    yield from opened(driver, address, transport)


@pytest.fixture
def websocket(driver: Browser, address: str) -> Iterator[Page]:
    yield from opened(driver, address, "WebSocket")
