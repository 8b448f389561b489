"""``allowed_origins`` applies to pages in a real browser, over each transport."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tambur import Tambur
from tambur.server import App, Config, in_background
from tests.support.app import API_KEY, APP_ID, SECRET
from tests.support.browser import Browser, page, wait_for_script

BLANK = "<!doctype html><title>A page</title>"
NO_REFERRER = f'{BLANK}<meta name="referrer" content="no-referrer">'


@contextlib.contextmanager
def connecting(driver: Browser, html: str, transport: str, *, is_allowed: bool) -> Iterator[Tambur]:
    """A page that loads tambur.js from a server that allows its origin, or another one, and connects."""
    with page(html) as address:
        origin = address.rstrip("/") if is_allowed else "https://www.example.com"
        app = App(API_KEY, APP_ID, (SECRET,), allowed_origins=(origin,))
        with in_background(Config(apps=(app,), port=0)) as server:
            driver.get(address)
            driver.execute_script(
                """
                window.log = [];
                if (arguments[3] === "long polling") delete window.WebSocket;
                const script = document.createElement("script");
                script.src = `${arguments[0]}/tambur.js`;
                script.onload = () => {
                  const options = { api_key: arguments[1], app_id: arguments[2], max_retries: 0 };
                  window.me = new tambur.Connection(options);
                  me.onerror = (error) => log.push(error.message);
                  me.onclose = () => log.push("closed");
                  me.get_stream("news").onmessage = (text) => log.push(text);
                };
                document.head.append(script);
                """,
                server.url, API_KEY, APP_ID, transport,
            )  # fmt: skip
            with Tambur(API_KEY, APP_ID, SECRET, server.url) as tambur:
                yield tambur
            driver.execute_script("me.close()")


@pytest.mark.parametrize("html", [BLANK, NO_REFERRER])
def test_a_page_of_an_allowed_origin_subscribes(driver: Browser, transport: str, html: str) -> None:
    with connecting(driver, html, transport, is_allowed=True) as tambur:
        wait_for_script(driver, "window.me?.get_stream('news').active")
        tambur.publish("news", "Hello")
        wait_for_script(driver, "log.length")
        assert driver.execute_script("return log") == ["Hello"]


@pytest.mark.parametrize("html", [BLANK, NO_REFERRER])
def test_a_page_of_another_origin_does_not_subscribe(driver: Browser, transport: str, html: str) -> None:
    with connecting(driver, html, transport, is_allowed=False):
        wait_for_script(driver, "log.includes('closed')")
        assert len(driver.execute_script("return log")) == 2
        assert driver.execute_script("return me.subscriber_id") is None
