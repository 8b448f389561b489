"""Section 1 of the protocol: names, prefixes and paths."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tambur import ConfigurationError, InvalidNameError
from tambur.protocol.names import (
    Destination,
    Kind,
    app_path,
    check_credential_name,
    check_stream,
    check_subscriber_id,
    check_user_id,
    parse_destination,
    split_publish_path,
    split_subscribe_path,
    stream_path,
    subscribe_path,
)

from ..support.strategies import credential_names, streams


@pytest.mark.parametrize(
    "stream", ["test", "valid:stream", "a/b", "a b", "%2F", "?#", "...", "é", "x" * 200, "authority"]
)
def test_a_stream_may_be_called_almost_anything(stream: str) -> None:
    assert check_stream(stream) == stream


@pytest.mark.parametrize(
    ("stream", "rule"),
    [
        ("", "empty"),
        ("x" * 201, "201 characters, at most 200"),
        ("private", "may not be called"),
        (".", "may not be called"),
        ("..", "may not be called"),
        ("auth:x", "may not begin"),
        ("private:x", "may not begin"),
        ("a\nb", r"'\\n' at position 1"),
        ("a\x7f", r"'\\x7f' at position 1"),
        ("\x85", "control"),
        ("\ud800", "surrogate"),
        (b"\xff", "must be UTF-8: b'\\\\xff'"),
        (["s"], r"must be a str, not list: \['s'\]"),
        (None, "must be a str, not NoneType"),
    ],
)
def test_what_no_stream_may_be_called_is_refused_with_the_rule(stream: Any, rule: str) -> None:
    with pytest.raises(InvalidNameError, match=rule):
        check_stream(stream)


@pytest.mark.parametrize("check", [check_user_id, check_subscriber_id])
@pytest.mark.parametrize("bad", ["", "a:b", ":", "x" * 201, "\n", b"a:b", b"", None, ["7"]])
def test_an_id_may_not_hold_a_colon(check: Any, bad: Any) -> None:
    assert check("x" * 200) == "x" * 200
    assert check("private") == "private"
    with pytest.raises(InvalidNameError):
        check(bad)


@pytest.mark.parametrize("bad", ["", "a:b", "a/b", ".", "..", "\n", None])
def test_a_bad_api_key_or_app_id_is_a_configuration_error(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="app_id"):
        check_credential_name("app_id", bad)


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("mystream", Destination(Kind.PUBLIC, "mystream")),
        ("auth:mystream", Destination(Kind.AUTH, "mystream")),
        ("auth:a:b", Destination(Kind.AUTH, "a:b")),
        ("private:a0629978", Destination(Kind.PRIVATE, "a0629978")),
        ("valid:stream", Destination(Kind.PUBLIC, "valid:stream")),
        ("Auth:x", Destination(Kind.PUBLIC, "Auth:x")),
    ],
)
def test_a_destination_has_three_forms(text: str, destination: Destination) -> None:
    assert parse_destination(text) == destination
    assert str(destination) == text


@pytest.mark.parametrize(
    "bad", ["auth:", "auth:auth:x", "auth:private", "auth:..", "private:", "private:a:b", "private", "", None]
)
def test_what_is_no_destination_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidNameError):
        parse_destination(bad)


@given(credential_names, streams, st.sampled_from(["", "auth:"]))
def test_a_path_leads_back_to_its_stream_and_nowhere_else(app_id: str, stream: str, prefix: str) -> None:
    path = app_path(app_id) + stream_path(prefix + stream)
    assert split_publish_path(path.encode("ascii")) == (app_id, (prefix + stream).encode())
    sent = requests.Request("POST", f"http://example.com{path}").prepare()
    assert sent.path_url == path, "requests would send another path than the one that is signed"


def test_a_colon_stays_as_it_is() -> None:
    assert stream_path("auth:test") == "/stream/auth:test"


@pytest.mark.parametrize(
    ("raw_path", "split"),
    [
        (b"/app/a/stream/a/b", ("a", b"a/b")),
        (b"/app/a/stream/a%2Fb", ("a", b"a/b")),
        (b"/app/a/stream/%252F", ("a", b"%2F")),
        (b"/app/a/stream//x", ("a", b"/x")),
        (b"/app/a/stream/", ("a", b"")),
        (b"/app/a/stream/x/stream/y", ("a", b"x/stream/y")),
        (b"/app/%C3%A9/stream/%FF", ("é", b"\xff")),
        (b"/app/%FF/stream/x", None),
        (b"/app//stream/x", None),
        (b"/app/a/b/stream/x", None),
        (b"/app/a/stream", None),
        (b"/x/app/a/stream/x", None),
    ],
)
def test_all_behind_stream_is_the_stream_decoded_once(raw_path: bytes, split: Any) -> None:
    assert split_publish_path(raw_path) == split


@given(credential_names, credential_names)
def test_the_path_of_a_subscriber_leads_back_to_its_app(api_key: str, app_id: str) -> None:
    assert split_subscribe_path(subscribe_path(api_key, app_id).encode("ascii")) == (api_key, app_id)


@pytest.mark.parametrize("raw_path", [b"/", b"/a", b"/a/", b"/a/b/c", b"//b", b"/%FF/b", b"a/b"])
def test_what_is_no_subscribers_path_is_none(raw_path: bytes) -> None:
    assert split_subscribe_path(raw_path) is None
