"""Verifying signed requests: section 2 of the protocol, without a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tambur.protocol import oauth as signing
from tambur.server.api.auth import RefusedError
from tests.support.api import FORM, HOST, NOW, Api


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/form-data", "text/plain"])
def test_another_content_type_is_400(api: Api, content_type: str) -> None:
    refused = api.refusal_of(b"", content_type=content_type)
    assert (refused.status, refused.base_string) == (400, None)
    assert repr(content_type) in refused.reason


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=UTF-8", FORM.upper(), f" {FORM} ;x"])
def test_the_content_type_of_a_form_may_have_any_case_and_parameters(api: Api, content_type: str) -> None:
    assert api.send(api.body(), content_type=content_type) is False


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
def test_a_missing_parameter_is_400(api: Api, field: str) -> None:
    changes: dict[str, Any] = {field: None}
    refused = api.refusal(**changes)
    assert (refused.status, refused.reason) == (400, f"{field} must be given once, not 0 times")


@pytest.mark.parametrize("field", [*FIELDS, "oauth_signature"])
def test_a_doubled_parameter_is_400(api: Api, field: str) -> None:
    refused = api.refusal_of(api.body() + f"&{field}=x".encode())
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
def test_a_malformed_parameter_is_400_and_the_reason_names_the_rule(
    api: Api, changes: dict[str, Any], reason: str
) -> None:
    refused = api.refusal(**changes)
    assert refused.status == 400
    assert reason in refused.reason


def test_an_unknown_key_is_401(api: Api) -> None:
    refused = api.refusal(oauth_consumer_key="other")
    assert (refused.status, refused.reason) == (401, "the app 'app' has no such key (oauth_consumer_key)")


def test_a_wrong_signature_is_401(api: Api) -> None:
    refused = api.refusal(secret="wrong")
    assert refused.status == 401
    assert "wrong signature" in refused.reason
    assert HOST in refused.reason
    body = api.body()
    assert api.refusal_of(body.replace(b"Hello", b"Hallo")).status == 401
    assert api.refusal_of(body, "/app/app/stream/auth:test").status == 401
    assert api.refusal_of(body, "/app/slow/stream/test").status == 401
    assert api.refusal_of(body, host="elsewhere").status == 401


def test_the_secret_of_another_key_of_the_app_is_wrong(api: Api) -> None:
    assert api.refusal(secret="hunter3").status == 401
    assert api.publish(secret="hunter3", oauth_consumer_key="key2") is False


@pytest.mark.parametrize("secret", ["hunter2", "old-hunter2"])
def test_any_secret_of_the_app_is_right(api: Api, secret: str) -> None:
    assert api.publish(secret=secret) is False


@pytest.mark.parametrize(
    ("timestamp", "reason"),
    [
        (NOW - 301, "oauth_timestamp is 301 s behind the server's clock, at most 300 s are allowed"),
        (NOW + 3600, "oauth_timestamp is 3600 s ahead of the server's clock"),
        (-5, f"oauth_timestamp is {NOW + 5} s behind"),
    ],
)
def test_a_wrong_clock_is_401_and_the_reason_says_by_how_much(api: Api, timestamp: int, reason: str) -> None:
    refused = api.refusal(oauth_timestamp=str(timestamp))
    assert refused.status == 401
    assert reason in refused.reason
    for off_by in (-300, 300):
        assert api.publish(oauth_timestamp=str(NOW + off_by)) is False


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
def test_either_scheme_may_have_been_signed(api: Api, signed: str, host: str) -> None:
    path = "/app/app/stream/test"
    assert api.send(api.body(url=signed + path), path, host=host) is False


def test_unknown_parameters_are_signed_and_ignored(api: Api) -> None:
    assert api.publish(x="y", oauth_token="") is False
    body = api.body(oauth_nonce="2", x="y")
    assert api.refusal_of(body.replace(b"x=y", b"x=z")).status == 401
    assert api.send(api.body(oauth_nonce="3") + b"&") is False


def test_bodies_of_other_clients_are_understood(api: Api) -> None:
    message = '{"é": "a b+~"}'
    body = api.body(message=message, oauth_nonce=b"\xff\x00\xfe")
    raw = body.replace(
        signing.percent_encode(message).encode(), '{"é": "a b%2B~"}'.encode().replace(b" ", b"+")
    )
    assert raw != body
    *fields, signature = raw.split(b"&")
    assert api.send(b"&".join([signature, *reversed(fields)])) is False
    assert api.messages == [["test", "public", message]]


def test_a_refusal_shows_the_base_string_and_nothing_secret(api: Api) -> None:
    body = api.body(secret="wrong")
    refused = api.refusal_of(body)
    assert refused.base_string is not None
    assert refused.base_string.startswith(
        "POST&http%3A%2F%2Ftambur.example%2Fapp%2Fapp%2Fstream%2Ftest&api_version%3D1.0"
    )
    right = dict(signing.parse_form(api.body()))[b"oauth_signature"].decode()
    for shown in (refused.base_string, refused.reason, str(refused)):
        assert "hunter2" not in shown
        assert right not in shown
        assert signing.percent_encode(right) not in shown


@pytest.mark.parametrize(
    ("changes", "debug", "count"),
    [
        ({}, False, 1),
        ({"secret": "wrong"}, False, 1),
        ({"secret": "wrong"}, True, 1),
        ({"api_version": "2.0"}, False, 0),
        ({"api_version": "2.0"}, True, 1),
        ({"oauth_consumer_key": "other"}, False, 0),
    ],
)
def test_the_base_string_is_computed_once_and_for_a_refusal_only_to_debug(
    api: Api, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], debug: bool, count: int
) -> None:
    encode = signing.base_string_rest
    encoded: list[object] = []

    def counting(parameters: Iterable[tuple[bytes, bytes]], form: bytes) -> Iterator[bytes]:
        encoded.append(form)
        return encode(parameters, form)

    monkeypatch.setattr(signing, "base_string_rest", counting)
    body = api.body(**changes)
    try:
        api.send(body, debug=debug)
    except RefusedError as refused:
        assert (refused.base_string is not None) is debug
    assert len(encoded) == count


@pytest.mark.parametrize("body", [b"", b"&", b"=", b"%", b"&&=&%zz&\xff=\x00", b"oauth_signature=" * 50])
def test_any_body_is_answered(api: Api, body: bytes) -> None:
    assert api.refusal_of(body).status == 400
