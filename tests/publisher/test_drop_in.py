"""Code written for the 2012 package runs unchanged: its constructor, attributes, arguments and return values."""

from __future__ import annotations

import copy
import enum
import json
import logging
import pickle
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import requests
import responses

import tambur.tambur
from tambur import ConfigurationError, InvalidNameError, RejectedError, Tambur
from tambur.server import App, Config, Server, in_background
from tambur.subscriber import Subscriber
from tambur.tambur import Tambur as TamburOf2012

from ..support import faults
from ..support.app import API_KEY, APP_ID, SECRET, subscriber
from ..support.faults import FaultyServer

SUBSCRIBER_ID = "a0629978-28d8-4fd4-b862-f67e9b6dfd8f"


def test_the_module_of_2012_has_the_class() -> None:
    assert TamburOf2012 is Tambur


def of_bytes(server: Server) -> Tambur:
    return Tambur(
        api_key=API_KEY, app_id=APP_ID.encode(), secret=SECRET.encode("ascii"), api_host=server.url.encode()
    )


def test_byte_credentials_publish_to_each_kind_of_stream(server: Server, stream: str) -> None:
    client = of_bytes(server)
    with subscriber(server, stream) as receiver:
        receiver.enable_auth(stream, client.generate_auth_token)
        for destination, kind in (
            (stream, "public"),
            ("auth:" + stream, "auth"),
            ("private:" + receiver.subscriber_id, "private"),
        ):
            message = json.dumps({"handle": "ABC123", "msg": "test message"})
            assert client.publish(destination, message) is True
            assert client.publish(destination.encode(), message) is True
            for _ in range(2):
                received = receiver.receive(60)
                assert (received.kind, received.text) == (kind, message)


def test_attributes_are_str_for_every_type_of_parameter() -> None:
    client = Tambur(b"key", b"app", b"secret", b"h:1")
    held = (client.api_key, client.app_id, client.secret, client.api_host, client.url)
    assert held == ("key", "app", "secret", "h:1", "http://h:1/app/app")
    assert {type(value) for value in held} == {str}
    numbers = Tambur(30, 7, 12345, "h")
    assert (numbers.api_key, numbers.app_id, numbers.secret) == ("30", "7", "12345")
    assert numbers.url == "http://h/app/7"


@pytest.fixture(scope="module")
def numbered() -> Iterator[Server]:
    """A server whose credentials are numbers."""
    with in_background(Config(apps=(App("30", "7", ("12345",)),), port=0)) as running:
        yield running


def test_credentials_streams_and_ids_may_be_numbers(numbered: Server) -> None:
    client = Tambur(30, 7, 12345, numbered.url)
    with Subscriber("30", "7", numbered.url) as receiver:
        receiver.subscribe("42")
        receiver.enable_presence(
            "42", "8", client.generate_presence_token(42, 8, receiver.subscriber_id.encode())
        )
        receiver.enable_direct("42", "8", client.generate_direct_token(42, 8, receiver.subscriber_id))
        assert client.publish(42, 7) is True
        assert receiver.receive(60).text == "7"


class Stream(str, enum.Enum):
    NEWS = "news"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("news", "news"),
        (b"caf\xc3\xa9", "café"),
        (bytearray(b"news"), "news"),
        (7, "7"),
        (Decimal("1.50"), "1.50"),
        (uuid.UUID(SUBSCRIBER_ID), SUBSCRIBER_ID),
        (Stream.NEWS, "news"),
    ],
)
def test_a_name_has_one_text_for_every_type(given: Any, text: str) -> None:
    one, other = Tambur(given, given, given, "h"), Tambur(text, text, text, "h")
    assert one.url == other.url
    assert one.generate_auth_token(given, given) == other.generate_auth_token(text, text)
    for method in ("generate_presence_token", "generate_direct_token"):
        assert getattr(one, method)(given, given, given) == getattr(other, method)(text, text, text)
    request, same = one.build_request(given, "x", 1, "n"), other.build_request(text, "x", 1, "n")
    assert (request.url, request.body) == (same.url, same.body)


@pytest.mark.parametrize("nothing", [None, "", b"", [], {}, object(), ["news"], b"\xff"])
def test_a_value_without_text_is_an_error(nothing: Any) -> None:
    client = Tambur("key", "app", "secret", "h")
    for name in ("api_key", "app_id", "secret", "api_host"):
        with pytest.raises(ConfigurationError, match=name):
            Tambur(**{"api_key": "k", "app_id": "a", "secret": "s", "api_host": "h"} | {name: nothing})
    for call in (
        lambda: client.publish(nothing, "x"),
        lambda: client.generate_auth_token(nothing, SUBSCRIBER_ID),
        lambda: client.generate_auth_token("s", nothing),
        lambda: client.generate_presence_token("s", nothing, SUBSCRIBER_ID),
        lambda: client.generate_direct_token("s", nothing, SUBSCRIBER_ID),
    ):
        with pytest.raises(InvalidNameError):
            call()


def test_publish_many_keeps_the_order_of_a_stream_given_as_str_and_bytes(server: Server, stream: str) -> None:
    client = of_bytes(server)
    with subscriber(server, stream) as receiver:
        outcomes = client.publish_many(
            [(stream, "1"), (stream.encode(), "2"), (None, "x"), (["no"], "x"), (stream, "3")]  # type: ignore[list-item]
        )
        assert [receiver.receive(60).text for _ in range(3)] == ["1", "2", "3"]
    assert [outcome if outcome is True else type(outcome) for outcome in outcomes] == [
        True,
        True,
        InvalidNameError,
        InvalidNameError,
        True,
    ]


def test_a_subclass_with_the_publish_of_2012_publishes_many(server: Server, stream: str) -> None:
    class Shouting(Tambur):
        def publish(self, stream: Any, message: Any) -> bool:  # type: ignore[override]
            return super().publish(stream, message.upper())

    with subscriber(server, stream) as receiver:
        assert Shouting(API_KEY, APP_ID, SECRET, server.url).publish_many([(stream, "hello")]) == [True]
        assert receiver.receive(60).text == "HELLO"


@pytest.mark.parametrize(
    "answer",
    [
        faults.response("200 OK"),
        faults.response("200 OK", "Content-Type: text/html; charset=utf-8"),
        faults.response("200 OK", "Content-Type: text/html", body=b"OK"),
        faults.response("201 Created", "Content-Type: application/json", body=b'{"html": "<b>"}'),
        faults.response("202 Accepted", "Content-Type: text/plain", body=b"a < b"),
        faults.response("299 Fine", body=b"\xff\xfe"),
    ],
)
def test_every_2xx_is_a_success_and_another_than_204_warns_once(
    answer: faults.Behaviour, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyServer(answer, answer) as server:
        client = Tambur("key", "app", "secret", server.host)
        with caplog.at_level(logging.WARNING, "tambur"):
            assert client.publish("test", "x") is True
            assert client.publish("test", "x") is True
        client.close()
        assert len(server.received) == 2
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"{server.host} answers publishes with 2")
    assert warning.endswith("a Tambur server with 204; is api_host correct?")


def test_a_204_does_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    with FaultyServer() as server, Tambur("key", "app", "secret", server.host) as client:
        assert client.publish("test", "x") is True
    assert caplog.records == []


@pytest.mark.parametrize(
    ("content_type", "page"),
    [
        ("text/html", b"<!DOCTYPE html><title>Please log in</title>"),
        ("text/html; charset=utf-8", b"Please <a href='/login'>log in</a>"),
        ("application/xhtml+xml", b"<?xml version='1.0'?><html/>"),
        ("text/plain", b"<html><body>Please log in"),
        ("text/plain", b"\xef\xbb\xbf \r\n<!doctype HTML>\n<p>Please log in"),
        ("", b"<HTML><HEAD><META http-equiv=refresh>"),
    ],
)
def test_an_html_page_is_a_failure_with_every_content_type(content_type: str, page: bytes) -> None:
    with FaultyServer(faults.response("200 OK", f"Content-Type: {content_type}", body=page)) as server:
        with Tambur("key", "app", "secret", server.host) as client:
            with pytest.raises(RejectedError, match="200: not the 204 of a Tambur server, but an HTML page"):
                client.publish("test", "x")


def test_a_2xx_that_breaks_off_is_retried() -> None:
    half = faults.answer_and_close(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    with FaultyServer(half) as server, Tambur("key", "app", "secret", server.host) as client:
        assert client.publish("test", "x") is True
        assert len(server.received) == 2
        assert len(set(server.bodies)) == 1


def test_the_default_answer_of_a_mock_is_a_success() -> None:
    client = Tambur("key", "app", "secret", "h")
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, "http://h/app/app/stream/test")
        assert client.publish("test", "x") is True


def test_an_assigned_url_receives_the_publishes(server: Server, stream: str) -> None:
    client = Tambur(API_KEY, APP_ID, SECRET)
    client.url = f"{server.url}/app/{APP_ID}"  # the 2012 package had no other way to https
    with subscriber(server, stream) as receiver:
        assert client.publish(stream, "Hello") is True  # and does not warn of the default host
        assert receiver.receive(60).text == "Hello"
    with pytest.raises(ConfigurationError, match="cannot send requests to 'elsewhere'"):
        client.url = "elsewhere"
    assert client.publish(stream, "Hello") is True


def test_an_assigned_secret_is_used(server: Server, stream: str) -> None:
    client = Tambur(API_KEY, APP_ID, "another", server.url)
    client.secret = SECRET
    assert client.publish(stream, "Hello") is True
    assert client.generate_auth_token("test", SUBSCRIBER_ID) == "2f25ad1ce5afab906cc582b6254a912590c60f73"


def test_a_client_can_be_pickled_and_copied(server: Server, stream: str) -> None:
    client = of_bytes(server)
    with subscriber(server, stream) as receiver:
        assert client.publish(stream, "x") is True  # it has an open connection by now
        for other in (pickle.loads(pickle.dumps(client)), copy.copy(client), copy.deepcopy(client)):  # noqa: S301
            assert other.publish(stream, "x") is True
            assert other.generate_auth_token("s", "id") == client.generate_auth_token("s", "id")
            other.close()
        assert [receiver.receive(60).text for _ in range(4)] == ["x"] * 4


@pytest.mark.parametrize("message", ["Hello", "é 🥁 +%&=", ""])
def test_the_attribute_oauth_signs_the_callers_form(server: Server, stream: str, message: str) -> None:
    client = of_bytes(server)
    url = f"{client.url}/stream/{stream}"
    fields = {"api_version": tambur.tambur.api_version, "message": message}
    with subscriber(server, stream) as receiver:
        for query in ("", "?debug=true"):
            assert requests.post(url + query, data=fields, auth=client.oauth, timeout=60).status_code == 204
            assert receiver.receive(60).text == message
    assert requests.post(url, data=fields, timeout=60).status_code == 400
