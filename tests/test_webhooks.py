"""Verifying webhooks in an app, against the package of the Standard Webhooks specification, too."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.conf import settings
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks import WebhookVerificationError as OtherError
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from tambur import ConfigurationError, WebhookVerificationError
from tambur.protocol.webhooks import decode_secret, make_headers
from tambur.testing import make_webhook
from tambur.webhooks import Event, encode, make_event, parse

SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
NOW = 1_764_115_200
VERSION = NOW * 1_000_000 + 123_456
BODY, HEADERS = make_webhook(SECRET, "user.left", "room", "bob", app_id="chat", version=VERSION)
SIGNED_AT = int(HEADERS["webhook-timestamp"])
EVENT = Event(
    type="user.left",
    timestamp=datetime(2025, 11, 26, 0, 0, 0, 123_456, timezone.utc),
    app_id="chat",
    stream="room",
    user_id="bob",
    version=VERSION,
    id=HEADERS["webhook-id"],
)


def signed(body: bytes, *, webhook_id: str = "msg_1", timestamp: int = NOW) -> dict[str, str]:
    return make_headers(decode_secret(SECRET), webhook_id, timestamp, body)


def test_an_event_is_read() -> None:
    assert parse(BODY, HEADERS, SECRET, now=SIGNED_AT) == EVENT
    assert parse(BODY.decode(), HEADERS, SECRET, now=SIGNED_AT) == EVENT
    assert (
        parse(BODY, {name.upper(): value for name, value in HEADERS.items()}, SECRET, now=SIGNED_AT) == EVENT
    )


def test_the_body_of_an_event() -> None:
    body = encode(make_event("user.joined", "chat", "room:ä", "Bob \U0001f600", VERSION))
    assert json.loads(body) == {
        "type": "user.joined",
        "timestamp": "2025-11-26T00:00:00.123456Z",
        "data": {"app_id": "chat", "stream": "room:ä", "user_id": "Bob \U0001f600", "version": VERSION},
    }
    assert b'"2025-11-26T00:00:00.000000Z"' in encode(make_event("user.left", "a", "s", "u", NOW * 1_000_000))


def test_the_headers_of_flask_and_django_are_read() -> None:
    environ = EnvironBuilder(method="POST", data=BODY, headers=list(HEADERS.items())).get_environ()
    request = Request(environ)
    assert parse(request.get_data(), request.headers, SECRET, now=SIGNED_AT) == EVENT
    if not settings.configured:
        settings.configure()
    django = RequestFactory().post("/", BODY, content_type="application/json", headers=HEADERS)
    assert parse(django.body, django.headers, SECRET, now=SIGNED_AT) == EVENT


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_the_package_of_the_specification_verifies_what_a_server_signs(stream: str, user: str) -> None:
    body, headers = make_webhook(SECRET, "user.joined", stream, user)
    data: dict[str, Any] = Webhook(SECRET).verify(body, headers)
    assert data["data"] == {
        "app_id": "app",
        "stream": stream,
        "user_id": user,
        "version": parse(body, headers, SECRET).version,
    }


def test_a_signature_of_the_package_of_the_specification_is_verified() -> None:
    now = datetime.now(tz=timezone.utc)
    signature = Webhook(SECRET).sign("msg_x", now, BODY.decode())
    headers = {
        "webhook-id": "msg_x",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": f"v1a,other {signature}",
    }
    assert parse(BODY, headers, SECRET).id == "msg_x"
    with pytest.raises(WebhookVerificationError):
        parse(BODY + b" ", headers, SECRET)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(NOW + 1)},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "ä ,,, v1,ä"},
        {"webhook-signature": "v1,\udcff"},  # some frameworks decode bytes that are not UTF-8 so
        {"webhook-id": "\udcff"},
    ],
)
def test_both_refuse_a_changed_request(change: dict[str, str]) -> None:
    headers = make_headers(decode_secret(SECRET), "msg_1", NOW, BODY) | change
    with pytest.raises(WebhookVerificationError, match="the signature does not match"):
        parse(BODY, headers, SECRET, now=NOW)
    with pytest.raises((OtherError, ValueError)):
        Webhook(SECRET).verify(BODY, headers)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(name: str) -> None:
    for headers in ({key: value for key, value in HEADERS.items() if key != name}, HEADERS | {name: ""}):
        with pytest.raises(WebhookVerificationError, match=f"the header {name} is missing"):
            parse(BODY, headers, SECRET)


@pytest.mark.parametrize("stated", ["x", "-1", "1.5", " 1", "\u0661", "9" * 16, "1e3"])
def test_a_timestamp_is_a_number_of_seconds(stated: str) -> None:
    with pytest.raises(WebhookVerificationError, match="webhook-timestamp is not a number"):
        parse(BODY, HEADERS | {"webhook-timestamp": stated}, SECRET)


def test_a_request_is_accepted_for_five_minutes() -> None:
    headers = signed(BODY)
    for now in (NOW - 300, NOW, NOW + 300):
        assert parse(BODY, headers, SECRET, now=now).version == VERSION
    with pytest.raises(WebhookVerificationError, match="301 s old, more than 300 s"):
        parse(BODY, headers, SECRET, now=NOW + 301)
    with pytest.raises(WebhookVerificationError, match="301 s in the future"):
        parse(BODY, headers, SECRET, now=NOW - 301)
    with pytest.raises(WebhookVerificationError, match="old"):
        parse(BODY, signed(BODY, timestamp=int(time.time() - 400)), SECRET)
    assert parse(BODY, signed(BODY, timestamp=int(time.time())), SECRET).version == VERSION


def changed(**changes: Any) -> bytes:
    event = json.loads(BODY)
    for name, value in changes.items():
        (event if name in event else event["data"])[name] = value
    return json.dumps(event).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xff", b"[]", b"1", b'"x"', b"null", b"{}", b'{"type": "user.left"}', b"[" * 100_000,
        changed(type=1), changed(timestamp="yesterday"), changed(timestamp=1), changed(data=[]), changed(stream=None),
        changed(user_id=5), changed(version="7"), changed(version=True), changed(version=1.5), changed(app_id=[]),
    ],
)  # fmt: skip
def test_a_signed_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookVerificationError, match="the body is not an event of a Tambur server"):
        parse(body, signed(body), SECRET, now=NOW)


def test_an_event_of_a_later_server_is_read() -> None:
    body = changed(type="user.renamed", data=json.loads(BODY)["data"] | {"more": 1})
    assert parse(body, signed(body), SECRET, now=NOW).type == "user.renamed"


@pytest.mark.parametrize("secret", ["", "whsec_", "hunter2", "whsec_hunter2!"])
def test_a_malformed_secret_is_an_error_of_the_configuration(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="the secret of a webhook must be 'whsec_' and") as caught:
        parse(BODY, HEADERS, secret)
    assert "hunter2" not in str(caught.value)


@given(
    st.binary(max_size=50),
    st.dictionaries(st.sampled_from([*HEADERS, "Webhook-Id"]), st.text(max_size=30)),
)
def test_no_request_raises_anything_else(body: bytes, headers: Mapping[str, str]) -> None:
    with pytest.raises(WebhookVerificationError):
        parse(body, headers, SECRET)


def test_the_timestamp_is_in_utc() -> None:
    assert EVENT.timestamp.utcoffset() == timedelta(0)
    assert parse(BODY, HEADERS, SECRET, now=SIGNED_AT).timestamp.tzinfo is not None
