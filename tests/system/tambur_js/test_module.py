"""tambur.js as an ES module: from a Tambur server, and as a part of a bundle."""

from __future__ import annotations

from importlib import resources

import pytest

from tambur import Tambur
from tambur.server import Server
from tests.support.app import API_KEY, APP_ID

from .line import IN_CHROMIUM
from .page import Page

MODULE = (resources.files("tambur.server") / "static" / "tambur.mjs").read_text("utf-8")


def load(page: Page, specifier: str) -> None:
    """Import the module as ``window.module``."""
    page.run(
        """
        const script = document.createElement("script");
        script.type = "module";
        script.text = `import * as module from ${JSON.stringify(arguments[0])}; window.module = module;`;
        document.head.append(script);
        """,
        specifier,
    )
    page.wait("Boolean(window.module)")


def load_copy(page: Page) -> None:
    """Import a copy, as a bundle holds it: its URL says nothing of a Tambur server."""
    page.run(
        "window.copy = URL.createObjectURL(new Blob([arguments[0]], { type: 'text/javascript' }))", MODULE
    )
    load(page, page.run("return copy"))


@pytest.mark.parametrize("query", ["", "?v=1"])
def test_the_module_connects_to_the_server_that_it_was_loaded_from(
    browser: Page, server: Server, tambur: Tambur, stream: str, query: str
) -> None:
    load(browser, f"{server.url}/tambur.mjs{query}")
    assert browser.run("return Object.keys(module)") == ["Connection", "TamburError"]
    browser.run(
        """
        window.log = [];
        window.me = new module.Connection({ api_key: arguments[0], app_id: arguments[1] });
        me.get_stream(arguments[2]).onmessage = (text) => log.push(text);
        """,
        API_KEY,
        APP_ID,
        stream,
    )
    browser.wait(f"me.get_stream({stream!r}).active")
    tambur.publish(stream, "Hello")
    browser.wait("log.length")
    assert browser.run("return log") == ["Hello"]


def test_a_copy_needs_a_host(browser: Page, server: Server) -> None:
    load_copy(browser)
    message = "host is required, since tambur.js was not loaded from a Tambur server"
    assert browser.thrown("new module.Connection({ api_key: 'k', app_id: 'a' })") == f"TamburError: {message}"
    browser.run(
        "window.me = new module.Connection({ api_key: arguments[0], app_id: arguments[1], host: arguments[2] })",
        API_KEY,
        APP_ID,
        server.url.removeprefix("http://"),
    )
    browser.wait("me.subscriber_id")


@IN_CHROMIUM
def test_the_module_and_the_classic_script_stand_side_by_side(browser: Page, server: Server) -> None:
    load(browser, f"{server.url}/tambur.mjs")
    browser.connect("classic")
    browser.run(
        "window.modern = new module.Connection({ api_key: arguments[0], app_id: arguments[1] })",
        API_KEY,
        APP_ID,
    )
    browser.wait("modern.subscriber_id")
    assert browser.run("return classic.subscriber_id !== modern.subscriber_id")
    assert browser.run("return modern instanceof tambur.Connection") is False
