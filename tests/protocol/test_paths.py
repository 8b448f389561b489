"""The paths of URLs, made and split (sections 2 and 4 of the protocol)."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tambur.protocol.paths import (
    app_path,
    query_path,
    split_publish_path,
    split_query_path,
    split_subscribe_path,
    stream_path,
    subscribe_path,
)

from ..support.strategies import credential_names, streams


@given(credential_names, streams, st.sampled_from(["", "auth:"]))
def test_a_publish_path_splits_into_the_app_and_stream_it_was_made_of(
    app_id: str, stream: str, prefix: str
) -> None:
    path = app_path(app_id) + stream_path(prefix + stream)
    assert split_publish_path(path.encode("ascii")) == (app_id, (prefix + stream).encode())
    sent = requests.Request("POST", f"http://example.com{path}").prepare()
    assert sent.path_url == path, "requests must send the path that is signed"


def test_a_colon_in_a_stream_stays_as_it_is() -> None:
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
def test_everything_after_stream_is_the_destination_decoded_once(raw_path: bytes, split: Any) -> None:
    assert split_publish_path(raw_path) == split


@given(credential_names, credential_names)
def test_a_subscribers_path_splits_into_the_app_it_was_made_of(api_key: str, app_id: str) -> None:
    assert split_subscribe_path(subscribe_path(api_key, app_id).encode("ascii")) == (api_key, app_id)


@pytest.mark.parametrize("raw_path", [b"/", b"/a", b"/a/", b"/a/b/c", b"//b", b"/%FF/b", b"a/b"])
def test_any_other_path_is_not_a_subscribers(raw_path: bytes) -> None:
    assert split_subscribe_path(raw_path) is None


@given(credential_names, st.sampled_from(["users", "history"]), streams)
def test_a_query_path_splits_into_the_parts_it_was_made_of(app_id: str, word: str, stream: str) -> None:
    path = app_path(app_id) + query_path(word, stream)
    assert split_query_path(path.encode("ascii")) == (app_id, word, stream.encode())
    assert split_query_path((app_path(app_id) + query_path(word)).encode("ascii")) == (app_id, word, None)


@pytest.mark.parametrize(
    "path", [b"/app/a", b"/app/a/Users", b"/app//users", b"/app/%FF/users", b"/apps/a/users"]
)
def test_another_path_is_not_that_of_a_query(path: bytes) -> None:
    assert split_query_path(path) is None
