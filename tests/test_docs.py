"""Every snippet of the documentation works as described."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import tambur as package
from tambur import SubscriberClosedError, Tambur, UnauthorizedError, cli
from tambur.protocol import close_codes
from tambur.protocol.tokens import Mode, TokenSigner
from tambur.server import App, Config, Limits, Server
from tambur.server.subscriptions import Result
from tambur.subscriber import Subscriber, Subscription

from .support import documentation
from .support.app import API_KEY, APP_ID, SECRET, subscriber
from .support.documentation import run, snippet, snippets

ROOT = documentation.ROOT
README = (ROOT / "README.md").read_text("utf-8")
PUBLISH = documentation.text("publish.md")
SIGNER = TokenSigner(API_KEY, APP_ID, SECRET)


@pytest.fixture(autouse=True)
def environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMBUR_URL", url)


def test_all_snippets_of_the_readme_and_of_publishing_are_run_here() -> None:
    assert len(snippets(README)) == 2
    assert len(snippets(PUBLISH)) == 6


def test_the_first_snippet_publishes(server: Server) -> None:
    with subscriber(server, "news") as receiver:
        receiver.enable_auth("news", SIGNER.auth)
        code = snippet(PUBLISH, '"Hello, everybody")')
        for written, real in (
            ("API_KEY", API_KEY),
            ("APP_ID", APP_ID),
            ("SECRET", SECRET),
            ("tambur.example.com:8080", server.url),
        ):
            code = code.replace(f'"{written}"', repr(real))
        run(code)["tambur"].close()
        assert receiver.receive(60) == ("news", "public", "Hello, everybody", None)
        assert receiver.receive(60) == ("news", "auth", '{"hello":"admins"}', None)


def test_the_first_snippet_of_the_readme_publishes(server: Server) -> None:
    with subscriber(server, "news") as receiver:
        receiver.enable_auth("news", SIGNER.auth)
        run(snippet(README, "Hello, everybody"))["tambur"].close()
        assert receiver.receive(60) == ("news", "public", "Hello, everybody", None)
        assert receiver.receive(60) == ("news", "auth", '{"hello":"admins"}', None)


def test_the_environment_makes_a_publisher() -> None:
    (code,) = [code for code in snippets(PUBLISH) if code.endswith("tambur = Tambur.from_env()\n")]
    assert run(code)["tambur"].publish("news", "x") is True


def test_a_message_reaches_all_but_one(server: Server) -> None:
    code = snippet(PUBLISH, "exclude=")
    written = "a0629978-28d8-4fd4-b862-f67e9b6dfd8f"
    assert written in code
    with subscriber(server, "news") as one, subscriber(server, "news") as other:
        run(code.replace(written, str(one.subscriber_id)))["tambur"].publish("news", "to all")
        assert [other.receive(60).text for _ in range(2)] == ["Hello, everybody else", "to all"]
        assert one.receive(60).text == "to all"


def test_many_are_published(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = snippet(PUBLISH, "publish_many")
    with subscriber(server, "inbox-alice", "inbox-bob") as receiver:
        for stream in ("inbox-alice", "inbox-bob"):
            receiver.enable_auth(stream, SIGNER.auth)
        run(code)
        assert {receiver.receive(60).stream for _ in range(2)} == {"inbox-alice", "inbox-bob"}
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("TAMBUR_URL", os.environ["TAMBUR_URL"].replace(SECRET, "wrong"))
    run(code)
    assert capsys.readouterr().out.count("not published to auth:inbox-") == 2


@pytest.mark.parametrize(
    ("holding", "printed"),
    [
        ("message.kind", "public Hello\n"),
        ("except MessagesMissedError", "Hello\n"),
        ("since=position", "1 messages come first\n"),
    ],
)
def test_the_subscribers_snippets_receive_a_message(
    tambur: Tambur,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    holding: str,
    printed: str,
) -> None:
    subscribe = Subscriber.subscribe

    def subscribe_then_publish(self: Subscriber, stream: str, **options: Any) -> Subscription:
        subscription = subscribe(self, stream, **options)
        tambur.publish(stream, "Hello")
        return subscription

    monkeypatch.setattr(Subscriber, "subscribe", subscribe_then_publish)
    run(snippet(documentation.text("python.md"), holding))
    assert capsys.readouterr().out == printed


def test_the_flask_view_issues_tokens_of_each_mode_to_allowed_users(server: Server) -> None:
    app = run(snippet(README, "from flask"))["app"]
    app.secret_key = "secret"
    client = app.test_client()
    with subscriber(server, "inbox-alice") as page:

        def ask(**fields: str) -> Any:
            form = {"mode": "presence", "stream": "inbox-alice", "subscriber_id": page.subscriber_id}
            return client.post("/tambur-token", data=form | fields)

        assert ask().status_code == 403
        with client.session_transaction() as logged_in:
            logged_in["user"] = "alice"
        page.enable_presence("inbox-alice", "alice", ask().text)
        page.enable_direct("inbox-alice", "alice", ask(mode="direct").text)
        page.enable_auth("inbox-alice", ask(mode="auth").text)
        assert ask(stream="inbox-bob").status_code == 403
        assert ask(mode="nonsense").status_code == 400
        attack = ask(subscriber_id="x:S")
        assert (attack.status_code, b"x:S" in attack.data) == (400, True)
        assert client.post("/tambur-token", data={"stream": "lobby", "mode": "auth"}).status_code == 400


def test_the_page_on_throwing_out_ends_sessions(server: Server) -> None:
    text = documentation.text("throw-a-user-out.md")
    run(snippet(text, "ended ="))  # of other tests
    with (
        subscriber(server, "room") as alice,
        subscriber(server, "room") as again,
        subscriber(server) as plain,
    ):
        alice.enable_presence("room", "alice", SIGNER.presence)
        assert run(snippet(text, "ended ="))["ended"] == 1
        again.enable_direct("room", "bob", SIGNER.direct)
        banning = run(snippet(text, "def ban("))
        assert banning["may_join"]("bob", "room", "direct")
        banning["ban"]("bob")
        assert not banning["may_join"]("bob", "room", "direct")
        run(snippet(text, "def log_out"))["log_out"](plain.subscriber_id)
        for one in (alice, again, plain):
            with pytest.raises(SubscriberClosedError) as caught:
                one.receive(60)
            assert caught.value.code == 4003


def test_a_message_is_encoded_by_the_function_that_was_given(server: Server) -> None:
    with subscriber(server, "news") as receiver:
        run(snippet(PUBLISH, "encode="))["tambur"].close()
        assert receiver.receive(60).text == '{"at": "2026-01-01"}'


def test_the_snippet_on_errors_shows_the_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = snippet(PUBLISH, "except RateLimitedError")
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
        assert receiver.receive(60).text == "Hello, everybody"
    (html,) = snippets(first_page, "html")
    assert html.splitlines()[0] in README
    assert 'get_stream("news").onmessage' in html


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *documentation.DOCS.rglob("*.md")]:
        links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        # The package itself may be installed somewhere else.
        places = (page.parent, Path(package.__file__).parents[1])
        lost = [link for link in links if not any((place / link).exists() for place in places)]
        assert lost == [], page


PROTOCOL = documentation.text("protocol.md")


def test_the_protocol_page_names_every_result_and_close_code() -> None:
    for result in Result:
        assert f'`"{result.value}"`' in PROTOCOL
    codes = {value for name, value in vars(close_codes).items() if name.isupper()}
    assert len(codes) >= 7
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
        path.write_text(app + text, "utf-8")  # an entry of an app stands below it
        assert Config.from_toml(path).apps
