"""The pages of HTML in the documentation work in a browser, with the views that stand beside them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest
from flask import Flask, session
from selenium.webdriver import Chrome
from werkzeug.serving import WSGIRequestHandler, make_server

from tambur import Tambur
from tambur.server import Server

from ..support import documentation
from ..support.app import API_KEY, APP_ID, subscriber
from ..support.browser import wait_for_script
from ..support.documentation import run, snippet, snippets

README = (documentation.ROOT / "README.md").read_text("utf-8")
NOTIFY = documentation.text("notify-one-user.md")


@pytest.fixture(autouse=True)
def environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMBUR_URL", url)


def real(html: str, server: Server) -> str:
    """The snippet with this server in it."""
    for written, value in (
        ("http://tambur.example.com:8080", server.url),
        ("API_KEY", API_KEY),
        ("APP_ID", APP_ID),
    ):
        assert html.count(written) == 1
        html = html.replace(written, value)
    return html


@contextlib.contextmanager
def shown(driver: Chrome, html: str, app: Flask, user: str | None = None) -> Iterator[None]:
    """Show a page that collects the snippet's log."""

    def show() -> str:
        if user is not None:
            session["user"] = user
        said = "<script>const said = []; console.log = (...words) => said.push(words.length > 1 ? words.join(' ') : words[0]);</script>"
        return f"<!doctype html><title>A page</title>{said}{html}"

    app.add_url_rule("/", view_func=show)
    with served(app) as url:
        driver.get(url)
        yield


@contextlib.contextmanager
def served(app: Flask) -> Iterator[str]:
    made = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}"
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass  # nobody reads it


def test_the_page_of_the_readme_receives(driver: Chrome, server: Server, tambur: Tambur) -> None:
    (html,) = snippets(README, "html")
    with shown(driver, real(html, server), Flask("page")):
        wait_for_script(driver, "news.active")
        tambur.publish("news", "Hello")
        wait_for_script(driver, "said.length === 1")
        assert driver.execute_script("return said") == ["Hello"]


def test_a_user_is_notified_on_a_page_with_the_flask_view(
    driver: Chrome, server: Server, tambur: Tambur
) -> None:
    app = run(snippet(README, "from flask"))["app"]
    app.secret_key = "secret"
    (html,) = snippets(NOTIFY, "html")
    with shown(driver, real(html, server), app, user="alice"):
        wait_for_script(driver, "inbox.enabled_modes.length === 1")
        run(snippet(NOTIFY, "auth:inbox-alice"))["tambur"].close()
        wait_for_script(driver, "said.length === 1")
        assert json.loads(driver.execute_script("return JSON.stringify(said[0])")) == {
            "order": 17,
            "state": "ready",
        }
    assert len(snippets(NOTIFY)) == 2
    may_join = run(snippet(NOTIFY, "def may_join"))["may_join"]
    assert may_join("alice", "inbox-alice", "auth")
    assert not may_join("bob", "inbox-alice", "auth")


def test_the_page_on_users_shows_who_is_online(driver: Chrome, server: Server) -> None:
    text = documentation.text("who-is-online.md")
    app = run(snippet(README, "from flask"))["app"]
    app.secret_key = "secret"
    (html,) = snippets(text, "html")
    with shown(driver, real(html, server), app, user="alice"), subscriber(server, "room-1", "room-2"):
        wait_for_script(driver, "lobby.enabled_modes.length === 1")
        assert run(snippet(text, 'users("lobby")'))["online"] == ["alice"]
        assert run(snippet(text, "streams("))["rooms"] == {"room-1": 0, "room-2": 0}
