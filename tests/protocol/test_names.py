"""Section 1 of the protocol: names and their prefixes."""

from __future__ import annotations

from typing import Any

import pytest

from tambur import ConfigurationError, InvalidNameError
from tambur.protocol.names import (
    Destination,
    Kind,
    check_credential_name,
    check_destination,
    check_stream,
    check_subscriber_id,
    check_user_id,
    parse_destination,
)


@pytest.mark.parametrize(
    "stream", ["test", "valid:stream", "a/b", "a b", "%2F", "?#", "...", "é", "x" * 200, "authority"]
)
def test_a_stream_name_may_be_nearly_any_text(stream: str) -> None:
    assert check_stream(stream) == stream


@pytest.mark.parametrize(
    ("stream", "rule"),
    [
        ("", "a stream name must not be empty"),
        ("x" * 201, "at most 200 characters, not 201"),
        ("private", "must not be named 'private'"),
        (".", "must not be named"),
        ("..", "must not be named"),
        ("auth:x", "must not begin with"),
        ("private:x", "must not begin with"),
        ("a\nb", r"'\\n' at position 1"),
        ("a\x7f", r"'\\x7f' at position 1"),
        ("\x85", "control"),
        ("\ud800", "surrogate"),
        (b"\xff", "must be UTF-8: b'\\\\xff'"),
        (["s"], r"must be a str, not list: \['s'\]"),
        (None, "must be a str, not NoneType"),
    ],
)
def test_an_invalid_stream_name_is_refused_with_the_rule(stream: Any, rule: str) -> None:
    with pytest.raises(InvalidNameError, match=rule):
        check_stream(stream)


@pytest.mark.parametrize("check", [check_user_id, check_subscriber_id])
@pytest.mark.parametrize("bad", ["", "a:b", ":", "x" * 201, "\n", b"a:b", b"", None, ["7"]])
def test_an_id_must_not_contain_a_colon(check: Any, bad: Any) -> None:
    assert check("x" * 200) == "x" * 200
    assert check("private") == "private"
    with pytest.raises(InvalidNameError):
        check(bad)


@pytest.mark.parametrize("bad", ["", "a:b", "a/b", ".", "..", "\n", None])
def test_an_invalid_api_key_or_app_id_is_a_configuration_error(bad: Any) -> None:
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
    assert check_destination(text) == text


@pytest.mark.parametrize(
    "bad", ["auth:", "auth:auth:x", "auth:private", "auth:..", "private:", "private:a:b", "private", "", None]
)
def test_an_invalid_destination_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidNameError):
        parse_destination(bad)
    with pytest.raises(InvalidNameError):
        check_destination(bad)
