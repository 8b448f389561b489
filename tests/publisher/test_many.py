"""``Tambur.publish_many``: streams in parallel, each in order, and every message has an outcome."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from tambur import (
    AppNotFoundError,
    InvalidMessageError,
    InvalidNameError,
    MessageTooLargeError,
    Tambur,
    UnauthorizedError,
)
from tambur.protocol import oauth as signing
from tambur.protocol.oauth import parse_form
from tambur.server import Config, Limits, Server, in_background
from tambur.testing import RecordingTambur

from ..support.app import API_KEY, APP, APP_ID, SECRET, subscriber
from ..support.faults import FaultyServer, ok, publisher, response


def test_each_stream_gets_its_messages_in_order(server: Server, tambur: Tambur, stream: str) -> None:
    streams = [f"{stream}{i}" for i in range(10)]
    pairs = [(name, str(i)) for i in range(50) for name in streams]
    done: list[tuple[int, int]] = []
    with subscriber(server, *streams) as receiver:
        assert tambur.publish_many(pairs, progress=lambda *counts: done.append(counts)) == [True] * 500
        received = [receiver.receive(60) for _ in pairs]
    assert done == [(i, 500) for i in range(1, 501)]
    for name in streams:
        assert [m.text for m in received if m.stream == name] == [str(i) for i in range(50)]


def test_each_outcome_is_at_the_place_of_its_pair(tambur: Tambur, stream: str) -> None:
    outcomes = tambur.publish_many(
        [(stream, "a"), (".", "b"), (stream, object()), (stream, "x" * 70_000), (stream, "c")]
    )
    kinds = [True, InvalidNameError, InvalidMessageError, MessageTooLargeError, True]
    assert [o if o is True else type(o) for o in outcomes] == kinds


def requests_of(server: FaultyServer) -> list[str]:
    """The path of each request, and for a batch its messages."""
    found = []
    for request in server.received:
        path = request.head.split()[1].decode()
        messages = dict(parse_form(request.body)).get(b"messages")
        found.append(path if messages is None else f"{path} {messages.decode()}")
    return found


def test_many_messages_are_one_signed_request() -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        assert tambur.publish_many([("a", "é & %"), (b"auth:b", {"x": 1}), (7, b"")]) == [True] * 3
        assert requests_of(server) == ['/app/app/batch [["a","é & %"],["auth:b","{\\"x\\":1}"],["7",""]]']
        assert tambur.publish_many([("a", "alone")]) == [True]
        assert requests_of(server)[1:] == ["/app/app/stream/a"]
        values = dict(parse_form(server.bodies[0]))
        signature = values.pop(b"oauth_signature").decode()
        base = signing.signature_base_string(
            f"http://{server.host}/app/app/batch", signing.canonical_query_string(values.items())
        )
        assert signature == signing.sign(base, "secret")


def test_a_batch_has_at_most_a_thousand_messages_and_a_megabyte() -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        assert tambur.publish_many([("s", str(i)) for i in range(2001)]) == [True] * 2001
        assert tambur.publish_many([("s", "%" * 60_000)] * 12) == [True] * 12
        counts = [len(json.loads(dict(parse_form(body))[b"messages"])) for body in server.bodies]
        assert counts == [1000, 1000, 1, 5, 5, 2]
        assert max(map(len, server.bodies)) <= Limits().max_batch_bytes


def test_a_failed_batch_is_sent_again_as_it_was_and_its_failure_is_that_of_each_message() -> None:
    lost = response("503 Service Unavailable")
    with FaultyServer(lost, ok) as server, publisher(server) as tambur:
        assert tambur.publish_many([("a", "1"), ("b", "2")]) == [True, True]
        assert len(server.bodies) == 2
        assert len(set(server.bodies)) == 1
    with (
        FaultyServer(lost, response("401 Unauthorized", body=b"late")) as server,
        publisher(server) as tambur,
    ):
        one, other = tambur.publish_many([("a", "1"), ("b", "2")])
        assert isinstance(one, UnauthorizedError)
        assert isinstance(other, UnauthorizedError)
        assert (one.stream, other.stream, one.attempts) == ("a", "b", 2)
        assert one.may_have_been_delivered, "the first attempt may have delivered some"
        assert str(other) == f"publishing to 'b' failed: {server.host} answered 401: late (2 attempts)"


def test_an_invalid_message_has_its_own_error_and_the_others_are_delivered(
    server: Server, tambur: Tambur, stream: str
) -> None:
    sizes = [1, 70_000, 1, 80_000, 66_000, 1, 65_536, 65_537, 1]
    with subscriber(server, stream) as receiver:
        outcomes = tambur.publish_many((stream, f"{i}".ljust(size, ".")) for i, size in enumerate(sizes))
        delivered = [i for i, size in enumerate(sizes) if size <= 65_536]
        assert [i for i, outcome in enumerate(outcomes) if outcome is True] == delivered
        assert [int(receiver.receive(60).text[0]) for _ in delivered] == delivered
    error = outcomes[1]
    assert isinstance(error, MessageTooLargeError)
    assert error.reason == "the message has 70000 bytes, at most 65536 are allowed"
    assert "messages[" not in str(error)
    assert (error.stream, error.may_have_been_delivered) == (stream, False)


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ("news", "str, at index 0"),
        (["ab"], "str, at index 0"),
        ({"news": "x"}, "str, at index 0"),
        ([("news", "x"), ("a", "b", "c")], "tuple of 3, at index 1"),
        ([("news", "x"), 7], "int, at index 1"),
    ],
)
def test_publish_many_names_a_value_that_is_not_a_pair_and_sends_nothing(pairs: Any, found: str) -> None:
    with FaultyServer() as server, publisher(server) as tambur:
        with pytest.raises(InvalidMessageError) as caught:
            tambur.publish_many(pairs)
        assert str(caught.value) == f"pairs must be pairs of a stream and a message, not {found}"
        assert server.bodies == []


def test_a_server_without_batches_gets_each_message_by_itself(tambur: Tambur) -> None:
    pairs = [(f"s{i % 3}", str(i)) for i in range(30)]
    with FaultyServer(response("404 Not Found")) as server, publisher(server) as other:
        assert other.publish_many(pairs) == [True] * 30
        paths = [path.partition(" ")[0] for path in requests_of(server)]
        assert sorted(paths[1:]) == sorted(f"/app/app/stream/{stream}" for stream, _ in pairs)
        for number in range(3):
            texts = [
                int(dict(parse_form(request.body))[b"message"])
                for request in server.received[1:]
                if request.head.startswith(f"POST /app/app/stream/s{number} ".encode())
            ]
            assert texts == sorted(texts)
    with Tambur(tambur.api_key, "none", tambur.secret, tambur.api_host) as unknown:
        assert [type(o) for o in unknown.publish_many(pairs)] == [AppNotFoundError] * 30


def test_a_server_with_a_smaller_limit_gets_smaller_batches() -> None:
    limits = Limits(max_batch_bytes=2000)
    with in_background(Config(apps=(APP,), port=0, limits=limits)) as small:
        with Tambur(API_KEY, APP_ID, SECRET, small.url) as tambur, subscriber(small, "s") as receiver:
            texts = [*(str(i) for i in range(200)), "x" * 10_000, "last"]
            assert tambur.publish_many(("s", text) for text in texts) == [True] * 202
            assert [receiver.receive(60).text for _ in texts] == texts


def test_no_pairs_have_no_outcomes(tambur: Tambur) -> None:
    assert tambur.publish_many([]) == []


def test_streams_are_published_to_in_parallel() -> None:
    everybody = threading.Barrier(5)

    class Waiting(RecordingTambur):
        def publish(self, stream: Any, message: Any, **_: Any) -> bool:
            everybody.wait(60)
            return super().publish(stream, message)

    with Waiting() as tambur:
        assert tambur.publish_many([(f"s{i}", "x") for i in range(5)]) == [True] * 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_progress_stops_the_messages_that_are_not_begun(error: type[BaseException]) -> None:
    def progress(done: int, _: int) -> None:
        if done == 3:
            raise error

    with RecordingTambur() as tambur, pytest.raises(error):
        tambur.publish_many([("one", str(i)) for i in range(100_000)], progress=progress)
    assert 3 <= len(tambur.published) < 100_000
    assert [message for _, message in tambur.published] == [str(i) for i in range(len(tambur.published))]


def test_an_error_that_is_not_of_the_package_is_raised() -> None:
    class Broken(RecordingTambur):
        def publish(self, stream: Any, message: Any, **_: Any) -> bool:
            raise ZeroDivisionError

    with Broken() as broken, pytest.raises(ZeroDivisionError):
        broken.publish_many([("s", "x")])
