"""Two users, each with a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

pytest.register_assert_rewrite("tests.system.examples.site", "tests.system.examples.chat")

from .site import Site, Window  # noqa: E402 - after that, so that its assertions show the values


@pytest.fixture
def alice(site: Site, driver: Chrome) -> Iterator[Window]:
    """The admin's window, in the lobby."""
    yield from window(site, driver, "alice")


@pytest.fixture
def bob(site: Site, other_driver: Chrome) -> Iterator[Window]:
    """Another user's window, in the lobby."""
    yield from window(site, other_driver, "bob")


def window(site: Site, driver: Chrome, name: str) -> Iterator[Window]:
    made = Window(site, driver, name)
    made.begin()
    yield made
    assert made.complaints() == []
