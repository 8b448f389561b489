"""The demo, for the tests of its page and of its requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tambur.cli.demo.page import make_routes
from tambur.server import Config, Server, in_background

from ..support.demo import CREDENTIALS


@pytest.fixture(scope="package")
def demo() -> Iterator[Server]:
    """A server with the page of the demo."""
    with in_background(Config.from_credentials(CREDENTIALS, port=0), make_routes(CREDENTIALS)) as running:
        yield running
