"""Queries over real sockets: section 9 of the protocol."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tambur import RateLimitedError, Tambur
from tambur.server import App, Config, Limits, Server, in_background
from tambur.server.config import KeptStreams
from tambur.server.queries import MAX_HISTORY_BYTES

from ...support.app import API_KEY, APP, APP_ID, SECRET, subscriber
from ...support.extended import Client
from ...support.querying import query
from ...support.wire import Socket

OTHER_APP = App(API_KEY, "other", (SECRET,))
KEPT_APP = App(API_KEY, "kept", (SECRET,), history=(KeptStreams("three", messages=3), KeptStreams("none", 0)))
SLOW_APP = App(API_KEY, "slow", (SECRET,), max_publishes_per_s=0.01)
LIMITS = Limits(max_message_bytes=1024 * 1024)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    apps = APP, OTHER_APP, KEPT_APP, SLOW_APP
    with in_background(Config(apps=apps, port=0, limits=LIMITS)) as running:
        yield running


@pytest.fixture
def kept(server: Server) -> Iterator[Tambur]:
    with Tambur(API_KEY, "kept", SECRET, server.url) as made:
        yield made


def content(server: Server, path: str, **fields: Any) -> Any:
    answer = query(server, path, **fields)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-content-type-options"] == "nosniff"
    return json.loads(answer.body)


# Users.


def test_users_are_sorted_and_each_is_listed_once(server: Server, tambur: Tambur, stream: str) -> None:
    with subscriber(server, stream) as one, subscriber(server, stream) as two, Socket(server) as three:
        for user, each in (("bob", one), ("Ärger", two)):
            each.enable_presence(stream, user, tambur.generate_presence_token)
        token = tambur.generate_presence_token(stream, "bob", three.subscriber_id)
        three.command("subscribe", 1, stream)
        three.send("set_mode", 2, "presence", stream, "bob", token)
        while three.json()[0] != "ack":
            pass
        assert content(server, f"users/{stream}") == {"users": ["bob", "Ärger"], "after": None}
        assert content(server, f"users/{stream}", limit=1) == {"users": ["bob"], "after": "bob"}
        assert content(server, f"users/{stream}", limit=1, after="bob") == {"users": ["Ärger"], "after": None}
        assert content(server, f"users/{stream}", after="Ärger") == {"users": [], "after": None}
        assert tambur.users(stream) == ["bob", "Ärger"]


def test_a_stream_without_users_has_an_empty_list(server: Server, tambur: Tambur) -> None:
    assert content(server, "users/nobody-knows-it") == {"users": [], "after": None}
    assert tambur.users("nobody-knows-it") == []


def test_a_stream_in_the_path_is_decoded_once(server: Server, tambur: Tambur) -> None:
    name = "é/%25 ?#:x"
    with subscriber(server, name) as one:
        one.enable_presence(name, "alice", tambur.generate_presence_token)
        assert tambur.users(name) == ["alice"]
        assert content(server, "users/%C3%A9/%2525%20%3F%23:x")["users"] == ["alice"]


# Streams.


def test_streams_have_their_subscribers_and_users(server: Server, tambur: Tambur, stream: str) -> None:
    first, second = f"{stream}-1", f"{stream}-2"
    with subscriber(server, first, second) as one, subscriber(server, second):
        one.enable_presence(second, "alice", tambur.generate_presence_token)
        expected = [
            {"stream": first, "subscribers": 1, "users": 0},
            {"stream": second, "subscribers": 2, "users": 1},
        ]
        assert content(server, "streams", prefix=stream) == {"streams": expected, "after": None}
        assert content(server, "streams", prefix=stream, limit=1) == {
            "streams": expected[:1],
            "after": first,
        }
        assert content(server, "streams", prefix=stream, after=first) == {
            "streams": expected[1:],
            "after": None,
        }
        assert list(tambur.streams(stream)) == [(first, 1, 0), (second, 2, 1)]
        assert (first, 1, 0) in list(tambur.streams())
    assert list(tambur.streams(f"{stream}-3")) == []


def test_another_apps_streams_are_never_seen(server: Server, tambur: Tambur, stream: str) -> None:
    with (
        Tambur(API_KEY, "other", SECRET, server.url) as other,
        subscriber(server, stream) as one,
    ):
        one.enable_presence(stream, "alice", tambur.generate_presence_token)
        tambur.publish(stream, "x")
        assert list(other.streams()) == []
        assert other.users(stream) == []
        history = other.history(stream)
        assert (history.messages, history.complete, history.more) == ([], True, False)
        assert other.history(stream, since=tambur.history(stream).position).complete is False


def test_more_than_a_page_is_asked_for_page_by_page(server: Server, tambur: Tambur, stream: str) -> None:
    names = [f"{stream}-{i:04}" for i in range(1001)]
    # One connection may have 1,000 streams.
    with Socket(server) as one, Socket(server) as two:
        for i, name in enumerate(names):
            (one if i < 1000 else two).send("subscribe", i + 1, name)
        for i in range(1000):
            assert one.json() == ["ack", i + 1, "ok"]
        assert two.json() == ["ack", 1001, "ok"]
        assert [info.stream for info in tambur.streams(stream)] == names
        assert content(server, "streams", prefix=stream)["after"] == names[999]


# History.


def test_history_is_the_newest_messages_oldest_first(tambur: Tambur, stream: str) -> None:
    before = time.time()
    texts = ["plain", 'quotes " and \\ and \n', "é😀\u2028", ""]
    for text in texts:
        tambur.publish(stream, text)
    tambur.publish(f"auth:{stream}", "secret")
    history = tambur.history(stream)
    assert [m.message for m in history.messages] == [*texts, "secret"]
    assert [m.kind for m in history.messages] == ["public"] * 4 + ["auth"]
    assert (history.complete, history.more) == (True, False)
    times = [m.published_at for m in history.messages]
    assert times == sorted(times)
    # Places of one process grow even if its clock does not.
    assert before - 1 < times[0] <= times[-1] < time.time() + 1
    assert len({m.position for m in history.messages}) == 5
    some = tambur.history(stream, limit=2)
    assert [m.message for m in some.messages] == ["", "secret"]
    assert some.more is True
    assert some.messages == history.messages[3:]


def test_history_continues_from_a_position(tambur: Tambur, stream: str) -> None:
    start = tambur.history(stream).position
    for i in range(5):
        tambur.publish(stream, str(i))
    first = tambur.history(stream, since=start, limit=2)
    assert [m.message for m in first.messages] == ["0", "1"]
    assert (first.complete, first.more) == (True, True)
    second = tambur.history(stream, since=first.position, limit=3)
    assert [m.message for m in second.messages] == ["2", "3", "4"]
    assert (second.complete, second.more) == (True, False)
    assert tambur.history(stream, since=second.position).messages == []
    tambur.publish(stream, "5")
    assert [m.message for m in tambur.history(stream, since=second.position).messages] == ["5"]
    since_third = tambur.history(stream, since=first.messages[0].position)
    assert [m.message for m in since_third.messages] == ["1", "2", "3", "4", "5"]


def test_a_position_is_that_of_the_received_message(server: Server, tambur: Tambur, stream: str) -> None:
    with Client(server) as client:
        client.ask("subscribe", stream)
        tambur.publish(stream, "received")
        tambur.publish(stream, "new")
        position = client.json()[4]
        assert [m.message for m in tambur.history(stream, since=position).messages] == ["new"]
        latest = tambur.history(stream).position
        tambur.publish(stream, "newest")
    with Client(server) as client:
        assert client.ask("subscribe", stream, {"since": latest})["complete"] is True
        assert client.bodies == ["newest"]


def test_history_that_may_lack_messages_is_incomplete_and_empty(kept: Tambur) -> None:
    start = kept.history("three").position
    for i in range(4):
        kept.publish("three", str(i))
    lost = kept.history("three", since=start)
    assert (lost.messages, lost.complete, lost.more) == ([], False, False)
    kept.publish("three", "4")
    assert [m.message for m in kept.history("three", since=lost.position).messages] == ["4"]
    assert [m.message for m in kept.history("three").messages] == ["2", "3", "4"]
    kept.publish("none", "x")
    assert kept.history("none").messages == []


@pytest.mark.parametrize("since", ["x", "A" * 22, "0" * 64])
def test_a_position_from_elsewhere_is_incomplete(tambur: Tambur, stream: str, since: str) -> None:
    tambur.publish(stream, "x")
    assert tambur.history(stream, since=since).complete is False
    assert tambur.history(stream, since=tambur.history(f"{stream}2").position).complete is False


def test_history_leaves_direct_and_private_messages_out(server: Server, tambur: Tambur, stream: str) -> None:
    with subscriber(server, stream) as one:
        one.enable_direct(stream, "alice", tambur.generate_direct_token)
        one.send_direct(stream, "alice", "direct")
        tambur.publish(f"private:{one.subscriber_id}", "private")
        tambur.publish(stream, "public")
        assert [m.message for m in tambur.history(stream).messages] == ["public"]


def test_an_answer_has_at_most_4_mib(server: Server, tambur: Tambur, stream: str) -> None:
    start = tambur.history(stream).position
    for i in range(6):
        tambur.publish(stream, str(i) * 1024 * 1024)
    answer = query(server, f"history/{stream}")
    assert len(answer.body) <= MAX_HISTORY_BYTES
    newest = tambur.history(stream)
    assert [m.message[0] for m in newest.messages] == ["3", "4", "5"]
    assert newest.more is True
    oldest = tambur.history(stream, since=start)
    assert [m.message[0] for m in oldest.messages] == ["0", "1", "2"]
    assert oldest.more is True
    rest = tambur.history(stream, since=oldest.position)
    assert [m.message[0] for m in rest.messages] == ["3", "4", "5"]
    assert rest.more is False


# Verification.

PATHS = ["users/s", "history/s", "streams"]


@pytest.mark.parametrize("path", PATHS)
def test_a_used_nonce_is_401(server: Server, path: str) -> None:
    used: dict[str, Any] = {"nonce": f"{path} once", "timestamp": int(time.time())}
    assert query(server, path, **used).status == 200
    answer = query(server, path, **used)
    assert answer.status == 401
    assert b"sign each query anew" in answer.body


def test_the_nonce_of_a_publish_is_used_too(server: Server, tambur: Tambur, stream: str) -> None:
    nonce, now = f"{stream} nonce", int(time.time())
    assert query(server, f"users/{stream}", nonce=nonce, timestamp=now).status == 200
    request = tambur.build_request(stream, "x", now, nonce)
    assert tambur._sender._session.send(request).status_code == 401
    assert tambur.history(stream).messages == []


@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_secret_is_401(server: Server, path: str) -> None:
    answer = query(server, path, secret="wrong")
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "OAuth"


@pytest.mark.parametrize("path", PATHS)
def test_a_debugging_client_sees_the_base_string_of_a_refused_query(server: Server, path: str) -> None:
    line = f"POST /app/{APP_ID}/{path}?debug=true HTTP/1.1"
    assert query(server, path, line=line).status == 200
    answer = query(server, path, secret="wrong", line=line)
    assert b"oauth_nonce" in answer.body
    assert b"oauth_nonce" not in query(server, path, secret="wrong").body


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("users", 404),
        ("history", 404),
        ("streams/x", 404),
        ("streams/", 404),
        ("nothing", 404),
        ("users/", 400),
    ],
)
def test_a_path_of_no_query_is_refused(server: Server, path: str, status: int) -> None:
    assert query(server, path).status == status


def test_an_unknown_app_is_404(server: Server) -> None:
    assert query(server, "users/s", app_id="unknown").status == 404


@pytest.mark.parametrize("path", PATHS)
def test_a_query_needs_a_post(server: Server, path: str) -> None:
    answer = query(server, path, line=f"GET /app/{APP_ID}/{path} HTTP/1.1")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_each_query_counts_as_a_publish(server: Server) -> None:
    with Tambur(API_KEY, "slow", SECRET, server.url) as slow:
        assert slow.users("s") == []
        with pytest.raises(RateLimitedError) as caught:
            slow.publish("s", "x")
        assert caught.value.retry_after
        with pytest.raises(RateLimitedError, match="asking for the history of 's' failed"):
            slow.history("s")


LIMIT = "limit must be an integer from 1 to 1000, not"
WRONG: list[tuple[str, dict[str, Any], str]] = [
    *[
        (path, {"limit": limit}, f"{LIMIT} '{limit}'")
        for path in PATHS
        for limit in ("0", "1001", "-1", "1.5", "x", "", "+1", " 1", "10000")
    ],
    ("users/s", {"after": ""}, "invalid after: a user ID must not be empty"),
    ("users/s", {"after": "a:b"}, "invalid after: a user ID must not contain ':'"),
    ("users/s", {"after": "x" * 201}, "invalid after: a user ID must have at most 200 characters"),
    ("streams", {"after": ""}, "invalid after: a stream name must not be empty"),
    ("streams", {"after": "auth:x"}, "invalid after: a stream name must not begin"),
    ("streams", {"prefix": "a\nb"}, "invalid prefix: a prefix must not contain control characters"),
    ("streams", {"prefix": "x" * 201}, "invalid prefix: a prefix must have at most 200 characters"),
    ("history/s", {"since": ""}, "since must be a position: 1 to 64 characters"),
    ("history/s", {"since": "a b"}, "since must be a position: 1 to 64 characters"),
    ("history/s", {"since": "x" * 65}, "since must be a position: 1 to 64 characters"),
    ("users/auth:s", {}, "a stream name must not begin with 'auth:'"),
    ("users/private", {}, "a stream must not be named 'private'"),
    ("history/%00", {}, "a stream name must not contain control characters"),
    ("history/%FF", {}, "the stream is not UTF-8"),
]


@pytest.mark.parametrize(("path", "fields", "rule"), WRONG)
def test_a_wrong_value_is_400_with_the_rule(
    server: Server, path: str, fields: dict[str, Any], rule: str
) -> None:
    answer = query(server, path, **fields)
    assert answer.status == 400
    assert rule in answer.body.decode()


@pytest.mark.parametrize(
    ("path", "name"),
    [("users/s", "limit"), ("users/s", "after"), ("streams", "prefix"), ("history/s", "since")],
)
def test_a_doubled_or_undecodable_parameter_is_400(server: Server, path: str, name: str) -> None:
    answer = query(server, path, (name, "1"), (name, "1"))
    assert (answer.status, answer.body) == (400, f"{name} must be given once, not 2 times\n".encode())
    answer = query(server, path, (name, b"\xff"))
    assert (answer.status, answer.body[: len(name) + 14]) == (400, f"{name} must be UTF-8".encode())


def test_a_long_body_is_413(server: Server) -> None:
    assert query(server, "users/s", ignored="x" * 17_000).status == 413


def test_the_log_hides_secrets_and_subscriber_ids(
    server: Server, tambur: Tambur, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "tambur.server")
    query(server, "users/private:alice")
    tambur.users("news")
    assert "query refused status=400 query=users app=ws-bot-1" in caplog.text
    assert re.search("query answered query=users app=ws-bot-1 stream=news", caplog.text)
    assert "private:alice" not in re.sub("reason=.*", "", caplog.text)
    assert SECRET not in caplog.text.replace(APP_ID, "")
