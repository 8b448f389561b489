"""How a message becomes the text that is sent."""

from __future__ import annotations

import datetime as dt
import functools
import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
from django.core.serializers.json import DjangoJSONEncoder

from tambur import InvalidMessageError
from tambur.protocol.oauth import parse_form

from ..support.faults import FaultyServer, publisher


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ("", b""),
        ("plain", b"plain"),
        ("é 🥁 +%&=", "é 🥁 +%&=".encode()),
        ("é".encode(), "é".encode()),
        (bytearray(b"x"), b"x"),
        ({"a": [1, "é", None]}, '{"a":[1,"é",null]}'.encode()),
        (7, b"7"),
        (None, b"null"),
    ],
)
def test_a_message_is_sent_as_text_or_as_json(message: Any, sent: bytes) -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        tambur.publish("test", message)
        assert dict(parse_form(server.bodies[0]))[b"message"] == sent


def recursive() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (b"\xff", "must be UTF-8: invalid start byte at byte 0"),
        ("a\ud800", "lone surrogates: .* at position 1"),
        (["\ud800"], "lone surrogates"),
        (
            object(),
            r"of type object as JSON: Object of type object .*; use Tambur\(\.\.\., encode=\.\.\.\)",
        ),
        (float("nan"), "JSON"),
        ({1: {2}}, "cannot send a message of type dict as JSON: Object of type set"),
        (recursive(), "JSON"),
    ],
)
def test_a_message_that_cannot_be_encoded_is_not_sent(message: Any, rule: str) -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        with pytest.raises(InvalidMessageError, match=rule):
            tambur.publish("test", message)
        assert server.received == []


MOMENT = dt.datetime(2012, 11, 23, 12, 0, tzinfo=dt.timezone.utc)


def test_encode_returns_the_text_of_messages_that_are_not_text() -> None:
    with FaultyServer() as server:
        with publisher(server, encode=functools.partial(json.dumps, default=str)) as tambur:
            for message in ({"at": MOMENT, "price": Decimal("1.50")}, uuid.UUID(int=1), 7, "text", b"bytes"):
                assert tambur.publish("test", message) is True
        sent = [dict(parse_form(body))[b"message"].decode() for body in server.bodies]
    assert sent == [
        '{"at": "2012-11-23 12:00:00+00:00", "price": "1.50"}',
        '"00000000-0000-0000-0000-000000000001"',
        "7",
        "text",
        "bytes",
    ]


def test_the_encoder_of_django_can_be_used() -> None:
    with FaultyServer() as server, publisher(server, encode=DjangoJSONEncoder().encode) as tambur:
        tambur.publish("test", {"at": MOMENT, "price": Decimal("1.50")})
        assert (
            dict(parse_form(server.bodies[0]))[b"message"]
            == b'{"at": "2012-11-23T12:00:00Z", "price": "1.50"}'
        )


def test_a_type_that_json_lacks_is_named_with_the_remedy() -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        with pytest.raises(InvalidMessageError) as caught:
            tambur.publish("test", MOMENT)
        assert server.received == []
    assert str(caught.value) == (
        "cannot send a message of type datetime as JSON: Object of type datetime is not JSON serializable; "
        "use Tambur(..., encode=...) for it"
    )


def fail(message: Any) -> str:
    raise LookupError("no such field")


@pytest.mark.parametrize(
    ("encode", "rule"),
    [
        (fail, "encode failed for a message of type dict: LookupError: no such field"),
        (lambda message: b"{}", "encode must return a str, not bytes, for a message of type dict"),
        (lambda message: "\ud800", "a message must not contain lone surrogates"),
        (json.JSONEncoder, "encode failed for a message of type dict: TypeError: "),
    ],
)
def test_an_encode_that_fails_raises_invalid_message(encode: Any, rule: str) -> None:
    with FaultyServer() as server, publisher(server, encode=encode) as tambur:
        with pytest.raises(InvalidMessageError, match=rule):
            tambur.publish("test", {})
        assert tambur.publish_many([("test", {}), ("test", "x")])[1] is True
        assert len(server.received) == 1
