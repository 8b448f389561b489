"""Two users, each with a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from tests.support.browser import chromium

from .site import Site, Window


@pytest.fixture(scope="session")
def browsers() -> Iterator[tuple[Chrome, Chrome]]:
    with chromium() as one, chromium() as other:
        yield one, other


@pytest.fixture
def alice(site: Site, browsers: tuple[Chrome, Chrome]) -> Iterator[Window]:
    """The admin's window, in the lobby."""
    yield from window(site, browsers[0], "alice")


@pytest.fixture
def bob(site: Site, browsers: tuple[Chrome, Chrome]) -> Iterator[Window]:
    """Another user's window, in the lobby."""
    yield from window(site, browsers[1], "bob")


def window(site: Site, driver: Chrome, name: str) -> Iterator[Window]:
    made = Window(site, driver, name)
    made.begin()
    yield made
    assert made.complaints() == []
