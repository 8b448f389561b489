"""The way of publications, from both sides in any order."""

from __future__ import annotations

from tambur.protocol.messages import encode_direct, encode_message, encode_presence
from tambur.protocol.names import Kind
from tambur.server.broker import AppKey, Publication
from tambur.server.console.trace import KEPT_PUBLICATIONS, Trace

APP = AppKey("key", "app")


def message(text: str, kind: Kind = Kind.PUBLIC, *, place: int = 0) -> Publication:
    return Publication(APP, kind, "s", encode_message(kind, "s", text), place=place)


def seen(trace: Trace) -> list[dict[str, object]]:
    return [traced.as_json() for traced in trace.since(-1)]


def test_each_step_of_a_publication_has_its_time() -> None:
    trace = Trace()
    trace.deliver(message("x", place=9), 7, 3, at=1000.0, now=1.0)
    trace.claim(message("x"), at=1000.0, place=9, nodes=2, check_s=0.001, broker_s=0.0005)
    trace.write(began=1.002, now=1.003, writing=8, written=7, cut_off=2, cut_off_users=["bob"])
    trace.write(began=1.004, now=1.006, writing=8, written=8, cut_off=0)
    trace.write(began=2.0, now=2.1, writing=9, written=9, cut_off=5)
    assert seen(trace) == [
        {
            "id": 0, "at": 1000.0, "kind": "public", "user": None, "text": "x", "bytes": len(message("x").event),
            "excluding": False, "key": "9", "claimed": True, "nodes": 2, "subscribers": 3, "cut_off": 2,
            "cut_off_users": ("bob",), "check_ms": 1.0, "broker_ms": 0.5, "wait_ms": 2.0, "write_ms": 4.0,
        }
    ]  # fmt: skip


def test_a_request_that_is_answered_before_its_delivery_is_the_same_publication() -> None:
    trace = Trace()
    trace.claim(message("x"), at=1.0, place=9, nodes=1, check_s=0.0, broker_s=0.0)
    (waiting,) = seen(trace)
    assert (waiting["key"], waiting["claimed"], waiting["subscribers"]) == ("9", True, None)
    trace.deliver(message("x", place=9), 0, 4, at=2.0, now=1.0)
    (found,) = seen(trace)
    assert (found["claimed"], found["subscribers"], found["at"]) == (True, 4, 1.0)


def test_a_publication_that_another_node_accepted_is_not_claimed_here() -> None:
    trace = Trace()
    for place in (11, 12):
        trace.deliver(message("x", place=place), place, 1, at=1.0, now=1.0)
    trace.claim(message("x"), at=1.0, place=12, nodes=1, check_s=0.0, broker_s=0.0)
    assert [(p["key"], p["claimed"]) for p in seen(trace)] == [("11", False), ("12", True)]


def test_messages_of_a_batch_are_matched_one_by_one() -> None:
    trace = Trace()
    trace.deliver(message("x", place=1), 0, 1, at=1.0, now=1.0)
    trace.deliver(message("x", place=2), 1, 1, at=1.0, now=1.0)
    trace.deliver(message("x", Kind.AUTH, place=3), 2, 1, at=1.0, now=1.0)
    trace.deliver(message("x", place=4)._replace(excluded="id"), 3, 1, at=1.0, now=1.0)
    trace.claim(message("x"), at=1.0)
    assert [p["claimed"] for p in seen(trace)] == [False, True, False, False]
    trace.claim(message("x"), at=1.0)
    trace.claim(message("x"), at=1.0)
    assert [p["claimed"] for p in seen(trace)] == [True, True, False, False]


def test_a_new_queue_of_the_stream_ends_what_was_unwritten() -> None:
    trace = Trace()
    trace.deliver(message("old", place=1), 8, 1, at=1.0, now=1.0)
    trace.deliver(message("new", place=2), 0, 1, at=1.0, now=1.0)
    trace.write(began=1.0, now=2.0, writing=1, written=1, cut_off=0)
    assert [p["write_ms"] for p in seen(trace)] == [None, 1000.0]


def test_messages_of_a_long_batch_are_not_added_a_second_time() -> None:
    trace = Trace()
    batch = [message(str(number), place=number + 1) for number in range(KEPT_PUBLICATIONS + 10)]
    for number, publication in enumerate(batch):
        trace.deliver(publication, number, 1, at=1.0, now=1.0)
    for publication in batch:
        trace.claim(publication, at=1.0)
    assert [p["text"] for p in seen(trace)] == [str(n) for n in range(10, KEPT_PUBLICATIONS + 10)]
    assert all(p["claimed"] for p in seen(trace))


def test_a_viewer_gets_a_publication_again_once_it_has_changed() -> None:
    trace = Trace()
    for number in range(3):
        trace.deliver(message(str(number)), number, 1, at=1.0, now=1.0)
    changed = trace.changed
    trace.write(began=1.0, now=1.0, writing=2, written=2, cut_off=0)
    assert [traced.id for traced in trace.since(changed)] == [0, 1]
    assert trace.since(trace.changed) == []


def test_the_text_of_a_direct_message_is_not_shown() -> None:
    trace = Trace()
    direct = Publication(APP, Kind.DIRECT, "s", encode_direct("s", "alice", "between us"), "bob")
    trace.deliver(direct, 0, 1, at=1.0, now=1.0)
    joined = Publication(APP, Kind.PRESENCE, "s", encode_presence("s", "alice", up=True), "alice")
    trace.deliver(joined, 1, 1, at=1.0, now=1.0)
    trace.deliver(message("x" * 1000), 2, 1, at=1.0, now=1.0)
    shown = seen(trace)
    assert [(p["kind"], p["user"], p["text"]) for p in shown] == [
        ("direct", "bob", None),
        ("presence", "alice", "up"),
        ("public", None, "x" * 300),
    ]
    assert "between us" not in str(shown)
