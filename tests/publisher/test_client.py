"""The publisher's interface, and the requests that it sends."""

from __future__ import annotations

import logging
import re
import threading
import uuid
from typing import Any

import pytest
import requests
import requests_mock
import responses

import tambur as package
from tambur import (
    ConfigurationError,
    InvalidNameError,
    RejectedError,
    Tambur,
    UnauthorizedError,
)
from tambur.protocol.oauth import parse_form

from ..support import faults
from ..support.faults import FaultyServer, publisher

SECRET = "hunter2-not-to-be-seen"


def test_the_public_names_are_frozen() -> None:
    assert package.__all__ == sorted(package.__all__, key=lambda name: (name.startswith("_"), name))
    assert set(package.__all__) == {
        "AppNotFoundError", "CommandRefusedError", "ConfigurationError", "ConnectionFailedError",
        "History", "InvalidMessageError", "InvalidNameError", "KeptMessage", "MessageTooLargeError", "MessagesMissedError",
        "PublishError", "RateLimitedError", "RejectedError", "StreamInfo", "SubscriberClosedError", "SubscriberError",
        "SubscriberTimeoutError", "Tambur", "TamburError", "TimedOutError", "UnauthorizedError", "UnavailableError",
        "WebhookVerificationError", "__version__",
    }  # fmt: skip


def test_the_constructor_and_attributes_are_those_of_2012() -> None:
    tambur = Tambur("key", "app", "secret")
    assert (tambur.api_key, tambur.app_id, tambur.secret) == ("key", "app", "secret")
    assert tambur.api_host == "api.tambur.io"
    assert tambur.url == "http://api.tambur.io/app/app"
    assert Tambur(api_key="key", app_id="app", secret="secret", api_host="h:1").url == "http://h:1/app/app"
    assert Tambur("key", "app", "secret", "h", ssl=True).url == "https://h/app/app"


def test_a_url_or_the_environment_makes_a_publisher(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://k%2By:s%2F%3At@example.com:8443/app/%C3%A9"
    monkeypatch.setenv("TAMBUR_URL", url)
    for tambur in (Tambur.from_url(url), Tambur.from_env()):
        assert (tambur.api_key, tambur.app_id, tambur.secret) == ("k+y", "é", "s/:t")
        assert tambur.url == "https://example.com:8443/app/%C3%A9"
    assert Tambur.from_url(url, max_retries=0)._max_retries == 0


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"api_key": ""}, "api_key must not be empty"),
        ({"api_key": "a:b"}, "api_key must not contain"),
        ({"app_id": "a/b"}, "app_id must not contain"),
        ({"app_id": None}, "app_id must be a str"),
        ({"secret": ""}, "secret must not be empty"),
        ({"secret": ["x"]}, "secret must be a str, not list"),
        ({"secret": b"\xff"}, "secret must be UTF-8"),
        ({"api_host": "http://h", "ssl": True}, "contradicts"),
        ({"api_host": "."}, "cannot send requests to"),
        ({"timeout": 0}, "timeout must be"),
        ({"timeout": None}, "timeout must be"),
        ({"timeout": (1, 2, 3)}, "timeout must be"),
        ({"timeout": float("nan")}, "timeout must be"),
        ({"timeout": True}, "timeout must be"),
        ({"max_retries": -1}, "max_retries must be"),
        ({"max_retries": 1.5}, "max_retries must be"),
        ({"pool_maxsize": 0}, "pool_maxsize must be"),
        ({"encode": "json"}, "encode must be a function that returns a str, not 'json'"),
    ],
)
def test_an_invalid_parameter_is_named_with_its_rule(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigurationError, match=rule):
        Tambur(**{"api_key": "k", "app_id": "a", "secret": "s", "api_host": "h"} | options)


def test_a_publish_is_one_signed_post() -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        assert tambur.publish("auth:test", "Hello") is True
        (request,) = server.received
    lines = request.head.decode().split("\r\n")
    assert lines[0] == "POST /app/app/stream/auth:test HTTP/1.1"
    assert "Content-Type: application/x-www-form-urlencoded" in lines
    assert f"User-Agent: tambur-python/{package.__version__}" in lines
    values = dict(parse_form(request.body))
    assert len(values.pop(b"oauth_signature")) == 28
    assert len(values.pop(b"oauth_nonce")) == 32
    assert values.pop(b"oauth_timestamp").isdigit()
    assert values == {
        b"api_version": b"1.0",
        b"message": b"Hello",
        b"oauth_consumer_key": b"key",
        b"oauth_signature_method": b"HMAC-SHA1",
        b"oauth_version": b"1.0",
    }


def test_an_excluded_id_is_a_parameter_of_the_form() -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        tambur.publish("test", "Hello", exclude="an id")
        assert dict(parse_form(server.bodies[0]))[b"exclude"] == b"an id"
        for exclude in ("", "a:b", "a\n", "x" * 201, b"\xff"):
            with pytest.raises(InvalidNameError, match="a subscriber ID"):
                tambur.publish("test", "x", exclude=exclude)
        assert len(server.received) == 1


def test_nothing_is_sent_to_an_invalid_stream() -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        for stream in ("", "private", "auth:", "private:a:b", "..", "a\n"):
            with pytest.raises(InvalidNameError):
                tambur.publish(stream, "x")
        assert server.received == []


def test_the_default_host_of_2012_warns_once() -> None:
    tambur = Tambur("k", "a", "s")
    with responses.RequestsMock() as mock:
        mock.add("POST", "http://api.tambur.io/app/a/stream/test", status=204)
        with pytest.warns(UserWarning, match="api.tambur.io, the default of 2012, whose operator") as caught:
            tambur.publish("test", "x")
        assert caught[0].filename == __file__
        tambur.publish("test", "x")  # a second warning would be an error


def test_requests_mock_and_responses_replace_the_server() -> None:
    tambur = Tambur("k", "a", "s", "h")
    with responses.RequestsMock() as mock:
        mock.add("POST", "http://h/app/a/stream/test", status=204)
        assert tambur.publish("test", "x")
    with requests_mock.Mocker() as mocker:
        mocker.post("http://h/app/a/stream/test", status_code=401, text="wrong")
        with pytest.raises(UnauthorizedError, match="401: wrong"):
            tambur.publish("test", "x")


def test_the_exceptions_of_2012_still_catch() -> None:
    with FaultyServer(faults.response("401 Unauthorized", body=b"wrong signature")) as server:
        tambur = publisher(server)
        try:
            tambur.publish("test", "x")
        except requests.HTTPError as error:
            assert error.response is not None
            assert error.response.status_code == 401
            assert error.response.text == "wrong signature"
        else:
            pytest.fail("no HTTPError")
        tambur.close()
    with pytest.raises(requests.ConnectionError):
        tambur.publish("test", "x")


def test_no_text_shows_the_secret_or_a_signature(caplog: pytest.LogCaptureFixture) -> None:
    with FaultyServer(faults.response("401 No", body=b"no")) as server, publisher(server, SECRET) as tambur:
        with caplog.at_level(logging.DEBUG), pytest.raises(RejectedError) as caught:
            tambur.publish("test", "x")
        signature = dict(parse_form(server.bodies[0]))[b"oauth_signature"].decode()
        shown = f"{tambur!r} {tambur.__dict__} {caught.value} {caught.value!r} {caplog.text}".replace(
            repr(tambur.secret),
            "",  # the attribute of 2012; nothing else may show it
        )
    assert SECRET not in shown
    assert signature not in shown


def test_a_publish_logs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with FaultyServer(faults.response("503 No", "Retry-After: 0")) as server, publisher(server) as tambur:
        with caplog.at_level(logging.DEBUG, logger="tambur"):
            tambur.publish("test", "é")
        (line,) = [record.getMessage() for record in caplog.records if record.name == "tambur"]
    assert re.fullmatch(r"publish to 'test': 2 bytes, 204, [\d.]+ ms, attempts: 2", line)


def test_the_log_has_no_subscriber_id(caplog: pytest.LogCaptureFixture) -> None:
    subscriber_id = str(uuid.uuid4())
    answer = faults.response("200 OK", "Content-Type: application/json", body=b'{"disconnected": 1}')
    with FaultyServer(answer) as server, publisher(server) as tambur:
        with caplog.at_level(logging.DEBUG, logger="tambur"):
            tambur.disconnect(subscriber_id=subscriber_id)
            tambur.publish(f"private:{subscriber_id}", "x")
        first, second = (record.getMessage() for record in caplog.records if record.name == "tambur")
    assert first.startswith("disconnecting 'SUBSCRIBER_ID': 200, ")
    assert second.startswith("publish to 'private:SUBSCRIBER_ID': 1 bytes, 204, ")


def test_threads_share_one_instance() -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        start = threading.Barrier(32)

        def run(number: int) -> None:
            start.wait()
            for i in range(20):
                tambur.publish("test", f"{number}-{i}")

        threads = [threading.Thread(target=run, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        messages = [dict(parse_form(body))[b"message"].decode() for body in server.bodies]
        assert sorted(messages) == sorted(f"{n}-{i}" for n in range(32) for i in range(20))
        assert server.connections <= 32
        nonces = {dict(parse_form(body))[b"oauth_nonce"] for body in server.bodies}
        assert len(nonces) == 32 * 20


def test_build_request_sends_nothing() -> None:
    with Tambur("key", "app", "secret", "h:1") as tambur:
        one = tambur.build_request("test", "a b", 1353628800, "nonce")
        other = tambur.build_request("test", "a b", 1353628800, "nonce")
    assert one.url == "http://h:1/app/app/stream/test"
    assert one.body == other.body
    assert isinstance(one.body, str)
    # oauthlib 4.0 makes the same signature.
    assert one.body.endswith("&oauth_signature=OMBEFdedGAdJeYCwqfHKuNEhDVM%3D")
