"""Pages that have loaded tambur.js, over each transport."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from tambur.server import Server
from tests.support.browser import page

pytest.register_assert_rewrite("tests.system.tambur_js.page")

from .page import HTML, Page, opened  # noqa: E402 - after that, so that its assertions show the values

TRANSPORTS = ["WebSocket", "long polling"]


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture(scope="module")
def address(server: Server) -> Iterator[str]:
    with page(HTML % server.url) as url:
        yield url


@pytest.fixture
def browser(driver: Chrome, address: str, transport: str) -> Iterator[Page]:
    yield from opened(driver, address, transport)


@pytest.fixture
def websocket(driver: Chrome, address: str) -> Iterator[Page]:
    yield from opened(driver, address, "WebSocket")
