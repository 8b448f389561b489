"""A real server for every test that needs one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tambur.server import App, Config, Server, in_background

API_KEY = "30af96de47e3c58329045ff136a4a3ea"
APP_ID = "ws-bot-1"
SECRET = "wsbot"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server with one app and the defaults, shared by the whole run: each test uses streams of its own."""
    with in_background(Config(apps=(App(API_KEY, APP_ID, (SECRET,)),), port=0)) as running:
        yield running


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    """A stream that no other test uses."""
    node_id: str = request.node.nodeid
    return node_id[-150:].replace("/", ".")
