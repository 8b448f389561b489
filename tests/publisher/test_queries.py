"""The queries of the publisher: their requests, retries and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tambur import (
    AppNotFoundError,
    ConfigurationError,
    ConnectionFailedError,
    History,
    InvalidNameError,
    KeptMessage,
    RejectedError,
    Tambur,
    TimedOutError,
    UnavailableError,
)
from tambur.protocol.oauth import parse_form

from ..support import faults
from ..support.faults import Behaviour, FaultyServer, publisher

NOBODY: dict[str, Any] = {"users": [], "after": None}


def answered(content: Any) -> Behaviour:
    return faults.response(
        "200 OK", "Content-Type: application/json", body=json.dumps(content, ensure_ascii=False).encode()
    )


def test_a_query_is_one_signed_post() -> None:
    content = {
        "messages": [{"kind": "auth", "message": "é", "position": "p", "published_at": 1.5}],
        "position": "q",
        "complete": True,
        "more": False,
    }
    with FaultyServer(answered(content)) as server, publisher(server) as tambur:
        history = tambur.history("a/b:c", limit=7, since="x.y")
        (request,) = server.received
    assert history == History([KeptMessage("auth", "é", "p", 1.5)], "q", complete=True, more=False)
    assert request.head.startswith(b"POST /app/app/history/a%2Fb:c HTTP/1.1\r\n")
    values = dict(parse_form(request.body))
    assert (values[b"limit"], values[b"since"]) == (b"7", b"x.y")
    assert values[b"api_version"] == b"1.0"
    assert b"message" not in values


@pytest.mark.parametrize(
    "behaviour",
    [
        faults.drop,
        faults.response("503 Service Unavailable", "Retry-After: 0"),
        faults.answer_and_close(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"users":["a'),
    ],
)
def test_each_attempt_is_signed_anew(behaviour: Behaviour) -> None:
    with FaultyServer(behaviour, behaviour, answered(NOBODY)) as server, publisher(server) as tambur:
        assert tambur.users("s") == []
        bodies = [dict(parse_form(body)) for body in server.bodies]
    assert len({body[b"oauth_nonce"] for body in bodies}) == 3
    assert len({body[b"oauth_signature"] for body in bodies}) == 3


def test_users_and_streams_are_asked_for_until_all_are_known() -> None:
    pages = [
        {"users": ["a", "b"], "after": "b"},
        {"users": ["c"], "after": None},
        {"streams": [{"stream": "x1", "subscribers": 2, "users": 1}], "after": "x1"},
        {"streams": [{"stream": "x2", "subscribers": 1, "users": 0}], "after": None},
    ]
    with FaultyServer(*map(answered, pages)) as server, publisher(server) as tambur:
        assert tambur.users(b"s") == ["a", "b", "c"]
        streams = tambur.streams("x")
        assert len(server.received) == 2, "the iterator asks when it is used"
        first = next(streams)
        assert (first.stream, first.subscribers, first.users) == ("x1", 2, 1)
        assert len(server.received) == 3
        assert list(streams) == [("x2", 1, 0)]
        fields = [dict(parse_form(body)) for body in server.bodies]
    assert [f.get(b"after") for f in fields] == [None, b"b", None, b"x1"]
    assert [f.get(b"prefix") for f in fields] == [None, None, b"x", b"x"]


def test_a_failed_query_says_what_failed() -> None:
    failure = faults.response("503 Service Unavailable", body=b"a node does not answer")
    with FaultyServer(*[failure] * 6) as server, publisher(server, max_retries=1) as tambur:
        with pytest.raises(
            UnavailableError, match="asking for the users of 's' failed: .* 503: a node"
        ) as caught:
            tambur.users("s")
        assert (caught.value.stream, caught.value.attempts) == ("s", 2)
        with pytest.raises(UnavailableError, match="asking for the streams failed"):
            list(tambur.streams())


def test_a_server_without_queries_answers_404() -> None:
    with FaultyServer(faults.response("404 Not Found", body=b"Not Found")) as server:
        with publisher(server) as tambur, pytest.raises(AppNotFoundError, match="404: Not Found"):
            tambur.users("s")


@pytest.mark.parametrize(
    "behaviour",
    [
        answered([]),
        answered({}),
        answered({"users": [1], "after": None}),
        answered({"users": ["a"], "after": 1}),
        answered({"users": None, "after": None}),
        answered({"users": [], "after": ""}),
        faults.response("200 OK", body=b"\xff"),
        faults.response("200 OK", body=b"[" * 100_000),
        faults.response("200 OK", body=b"<html>hello"),
        faults.response("204 No Content"),
    ],
)
def test_an_answer_of_another_form_is_an_error(behaviour: Behaviour) -> None:
    with FaultyServer(behaviour) as server, publisher(server) as tambur:
        with pytest.raises(RejectedError, match="not like a Tambur server"):
            tambur.users("s")
        assert len(server.received) == 1


def test_pages_that_do_not_advance_are_an_error() -> None:
    page = answered({"users": ["a"], "after": "a"})
    with FaultyServer(page, page) as server, publisher(server) as tambur, pytest.raises(RejectedError):
        tambur.users("s")


def test_an_endless_answer_is_cut_off() -> None:
    def endless(connection: Any) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")

    with FaultyServer(endless) as server, publisher(server, max_retries=0) as tambur:
        with pytest.raises(RejectedError, match="not like a Tambur server"):
            tambur.users("s")


def test_an_answer_that_takes_too_long_is_a_timeout() -> None:
    with FaultyServer(faults.hang) as server, publisher(server, timeout=(60, 0.05)) as tambur:
        with pytest.raises(TimedOutError, match="asking for the users of 's' failed"):
            tambur.users("s")
        server.wait(1)
        assert len(server.received) == 1


def test_nobody_there_is_an_error() -> None:
    with FaultyServer() as server:
        host = server.host
    with Tambur("k", "a", "s", host, max_retries=0) as tambur, pytest.raises(ConnectionFailedError):
        tambur.history("s")


@pytest.mark.parametrize("limit", [0, 1001, True, "1", 1.0, None])
def test_an_invalid_limit_is_not_sent(limit: Any) -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        with pytest.raises(ConfigurationError, match="limit must be an integer from 1 to 1000, not"):
            tambur.history("s", limit=limit)
        assert server.received == []


@pytest.mark.parametrize("since", ["", 1, b"x"])
def test_an_invalid_position_is_not_sent(since: Any) -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        with pytest.raises(ConfigurationError, match="since must be a position"):
            tambur.history("s", since=since)
        assert server.received == []


@pytest.mark.parametrize("name", ["auth:s", "private", "", None, "\x00"])
def test_an_invalid_name_is_not_sent(name: Any) -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        for ask in (tambur.users, tambur.history):
            with pytest.raises(InvalidNameError):
                ask(name)
        if name not in ("auth:s", "private", ""):
            with pytest.raises(InvalidNameError):
                tambur.streams(name)
        assert server.received == []


@pytest.mark.parametrize("target", [{}, {"subscriber_id": "a", "user_id": "b"}])
def test_a_disconnect_has_exactly_one_target(target: dict[str, str]) -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        with pytest.raises(ConfigurationError, match="exactly one of subscriber_id and user_id"):
            tambur.disconnect(**target)
        with pytest.raises(InvalidNameError):
            tambur.disconnect(user_id="a:b")
        assert server.received == []


def test_a_disconnect_is_one_signed_post() -> None:
    with FaultyServer(faults.drop, answered({"disconnected": 2})) as server, publisher(server) as tambur:
        assert tambur.disconnect(user_id=7) == 2
        first, second = (dict(parse_form(body)) for body in server.bodies)
        assert server.received[0].head.startswith(b"POST /app/app/disconnect HTTP/1.1\r\n")
    assert first[b"user_id"] == second[b"user_id"] == b"7"
    assert first[b"oauth_nonce"] != second[b"oauth_nonce"]


def test_a_failed_disconnect_may_have_taken_effect() -> None:
    failure = faults.response("503 Service Unavailable", body=b"a node does not answer")
    with FaultyServer(failure) as server, publisher(server, max_retries=0) as tambur:
        with pytest.raises(UnavailableError, match="disconnecting 'alice' failed: .* 503") as caught:
            tambur.disconnect(user_id="alice")
        assert caught.value.may_have_been_delivered is True
