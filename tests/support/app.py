"""The app that tests use, its publishers and its subscribers."""

from __future__ import annotations

import contextlib

from tambur import Tambur
from tambur.server import App, Server
from tambur.subscriber import Subscriber

API_KEY = "30af96de47e3c58329045ff136a4a3ea"
APP_ID = "ws-bot-1"
SECRET = "wsbot"
APP = App(API_KEY, APP_ID, (SECRET,))


def tambur_url(server: Server) -> str:
    """The ``TAMBUR_URL`` of the app that tests use."""
    return f"http://{API_KEY}:{SECRET}@{server.url.removeprefix('http://')}/app/{APP_ID}"


def publisher(server: Server) -> Tambur:
    """A publisher for the app that tests use."""
    return Tambur(API_KEY, APP_ID, SECRET, server.url)


def subscriber(server: Server, *streams: str, timeout: float = 60.0, reconnect: bool = False) -> Subscriber:
    """A subscriber to the app that tests use, which receives some streams."""
    with contextlib.ExitStack() as unless_refused:
        made = Subscriber(API_KEY, APP_ID, server.url, timeout=timeout, reconnect=reconnect)
        unless_refused.enter_context(made)
        for name in streams:
            made.subscribe(name)
        unless_refused.pop_all()
    return made
