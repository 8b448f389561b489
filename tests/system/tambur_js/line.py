"""A page whose connection goes through a proxy, which a test can cut."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest

from tambur import Tambur
from tambur.server import App, Config, Limits, Server, in_background
from tests.support.app import APP, publisher
from tests.support.browser import Browser, page, wait
from tests.support.tcp_proxy import TcpProxy

from .page import HTML, Page, opened

STREAM = "room"

WATCH = """
    me.log = [];
    me.onerror = null;
    me.addEventListener("error", (event) => { event.preventDefault(); me.log.push(["error", event.detail.code]) });
    me.ready = () => me.log.push("ready");
    me.onresume = function (it) { me.log.push(["resume", it === me && this === me, me.state]) };
    for (const name of ["room", "private"]) {
      me.get_stream(name).ready = () => me.log.push([name, "ready"]);
    }
    me.log = [];
"""
LOST = ["error", "connection_lost"]
RESUMED = ["resume", True, "connected"]
LIMITS = Limits(history_messages=3)
IN_CHROMIUM = pytest.mark.parametrize("driver", ["chromium"], indirect=True, scope="session")
"""Firefox runs the core tests only: nothing else differs there."""


@dataclasses.dataclass
class Line:
    """A page that is connected to a server through a proxy."""

    page: Page
    server: Server
    proxy: TcpProxy
    tambur: Tambur
    options: dict[str, object]
    id: str = ""

    def join(self) -> None:
        host = f"127.0.0.1:{self.proxy.port}"
        self.id = self.page.connect("me", STREAM, "private", host=host, **self.options)
        self.page.run(WATCH)

    def follow_link(self) -> None:
        """Leave the page for another one, and connect there once the server has noticed."""
        before = self.subscribers()
        self.page.driver.get(
            self.page.run("const next = new URL(location.href); next.search = 'next'; return next.href")
        )
        wait(self.page.driver, lambda _: self.subscribers() < before)
        self.join()

    def subscribers(self) -> int:
        """How many subscribers of STREAM the server has."""
        return sum(found.subscribers for found in self.tambur.streams(STREAM))

    def wait_until_resumed(self) -> None:
        self.page.wait("window.me && me.log.some(([what]) => what === 'resume')")

    def cut(self) -> None:
        """Break the connection, and let none through."""
        self.proxy.refuse(True)
        self.proxy.drop()
        self.page.wait("!me.get_stream('room').active")

    def mend(self) -> None:
        self.proxy.refuse(False)
        self.page.wait("me.get_stream('room').active")

    def enable(self, mode: str) -> None:
        """Enable a mode, as alice if it takes a user."""
        self.page.run(f"me.get_stream('room').enable_{mode}(...arguments[0])", self.token(mode))
        self.page.wait(f"me.get_stream('room').enabled_modes.includes({mode!r})")

    def token(self, mode: str) -> list[str]:
        if mode == "auth":
            return [self.tambur.generate_auth_token(STREAM, self.id)]
        make = getattr(self.tambur, f"generate_{mode}_token")
        return ["alice", make(STREAM, "alice", self.id)]

    def forget(self) -> None:
        """Lose what was published, as where the server keeps less than what comes."""
        for number in range(4):
            self.tambur.publish(STREAM, f"lost {number}")

    def log(self) -> list[object]:
        """The events until now, without failed attempts to connect."""
        entries: list[object] = self.page.run("return me.log.splice(0)")
        return [entry for entry in entries if entry != ["error", "cannot_connect"]]


@contextlib.contextmanager
def joined(
    driver: Browser,
    transport: str,
    app: App = APP,
    limits: Limits = LIMITS,
    before: str = "",
    **options: object,
) -> Iterator[Line]:
    """Serve a page that is connected through a proxy, and has subscribed to STREAM and to private messages.

    Parameters:
        before: a script that runs before the page connects.
    """
    config = Config(apps=(app,), port=0, limits=limits)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(in_background(config))
        proxy = stack.enter_context(TcpProxy(int(server.url.rpartition(":")[2])))
        address = stack.enter_context(page(HTML % server.url))
        tambur = stack.enter_context(publisher(server))
        opening = opened(driver, address, transport)
        line = Line(next(opening), server, proxy, tambur, options)
        line.page.run(before)
        line.join()
        yield line
        assert list(opening) == []
