"""A real server for every test that needs one."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from tambur import Tambur
from tambur.server import App, Config, Server, in_background
from tambur.subscriber import Subscriber

from .support.browser import chromium
from .support.redis_server import RedisServer

API_KEY = "30af96de47e3c58329045ff136a4a3ea"
APP_ID = "ws-bot-1"
SECRET = "wsbot"
APP = App(API_KEY, APP_ID, (SECRET,))


# A shell that starts the tests in the background has them ignore it, and what they start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server with one app and the defaults, shared by the whole run: each test uses streams of its own."""
    with in_background(Config(apps=(APP,), port=0)) as running:
        yield running


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that keeps running."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.end()


@pytest.fixture(scope="session")
def driver() -> Iterator[Chrome]:
    """A browser, shared by the whole run: each test opens a page of its own."""
    with chromium() as made:
        yield made


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    """A stream that no other test uses."""
    return hashlib.sha1(request.node.nodeid.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
def tambur(server: Server) -> Iterator[Tambur]:
    """A publisher for the shared server."""
    with publisher(server) as made:
        yield made


def publisher(server: Server) -> Tambur:
    """A publisher for the app that tests use."""
    return Tambur(API_KEY, APP_ID, SECRET, server.url)


def subscriber(server: Server, *streams: str, timeout: float = 10.0, reconnect: bool = False) -> Subscriber:
    """A subscriber to the app that tests use, which receives some streams."""
    with contextlib.ExitStack() as unless_refused:
        made = Subscriber(API_KEY, APP_ID, server.url, timeout=timeout, reconnect=reconnect)
        unless_refused.enter_context(made)
        for name in streams:
            made.subscribe(name)
        unless_refused.pop_all()
    return made
