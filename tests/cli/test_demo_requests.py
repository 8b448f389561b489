"""The requests that the page of ``tambur demo`` makes, and those that it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests

from tambur.cli.demo.page import MAX_BODY_BYTES
from tambur.server import Server
from tambur.subscriber import Subscriber

from ..support import wire
from ..support.demo import CREDENTIALS

PUBLISH = {"stream": "lobby", "message": "x"}


@pytest.fixture
def lobby(demo: Server) -> Iterator[Subscriber]:
    with Subscriber(CREDENTIALS.api_key, CREDENTIALS.app_id, demo.url) as subscriber:
        subscriber.subscribe("lobby")
        yield subscriber


def post(demo: Server, path: str, body: str | bytes, **headers: str) -> requests.Response:
    return requests.post(
        f"{demo.url}/demo/{path}",
        data=body,
        headers={"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()},
        timeout=60,
    )


def assert_next(subscriber: Subscriber, demo: Server, message: str) -> None:
    """Publish ``message`` and require that nothing else was published before it."""
    assert post(demo, "publish", json.dumps(PUBLISH | {"message": message})).status_code == 204
    assert subscriber.receive(60).text == message


def test_no_answer_contains_the_secret(demo: Server) -> None:
    for path in ("", "demo/app", "tambur.js"):
        assert "hunter2" not in requests.get(f"{demo.url}/{path}", timeout=60).text


def test_the_demo_leads_to_its_console(demo: Server) -> None:
    answer = requests.get(f"{demo.url}/demo/console", timeout=60)
    assert answer.url == f"{demo.console_url}/"
    assert "<title>Tambur console</title>" in answer.text


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("token", "nonsense", "the body must be a JSON object of strings, with mode, stream, user_id, subscriber_id"),
        ("token", '{"mode": "auth"}', "the body must be a JSON object of strings"),
        ("token", '{"mode": "x", "stream": "s", "user_id": "u", "subscriber_id": "i"}', "'x' is not a valid Mode"),
        ("token", '{"mode": "auth", "stream": "s", "user_id": "u", "subscriber_id": "i:j"}', "must not contain ':'"),
        ("publish", '{"stream": ".", "message": "x"}', "a stream must not be named '.'"),
        ("publish", '{"stream": "s", "message": 7}', "the body must be a JSON object of strings, with stream, message"),
        ("publish", "[" * 100_000, "the body must be a JSON object of strings, with stream, message"),
        ("publish", b'"\xff"', "the body must be a JSON object of strings, with stream, message"),
    ],
)  # fmt: skip
def test_an_invalid_body_is_refused_with_the_rule(
    demo: Server, path: str, body: str | bytes, said: str
) -> None:
    answer = post(demo, path, body)
    assert answer.status_code == 400
    assert said in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example:80", "[::2]:80", ":80"]
)  # fmt: skip
def test_a_rebound_host_gets_nothing(demo: Server, lobby: Subscriber, host: str) -> None:
    port = demo.url.rpartition(":")[2]
    for path in ("", "demo/app", "demo/console", "tambur.js", "health", "none"):
        answer = requests.get(f"{demo.url}/{path}", headers={"Host": host}, timeout=60)
        assert (answer.status_code, answer.text) == (
            421, f"the demo answers loopback hosts only, such as 127.0.0.1, not {host!r}\n",
        )  # fmt: skip
    token = {"mode": "auth", "stream": "lobby", "user_id": "u", "subscriber_id": lobby.subscriber_id}
    for path, fields in (("token", token), ("publish", PUBLISH)):
        assert post(demo, path, json.dumps(fields), Host=host).status_code == 421
        assert post(demo, path, json.dumps(fields), Host=f"localhost:{port}").status_code < 300
    assert lobby.receive(60).text == "x"
    assert_next(lobby, demo, "nothing before it")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:80"]
)
def test_a_loopback_host_gets_the_page(demo: Server, host: str) -> None:
    assert requests.get(f"{demo.url}/", headers={"Host": host}, timeout=60).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "text/plain; application/json", "application/x-www-form-urlencoded", "multipart/form-data", ""],
)  # fmt: skip
def test_a_body_that_is_not_json_is_refused(demo: Server, lobby: Subscriber, content_type: str) -> None:
    answer = post(demo, "publish", json.dumps(PUBLISH), Content_Type=content_type)
    assert (answer.status_code, answer.text) == (
        415, f"the Content-Type must be application/json, not {content_type!r}\n",
    )  # fmt: skip
    assert_next(lobby, demo, "nothing before it")


def test_the_content_type_may_have_parameters(demo: Server, lobby: Subscriber) -> None:
    answer = post(demo, "publish", json.dumps(PUBLISH), Content_Type="Application/JSON; charset=utf-8")
    assert answer.status_code == 204
    assert lobby.receive(60).text == "x"


def test_a_body_has_a_limit(demo: Server, lobby: Subscriber) -> None:
    padding = MAX_BODY_BYTES - len(json.dumps(PUBLISH))
    assert post(demo, "publish", json.dumps(PUBLISH) + " " * padding).status_code == 204
    assert lobby.receive(60).text == "x"
    answer = post(demo, "publish", json.dumps(PUBLISH) + " " * (padding + 1))
    assert (answer.status_code, answer.text) == (413, f"the body must have at most {MAX_BODY_BYTES} bytes\n")
    assert_next(lobby, demo, "nothing before it")


def test_an_endless_body_is_cut_off(demo: Server) -> None:
    head = (
        "POST /demo/publish HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
    )
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with wire.connect(demo) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        # The system's buffers on both sides hold far less.
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(chunk * (200 * MAX_BODY_BYTES // len(chunk)))
