"""The console's notes while the server works."""

from __future__ import annotations

import weakref

from tambur.protocol.names import Kind
from tambur.server.broker import AppKey, Outcome, Publication, Published
from tambur.server.console.watch import KEPT_REFUSALS, KEPT_TIMES, Refusal, Watch
from tambur.server.counters import Counts
from tambur.server.stream import Stream

PUBLICATION = Publication(AppKey("key", "app"), Kind.PUBLIC, "s", b'["msg","s","public","x"]')


def test_a_refusal_keeps_its_facts_as_text_without_subscriber_ids() -> None:
    watch = Watch(Counts(), lambda: 5.0)
    subscriber_id = "2f1b63e5-8c5c-8ddc-9d8e-d23d7b2e9e63"
    facts = {"status": 401, "app": None, "stream": f"private:{subscriber_id}", "reason": "x" * 1000}
    watch.refused("publish refused", facts)
    shown = {"status": "401", "stream": "private:SUBSCRIBER_ID", "reason": "x" * 300 + "..."}
    assert list(watch.refusals) == [Refusal(5.0, "publish refused", shown)]


def test_the_server_is_observed_while_a_stream_is_followed_or_there_is_a_console() -> None:
    counts = Counts()
    watch = Watch(counts)
    assert counts.observer is None
    with watch.following(PUBLICATION.app, "s"), watch.following(PUBLICATION.app, "t"):
        assert counts.observer is watch
        assert watch.is_tracing
    assert counts.observer is None
    assert not watch.is_tracing
    watch.start()
    with watch.following(PUBLICATION.app, "s"):
        pass
    assert counts.observer is watch


def test_the_newest_refusals_and_times_are_kept() -> None:
    watch = Watch(Counts(), lambda: 5.0)
    for number in range(KEPT_REFUSALS + 1):
        watch.refused("publish refused", {"status": number})
    assert [r.facts["status"] for r in watch.refusals] == [str(n) for n in range(1, KEPT_REFUSALS + 1)]
    for _ in range(KEPT_TIMES + 1):
        watch.published(PUBLICATION, Published(Outcome.DELIVERED), 0.0, 0.1)
    assert len(watch.broker_times) == KEPT_TIMES


class WatchedStream(Stream):
    __slots__ = ("__weakref__",)


def test_a_stream_that_ends_while_it_is_followed_is_not_kept() -> None:
    counts = Counts()
    watch = Watch(counts)
    with watch.following(PUBLICATION.app, "s") as trace:
        streams = [WatchedStream(counts) for _ in range(2)]
        for stream in streams:  # the second one begins once the first has no subscribers any more
            watch.delivering(PUBLICATION, stream)
            watch.wrote(stream, 0.0, 0)
        ended = weakref.ref(streams[0])
        del streams, stream
        assert ended() is None
        assert len(trace.since(-1)) == 2
