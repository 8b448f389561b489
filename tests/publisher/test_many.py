"""``Tambur.publish_many``: streams in parallel, each in order, and every message has an outcome."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tambur import InvalidMessageError, InvalidNameError, MessageTooLargeError, Tambur
from tambur.server import Server
from tambur.testing import RecordingTambur

from ..support.app import subscriber


def test_each_stream_gets_its_messages_in_order(server: Server, tambur: Tambur, stream: str) -> None:
    streams = [f"{stream}{i}" for i in range(10)]
    pairs = [(name, str(i)) for i in range(50) for name in streams]
    done: list[tuple[int, int]] = []
    with subscriber(server, *streams) as receiver:
        assert tambur.publish_many(pairs, progress=lambda *counts: done.append(counts)) == [True] * 500
        received = [receiver.receive(10) for _ in pairs]
    assert done == [(i, 500) for i in range(1, 501)]
    for name in streams:
        assert [m.text for m in received if m.stream == name] == [str(i) for i in range(50)]


def test_each_outcome_is_at_the_place_of_its_pair(tambur: Tambur, stream: str) -> None:
    outcomes = tambur.publish_many(
        [(stream, "a"), (".", "b"), (stream, object()), (stream, "x" * 70_000), (stream, "c")]
    )
    kinds = [True, InvalidNameError, InvalidMessageError, MessageTooLargeError, True]
    assert [o if o is True else type(o) for o in outcomes] == kinds


def test_no_pairs_have_no_outcomes(tambur: Tambur) -> None:
    assert tambur.publish_many([]) == []


def test_streams_are_published_to_in_parallel() -> None:
    everybody = threading.Barrier(5)

    class Waiting(RecordingTambur):
        def publish(self, stream: Any, message: Any, **_: Any) -> bool:
            everybody.wait(10)
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
