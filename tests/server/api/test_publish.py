"""Section 2 of the protocol, without a network: every status, in the order of checking."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tambur.protocol import oauth as signing
from tambur.server import App, Config, Limits
from tambur.server.api.auth import RefusedError
from tambur.server.api.publish import PublishHandler
from tambur.server.broker import Outcome, Publication
from tambur.server.broker.memory import MemoryBackend
from tests.support.broker import nobody_asks

NOW = 1_353_628_800
FORM = "application/x-www-form-urlencoded"
HOST = "tambur.example"
CONFIG = Config(
    apps=(
        App("key", "app", ("hunter2", "old-hunter2")),
        App("key2", "app", ("hunter3",)),
        App("key", "slow", ("hunter2",), max_publishes_per_s=1),
    ),
    limits=Limits(max_message_bytes=100, max_claims=8),
)


class Publisher:
    """Makes requests, right or wrong in any way, and has them published."""

    def __init__(self, config: Config = CONFIG) -> None:
        self.delivered: list[Publication] = []
        self.backend = MemoryBackend(max_claims=config.limits.max_claims)
        self.broker = self.backend.broker
        self.now = float(NOW)
        self.publishing = PublishHandler(config, self.broker, clock=lambda: self.now)
        asyncio.run(self.backend.start(self.delivered.append, nobody_asks))
        for app in ("app", "slow"):
            for stream in ("test", "a/b", "x"):
                for key in ("key", "key2"):
                    asyncio.run(self.broker.subscribe(App(key, app, ("s",)).key, stream))

    def body(
        self, *, path: str = "/app/app/stream/test", secret: str = "hunter2", url: str = "", **changes: Any
    ) -> bytes:
        parameters = {
            "api_version": "1.0",
            "message": "Hello",
            "oauth_nonce": "nonce",
            "oauth_timestamp": str(NOW),
            "oauth_version": "1.0",
            "oauth_signature_method": "HMAC-SHA1",
            "oauth_consumer_key": "key",
        } | changes
        canonical = signing.canonical_query_string((k, v) for k, v in parameters.items() if v is not None)
        base_string = signing.signature_base_string(
            signing.base_string_url(url or f"http://{HOST}{path}"), canonical
        )
        signature = signing.percent_encode(signing.sign(base_string, secret))
        return f"{canonical}&oauth_signature={signature}".encode()

    def send(
        self,
        body: bytes,
        path: str = "/app/app/stream/test",
        content_type: str = FORM,
        host: str = HOST,
        *,
        debug: bool = True,
    ) -> bool:
        """Returns whether it is a replay."""
        target = self.publishing.target(host, path.encode())
        published = asyncio.run(self.publishing.publish(target, content_type, body, debug=debug))
        assert published.outcome in {Outcome.DELIVERED, Outcome.REPLAYED}
        return published.outcome is Outcome.REPLAYED

    def publish(self, path: str = "/app/app/stream/test", **changes: Any) -> bool:
        return self.send(self.body(path=path, **changes), path)

    def refusal(self, path: str = "/app/app/stream/test", **changes: Any) -> RefusedError:
        return self.refusal_of(self.body(path=path, **changes), path)

    def refusal_of(self, body: bytes, *args: Any, **options: Any) -> RefusedError:
        before = len(self.delivered)
        with pytest.raises(RefusedError) as caught:
            self.send(body, *args, **options)
        assert len(self.delivered) == before
        return caught.value

    @property
    def messages(self) -> list[Any]:
        return [json.loads(p.event)[1:] for p in self.delivered]


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


def test_a_signed_message_is_delivered(publisher: Publisher) -> None:
    assert publisher.publish() is False
    assert publisher.messages == [["test", "public", "Hello"]]


def test_each_destination_has_its_kind(publisher: Publisher) -> None:
    publisher.publish("/app/app/stream/auth:test")
    publisher.publish("/app/app/stream/private:an-id", oauth_nonce="2")
    assert publisher.messages == [["test", "auth", "Hello"], ["private", "private", "Hello"]]
    assert publisher.delivered[1].name == "an-id"


@pytest.mark.parametrize(
    "path", ["/", "/app", "/app/app", "/app/app/stream", "/app/other/stream/test", "/app/%FF/stream/x"]
)
def test_what_is_no_apps_stream_is_404(publisher: Publisher, path: str) -> None:
    assert publisher.refusal(path).status == 404


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/form-data", "text/plain"])
def test_another_content_type_is_400(publisher: Publisher, content_type: str) -> None:
    refused = publisher.refusal_of(b"", content_type=content_type)
    assert (refused.status, refused.base_string) == (400, None)
    assert repr(content_type) in refused.reason


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=UTF-8", FORM.upper(), f" {FORM} ;x"])
def test_a_form_is_a_form_however_it_is_written(publisher: Publisher, content_type: str) -> None:
    assert publisher.send(publisher.body(), content_type=content_type) is False


FIELDS = [
    "api_version",
    "message",
    "oauth_nonce",
    "oauth_timestamp",
    "oauth_version",
    "oauth_signature_method",
    "oauth_consumer_key",
]


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_parameter_is_400(publisher: Publisher, field: str) -> None:
    changes: dict[str, Any] = {field: None}
    refused = publisher.refusal(**changes)
    assert (refused.status, refused.reason) == (400, f"{field} must be given once, not 0 times")


@pytest.mark.parametrize("field", [*FIELDS, "oauth_signature"])
def test_a_doubled_parameter_is_400(publisher: Publisher, field: str) -> None:
    refused = publisher.refusal_of(publisher.body() + f"&{field}=x".encode())
    assert (refused.status, refused.reason) == (400, f"{field} must be given once, not 2 times")


MALFORMED = [
    ({"api_version": "2.0"}, "api_version must be 1.0, not '2.0'"),
    ({"oauth_version": "1.1"}, "oauth_version must be 1.0"),
    ({"oauth_signature_method": "PLAINTEXT"}, "oauth_signature_method must be HMAC-SHA1"),
    ({"oauth_timestamp": "now"}, "oauth_timestamp must be an integer, not 'now'"),
    ({"oauth_timestamp": "1.5"}, "must be an integer"),
    ({"oauth_timestamp": " 1"}, "must be an integer"),
    ({"oauth_timestamp": "٣"}, "must be an integer"),
    ({"oauth_timestamp": "1" * 5000}, "must be an integer"),
    ({"oauth_timestamp": ""}, "must be an integer"),
    ({"oauth_nonce": "x" * 201}, "oauth_nonce has 201 bytes, at most 200"),
    ({"message": b"\xff"}, "the message is not UTF-8: invalid start byte at byte 0"),
]


@pytest.mark.parametrize(("changes", "reason"), MALFORMED)
def test_what_is_malformed_is_400_with_the_rule(
    publisher: Publisher, changes: dict[str, Any], reason: str
) -> None:
    refused = publisher.refusal(**changes)
    assert refused.status == 400
    assert reason in refused.reason


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        ("%FF", "the stream is not UTF-8"),
        ("", "must not be empty"),
        ("private", "must not be named"),
        ("auth:", "must not be empty"),
        ("auth:auth:x", "must not begin"),
        ("private:a:b", "must not contain ':'"),
        ("a%0Ab", "control characters"),
        ("..", "must not be named"),
    ],
)
def test_what_is_no_stream_is_400(publisher: Publisher, stream: str, reason: str) -> None:
    refused = publisher.refusal(f"/app/app/stream/{stream}")
    assert refused.status == 400
    assert reason in refused.reason


def test_an_unknown_key_is_401(publisher: Publisher) -> None:
    refused = publisher.refusal(oauth_consumer_key="other")
    assert (refused.status, refused.reason) == (401, "the app 'app' has no such key (oauth_consumer_key)")


def test_a_wrong_signature_is_401(publisher: Publisher) -> None:
    refused = publisher.refusal(secret="wrong")
    assert refused.status == 401
    assert "wrong signature" in refused.reason
    assert HOST in refused.reason
    body = publisher.body()
    assert publisher.refusal_of(body.replace(b"Hello", b"Hallo")).status == 401
    assert publisher.refusal_of(body, "/app/app/stream/auth:test").status == 401
    assert publisher.refusal_of(body, "/app/slow/stream/test").status == 401
    assert publisher.refusal_of(body, host="elsewhere").status == 401


def test_the_secret_of_another_key_of_the_app_is_wrong(publisher: Publisher) -> None:
    assert publisher.refusal(secret="hunter3").status == 401
    assert publisher.publish(secret="hunter3", oauth_consumer_key="key2") is False


@pytest.mark.parametrize("secret", ["hunter2", "old-hunter2"])
def test_any_secret_of_the_app_is_right(publisher: Publisher, secret: str) -> None:
    assert publisher.publish(secret=secret) is False


@pytest.mark.parametrize(
    ("timestamp", "reason"),
    [
        (NOW - 301, "oauth_timestamp is 301 s behind the server's clock, at most 300 s are allowed"),
        (NOW + 3600, "oauth_timestamp is 3600 s ahead of the server's clock"),
        (-5, f"oauth_timestamp is {NOW + 5} s behind"),
    ],
)
def test_a_clock_that_is_off_is_401_and_told_by_how_much(
    publisher: Publisher, timestamp: int, reason: str
) -> None:
    refused = publisher.refusal(oauth_timestamp=str(timestamp))
    assert refused.status == 401
    assert reason in refused.reason
    for off_by in (-300, 300):
        assert publisher.publish(oauth_timestamp=str(NOW + off_by)) is False


def test_the_same_request_is_delivered_once(publisher: Publisher) -> None:
    body = publisher.body()
    assert [publisher.send(body) for _ in range(3)] == [False, True, True]
    assert len(publisher.delivered) == 1


def test_a_nonce_with_another_signature_is_401(publisher: Publisher) -> None:
    publisher.publish()
    refused = publisher.refusal(message="Other")
    assert refused.status == 401
    assert "used before" in refused.reason
    assert publisher.refusal(message="x" * 101).status == 401, "before it is measured"


def test_nonces_belong_to_an_app(publisher: Publisher) -> None:
    publisher.publish()
    assert publisher.publish(oauth_consumer_key="key2", secret="hunter3") is False
    assert publisher.publish("/app/slow/stream/test") is False


def test_a_long_message_is_413(publisher: Publisher) -> None:
    refused = publisher.refusal(message="é" * 51)
    assert (refused.status, refused.reason) == (413, "the message has 102 bytes, at most 100 are allowed")
    assert publisher.publish(message="é" * 50) is False


def test_more_than_the_rate_is_429_and_claims_nothing(publisher: Publisher) -> None:
    path = "/app/slow/stream/test"
    publisher.publish(path)
    body = publisher.body(path=path, oauth_nonce="2")
    refused = publisher.refusal_of(body, path)
    assert refused.status == 429
    assert refused.retry_after_s is not None
    assert 0 < refused.retry_after_s <= 1
    assert publisher.publish(path) is True, "a replay costs nothing"


def test_no_room_for_another_claim_is_503(publisher: Publisher) -> None:
    for i in range(8):
        publisher.publish(oauth_nonce=str(i))
    body = publisher.body(oauth_nonce="one more")
    refused = publisher.refusal_of(body)
    assert (refused.status, refused.retry_after_s) == (503, 301)
    publisher.now += 301
    assert publisher.refusal_of(body).status == 401, "by then the request is too old"
    assert publisher.publish(oauth_timestamp=str(NOW + 301)) is False


def test_checks_come_in_the_protocols_order(publisher: Publisher) -> None:
    """Each request is wrong in all that is checked later, too."""
    path = "/app/slow/stream/test"
    publisher.publish(path, oauth_nonce="uses up the rate")
    wrong: dict[str, Any] = {
        "message": "x" * 101,
        "oauth_nonce": "uses up the rate",
        "oauth_timestamp": "0",
        "secret": "wrong",
        "oauth_consumer_key": "other",
        "api_version": "2.0",
    }

    def refusal() -> tuple[int, str]:
        refused = publisher.refusal(path, **wrong)
        return refused.status, refused.reason

    assert publisher.refusal("/app/none/stream/test", **wrong).status == 404
    assert refusal() == (400, "api_version must be 1.0, not '2.0'")
    del wrong["api_version"]
    assert refusal() == (401, "the app 'slow' has no such key (oauth_consumer_key)")
    del wrong["oauth_consumer_key"]
    assert "wrong signature" in refusal()[1]
    del wrong["secret"]
    assert "behind the server's clock" in refusal()[1]
    del wrong["oauth_timestamp"]
    assert refusal() == (401, "oauth_nonce was used before, in a request with another signature")
    del wrong["oauth_nonce"]
    assert refusal()[0] == 413
    del wrong["message"]
    assert refusal()[0] == 429


@pytest.mark.parametrize(
    ("signed", "host"),
    [
        ("http://tambur.example", "tambur.example"),
        ("https://tambur.example", "tambur.example"),
        ("http://tambur.example", "Tambur.Example:80"),
        ("https://tambur.example", "tambur.example:443"),
        ("http://tambur.example:8080", "tambur.example:8080"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_either_scheme_may_have_been_signed(publisher: Publisher, signed: str, host: str) -> None:
    path = "/app/app/stream/test"
    assert publisher.send(publisher.body(url=signed + path), path, host=host) is False


@pytest.mark.parametrize("path", ["/app/app/stream/a/b", "/app/app/stream/a%2Fb", "/app/app/stream/a%2fb"])
def test_a_bare_slash_and_an_encoded_one_are_the_same_stream(publisher: Publisher, path: str) -> None:
    publisher.publish(path)
    assert publisher.messages == [["a/b", "public", "Hello"]]


def test_unknown_parameters_are_signed_and_otherwise_left_alone(publisher: Publisher) -> None:
    assert publisher.publish(x="y", oauth_token="") is False
    body = publisher.body(oauth_nonce="2", x="y")
    assert publisher.refusal_of(body.replace(b"x=y", b"x=z")).status == 401
    assert publisher.send(publisher.body(oauth_nonce="3") + b"&") is False


def test_bodies_of_other_clients_are_understood(publisher: Publisher) -> None:
    message = '{"é": "a b+~"}'
    body = publisher.body(message=message, oauth_nonce=b"\xff\x00\xfe")
    raw = body.replace(
        signing.percent_encode(message).encode(), '{"é": "a b%2B~"}'.encode().replace(b" ", b"+")
    )
    assert raw != body
    *fields, signature = raw.split(b"&")
    assert publisher.send(b"&".join([signature, *reversed(fields)])) is False
    assert publisher.messages == [["test", "public", message]]


def test_a_refusal_shows_the_base_string_and_nothing_secret(publisher: Publisher) -> None:
    body = publisher.body(secret="wrong")
    refused = publisher.refusal_of(body)
    assert refused.base_string is not None
    assert refused.base_string.startswith(
        "POST&http%3A%2F%2Ftambur.example%2Fapp%2Fapp%2Fstream%2Ftest&api_version%3D1.0"
    )
    right = dict(signing.parse_form(publisher.body()))[b"oauth_signature"].decode()
    for shown in (refused.base_string, refused.reason, str(refused)):
        assert "hunter2" not in shown
        assert right not in shown
        assert signing.percent_encode(right) not in shown


@pytest.mark.parametrize(
    ("changes", "debug", "count"),
    [
        ({}, False, 1),
        ({"secret": "wrong"}, False, 1),
        ({"secret": "wrong"}, True, 2),
        ({"api_version": "2.0"}, False, 0),
        ({"api_version": "2.0"}, True, 1),
        ({"oauth_consumer_key": "other"}, False, 0),
    ],
)
def test_the_base_string_is_computed_once_and_for_a_refusal_only_to_debug(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], debug: bool, count: int
) -> None:
    encode = signing.base_string_rest
    encoded: list[object] = []

    def counting(parameters: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
        encoded.append(parameters)
        return encode(parameters)

    monkeypatch.setattr(signing, "base_string_rest", counting)
    body = publisher.body(**changes)
    try:
        publisher.send(body, debug=debug)
    except RefusedError as refused:
        assert (refused.base_string is not None) is debug
    assert len(encoded) == count


@pytest.mark.parametrize("body", [b"", b"&", b"=", b"%", b"&&=&%zz&\xff=\x00", b"oauth_signature=" * 50])
def test_any_body_is_answered(publisher: Publisher, body: bytes) -> None:
    assert publisher.refusal_of(body).status == 400
