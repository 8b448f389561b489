"""Every snippet of the documentation does what it says."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session
from selenium.webdriver import Chrome
from werkzeug.serving import WSGIRequestHandler, make_server

import tambur as package
from tambur import Tambur, UnauthorizedError, cli
from tambur.protocol.tokens import Mode, TokenSigner
from tambur.server import App, Config, Limits, Server, connection
from tambur.server.session import Result
from tambur.server.transports import websocket
from tambur.subscriber import Subscriber

from .conftest import API_KEY, APP_ID, SECRET, subscriber
from .support import documentation
from .support.browser import wait_for_script

ROOT = documentation.ROOT
README = (ROOT / "README.md").read_text("utf-8")
SIGNER = TokenSigner(API_KEY, APP_ID, SECRET)


def snippets(text: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def snippet(holding: str) -> str:
    (found,) = [code for code in snippets(README) if holding in code]
    return found


def run(code: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(code, "README.md", "exec"), namespace)  # noqa: S102 - that is the test
    return namespace


@pytest.fixture(autouse=True)
def tambur_url(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    host = server.url.removeprefix("http://")
    monkeypatch.setenv("TAMBUR_URL", f"http://{API_KEY}:{SECRET}@{host}/app/{APP_ID}")


def test_all_snippets_of_the_readme_are_run_here() -> None:
    assert len(snippets(README)) == 7
    assert len(snippets(README, "html")) == 2


def test_the_first_snippet_publishes(server: Server) -> None:
    with subscriber(server, "news") as receiver:
        receiver.enable_auth("news", SIGNER.auth)
        code = snippet('"Hello, everybody"')
        for written, real in (
            ("API_KEY", API_KEY),
            ("APP_ID", APP_ID),
            ("SECRET", SECRET),
            ("tambur.example.com:8080", server.url),
        ):
            code = code.replace(f'"{written}"', repr(real))
        run(code)["tambur"].close()
        assert receiver.receive(10) == ("news", "public", "Hello, everybody", None)
        assert receiver.receive(10) == ("news", "auth", '{"hello":"admins"}', None)


def test_the_environment_makes_a_publisher() -> None:
    (code,) = [code for code in snippets(README) if code.endswith("tambur = Tambur.from_env()\n")]
    assert run(code)["tambur"].publish("news", "x") is True


def test_many_are_published(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = snippet("publish_many")
    with subscriber(server, "inbox-alice", "inbox-bob") as receiver:
        run(code)
        assert {receiver.receive(10).stream for _ in range(2)} == {"inbox-alice", "inbox-bob"}
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("TAMBUR_URL", os.environ["TAMBUR_URL"].replace(SECRET, "wrong"))
    run(code)
    assert capsys.readouterr().out.count("not published to inbox-") == 2


def test_the_subscribers_snippet_prints_a_message(
    server: Server, tambur: Tambur, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe = Subscriber.subscribe

    def subscribe_then_publish(self: Subscriber, stream: str) -> None:
        subscribe(self, stream)
        tambur.publish(stream, "Hello")

    monkeypatch.setattr(Subscriber, "subscribe", subscribe_then_publish)
    run(snippet("Subscriber.from_env"))
    assert capsys.readouterr().out == "public Hello\n"


def test_the_flask_view_gives_tokens_to_whom_it_should(server: Server) -> None:
    app = run(snippet("from flask"))["app"]
    app.secret_key = "secret"
    client = app.test_client()
    with subscriber(server, "inbox-alice") as page:
        form = {"stream": "inbox-alice", "subscriber_id": page.subscriber_id}
        assert client.post("/tambur-token", data=form).status_code == 403
        with client.session_transaction() as logged_in:
            logged_in["user"] = "alice"
        answer = client.post("/tambur-token", data=form)
        assert answer.json["user"] == "alice"
        page.enable_presence("inbox-alice", answer.json["user"], answer.json["token"])
        assert client.post("/tambur-token", data=form | {"stream": "inbox-bob"}).status_code == 403
        attack = client.post("/tambur-token", data=form | {"subscriber_id": "x:S"})
        assert (attack.status_code, b"may not hold" in attack.data) == (400, True)
        assert client.post("/tambur-token", data={"stream": "lobby"}).status_code == 400


def test_the_pages_do_what_they_show_with_the_flask_view(
    driver: Chrome, server: Server, tambur: Tambur
) -> None:
    app = run(snippet("from flask"))["app"]
    app.secret_key = "secret"

    def show(number: str) -> str:
        session["user"] = "alice"
        html = snippets(README, "html")[int(number)]
        for written, real in (
            ("http://tambur.example.com:8080", server.url),
            ("API_KEY", API_KEY),
            ("APP_ID", APP_ID),
        ):
            assert html.count(written) == 1
            html = html.replace(written, real)
        said = "<script>const said = []; console.log = (...words) => said.push(words.join(' '));</script>"
        return f"<!doctype html><title>A page</title>{said}{html}"

    app.add_url_rule("/<number>", view_func=show)
    with served(app) as url:
        driver.get(f"{url}/0")
        subscriber_id = wait_for_script(driver, "news.active && connection.subscriber_id")
        tambur.publish("news", "Hello")
        tambur.publish(f"private:{subscriber_id}", "Psst")
        wait_for_script(driver, "said.length === 2")
        assert sorted(driver.execute_script("return said")) == ["Hello", "for me alone: Psst"]
        with subscriber(server, "lobby") as bob:
            bob.enable_presence("lobby", "bob", SIGNER.presence)
            driver.get(f"{url}/1")
            assert bob.receive(10) == ("lobby", "presence", "up", "alice")
            bob.disable_presence("lobby")
            wait_for_script(driver, "said.length === 2")
            assert driver.execute_script("return said") == ["bob is up", "bob is down"]


@contextlib.contextmanager
def served(app: Flask) -> Iterator[str]:
    made = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=made.serve_forever)
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


def test_the_django_view_gives_tokens_to_whom_it_should(server: Server) -> None:
    import django  # noqa: PLC0415 - its settings come first
    from django.conf import settings  # noqa: PLC0415

    settings.configure(
        SECRET_KEY="secret",
        ALLOWED_HOSTS=["testserver"],
        LOGIN_URL="/login",
        ROOT_URLCONF="django.contrib.auth.urls",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )
    django.setup()
    from django.contrib.auth.models import AnonymousUser, User  # noqa: PLC0415
    from django.core.management import call_command  # noqa: PLC0415
    from django.db import connections  # noqa: PLC0415
    from django.test import RequestFactory  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    view = run(snippet("from django"))["tambur_token"]

    def post(user: Any, **form: str) -> Any:
        request = RequestFactory().post("/tambur-token", form)
        request.user = user
        return view(request)

    alice = User.objects.create(username="alice")
    admin = User.objects.create(username="admin", is_superuser=True)
    with subscriber(server, "lobby", "staff") as page:
        form = {"stream": "lobby", "subscriber_id": page.subscriber_id}
        assert post(AnonymousUser(), **form).status_code == 302
        answer = post(alice, **form)
        assert answer.headers["Content-Type"] == "application/json"
        page.enable_presence("lobby", "alice", json.loads(answer.content)["token"])
        assert post(alice, **form | {"stream": "staff"}).status_code == 403
        assert post(admin, **form | {"stream": "staff"}).status_code == 200
        attack = post(alice, **form | {"subscriber_id": "<b>:S"})
        assert (attack.status_code, attack.headers["Content-Type"]) == (400, "text/plain")
        assert post(alice, stream="lobby").status_code == 400
    get = RequestFactory().get("/tambur-token")
    get.user = alice
    assert view(get).status_code == 405
    connections.close_all()


def test_the_snippet_on_errors_tells_what_went_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = snippet("except RateLimitedError")
    run(code)
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("TAMBUR_URL", os.environ["TAMBUR_URL"].replace(SECRET, "wrong"))
    run(code)
    said = capsys.readouterr().out
    assert "401: wrong signature" in said
    assert said.endswith(" 1 False\n")
    with pytest.raises(UnauthorizedError):
        Tambur.from_env().publish("news", "x")


@pytest.mark.parametrize("code", snippets(documentation.text("security.md")))
def test_the_snippets_on_security_hold(code: str) -> None:
    run(code)


def test_the_first_page_shows_what_works(server: Server) -> None:
    first_page = documentation.text("index.md")
    (code,) = snippets(first_page)
    with subscriber(server, "news") as receiver:
        run(code)
        assert receiver.receive(10).text == "Hello, everybody"
    (html,) = snippets(first_page, "html")
    assert html.splitlines()[0] in README
    assert 'get_stream("news").onmessage' in html


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *documentation.DOCS.rglob("*.md")], ids=lambda page: page.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    # The package itself may be installed somewhere else.
    places = (page.parent, Path(package.__file__).parents[1])
    assert [link for link in links if not any((place / link).exists() for place in places)] == []


PROTOCOL = documentation.text("protocol.md")


def test_the_protocol_page_names_every_result_and_close_code() -> None:
    for result in Result:
        assert f'`"{result.value}"`' in PROTOCOL
    codes = {
        websocket.GOING_AWAY, websocket.UNSUPPORTED_DATA, websocket.INVALID_DATA, websocket.SLOW_SUBSCRIBER,
        connection.POLICY_VIOLATION, connection.INTERNAL_ERROR,
    }  # fmt: skip
    assert codes <= {int(code) for code in re.findall(r"^\| (\d{4}) \|", PROTOCOL, re.MULTILINE)}


def test_the_protocol_pages_known_tokens_are_those_of_the_code() -> None:
    subscriber_id = "a0629978-28d8-4fd4-b862-f67e9b6dfd8f"
    for mode in Mode:
        assert f"\n{mode.value:<10}{SIGNER.sign(mode, 'test', subscriber_id, 'test_user')}\n" in PROTOCOL


def test_every_limit_that_the_protocol_page_names_is_one() -> None:
    settings = {f.name for cls in (Config, Limits, App) for f in dataclasses.fields(cls)}
    named = set(re.findall(r"`((?:max|ping|request|public|allowed|long|shutdown)_[a-z_]+)`", PROTOCOL))
    assert len(named) >= 10
    assert named <= settings


PAGES = {
    path.name: path.read_text("utf-8") for path in [ROOT / "README.md", *documentation.DOCS.rglob("*.md")]
}


def test_every_command_of_the_documentation_is_one() -> None:
    lines = [line for text in PAGES.values() for block in snippets(text, "sh") for line in block.splitlines()]
    commands = [found[1] for line in lines if (found := re.search(r"(?:^|/|&& )(tambur .*)", line))]
    assert len(commands) >= 5
    for command in commands:
        words = shlex.split(command.partition(" >")[0])
        assert cli._parser().parse_args(words[1:]).run is not None, command


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if snippets(text, "toml")])
def test_every_configuration_of_the_documentation_is_one(page: str, tmp_path: Path) -> None:
    for text in snippets(PAGES[page], "toml"):
        path = tmp_path / "tambur.toml"
        app = "" if "[[apps]]" in text else '[[apps]]\napi_key = "k"\napp_id = "a"\nsecrets = ["s"]\n'
        path.write_text(text + app, "utf-8")
        assert Config.from_toml(path).apps
