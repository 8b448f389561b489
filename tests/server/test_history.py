"""Kept messages: no claim about lost messages is wrong, or more cautious than necessary."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tambur.protocol.names import Kind
from tambur.server.broker import AppKey, Publication
from tambur.server.history import ENTRY_BYTES, LOG_BYTES, MIN_HEAP, QUIET_SHARE, History

from ..support.app import API_KEY, APP_ID

TTL = 1000
POSITION_TTL = 10_000
NAMES = ("a", "bb", "ccc", "private:d")

APP = AppKey(API_KEY, APP_ID)


def publication(place: int, name: str = "a", event: bytes = b"") -> Publication:
    return Publication(APP, Kind.PUBLIC, name, event, place=place)


def history(*, messages: int = 3, max_bytes: int = 10**6, floor: int = 0) -> History:
    return History(
        max_messages=messages, ttl=TTL, max_bytes=max_bytes, position_ttl=POSITION_TTL, floor=floor
    )


def places(found: list[Publication] | None) -> list[int] | None:
    return None if found is None else [p.place for p in found]


def test_since_gives_what_came_after_in_order() -> None:
    kept = history()
    for place in (10, 20, 30):
        kept.append("a", publication(place))
    kept.append("b", publication(40, "b"))
    assert places(kept.since("a", 0, 41)) == [10, 20, 30]
    assert places(kept.since("a", 10, 41)) == [20, 30]
    assert places(kept.since("a", 15, 41)) == [20, 30]
    assert places(kept.since("a", 30, 41)) == []
    assert [p.place for p in kept.newest_first("a", 41)] == [30, 20, 10]


def test_a_message_too_many_raises_only_the_floor_of_its_log() -> None:
    kept = history(messages=2)
    for place in (10, 20, 30):
        kept.append("a", publication(place))
        kept.append("b", publication(place + 1, "b"))
    assert kept.since("a", 9, 40) is None
    assert places(kept.since("a", 10, 40)) == [20, 30]
    assert kept.since("b", 10, 40) is None
    assert places(kept.since("b", 11, 40)) == [21, 31]


def test_an_expired_message_is_lost_whether_or_not_something_is_published() -> None:
    kept = history()
    kept.append("a", publication(10))
    assert places(kept.since("a", 9, 9 + TTL)) == [10]
    assert kept.since("a", 9, 10 + TTL) is None
    assert list(kept.newest_first("a", 10 + TTL)) == []
    assert places(kept.since("a", 10, 10 + TTL)) == []


def test_the_oldest_message_of_the_budget_goes_first() -> None:
    room_for_two = 2 * (ENTRY_BYTES + LOG_BYTES + 2)
    kept = history(max_bytes=room_for_two)
    for place, name in ((10, "b"), (20, "a"), (30, "c")):
        kept.append(name, publication(place, name))
    assert kept.since("b", 9, 31) is None
    assert places(kept.since("a", 9, 31)) == [20]
    assert places(kept.since("c", 9, 31)) == [30]


def test_a_log_that_keeps_no_messages_knows_that_it_lost_them() -> None:
    kept = history(messages=0)
    kept.append("a", publication(10))
    assert kept.since("a", 9, 11) is None
    assert places(kept.since("a", 10, 11)) == []


def test_a_quiet_log_is_remembered_and_then_forgotten() -> None:
    kept = history()
    kept.append("a", publication(10))
    gone = 10 + TTL
    assert places(kept.since("a", 10, gone)) == []
    assert places(kept.since("a", 10, gone + POSITION_TTL - 1)) == []
    assert len(kept) == 1
    # Forgotten: all logs that are not known share its floor.
    assert places(kept.since("a", 10, gone + POSITION_TTL)) == []
    assert len(kept) == 0
    assert kept.since("never published to", 9, gone + POSITION_TTL) is None
    assert places(kept.since("never published to", 10, gone + POSITION_TTL)) == []


def test_a_log_with_a_subscriber_is_known_for_any_time() -> None:
    kept = history()
    kept.need("a", 5)
    kept.append("b", publication(10, "b"))
    later = 1000 * POSITION_TTL
    kept.tidy(later)
    assert kept.since("b", 5, later) is None
    assert places(kept.since("a", 5, later)) == []
    kept.release("a", later)
    assert places(kept.since("a", 5, later + POSITION_TTL - 1)) == []
    assert kept.since("a", 5, later + POSITION_TTL) is None


def test_an_unknown_log_does_not_claim_what_another_history_had() -> None:
    kept = history(floor=100)
    assert kept.since("a", 99, 200) is None
    assert places(kept.since("a", 100, 200)) == []
    kept.append("a", publication(200))
    assert kept.since("a", 99, 200) is None


def test_quiet_logs_push_out_each_other_and_no_message() -> None:
    quiet = LOG_BYTES + 2 * len("quiet-1")
    kept = history(max_bytes=QUIET_SHARE * 2 * quiet + ENTRY_BYTES)
    kept.append("a", publication(10))
    for i in range(9):
        kept.need(f"quiet-{i}", 11)
        kept.release(f"quiet-{i}", 11)
    assert len(kept) == 1 + 2
    assert places(kept.since("a", 9, 12)) == [10]


NEVER = 10**9


def test_a_copy_begins_at_a_place_and_is_extended_backwards() -> None:
    copy = history(messages=10, floor=NEVER)
    assert copy.since("a", 100, 100) is None
    copy.begin("a", 50)
    assert copy.floor("a") == 50
    copy.append("a", publication(60))
    assert copy.since("a", 49, 100) is None
    assert places(copy.since("a", 50, 100)) == [60]
    copy.extend("a", [publication(30), publication(40)], 20, is_whole=False)
    assert places(copy.since("a", 20, 100)) == [30, 40, 60]
    assert not copy.is_whole("a")
    copy.extend("a", [publication(20)], 5, is_whole=True)
    assert places(copy.since("a", 5, 100)) == [20, 30, 40, 60]
    assert copy.is_whole("a")
    copy.tidy(TTL + 30)  # two have expired, which the other copy knows, too
    assert places(copy.since("a", 30, TTL + 30)) == [40, 60]
    assert copy.since("a", 29, TTL + 30) is None
    assert copy.is_whole("a")
    copy.drop("a")
    copy.drop("a")
    assert (copy.since("a", 100, 100), "a" in copy, len(copy), copy.bytes) == (None, False, 0, 0)


def test_a_copy_that_had_no_room_is_not_whole() -> None:
    copy = history(messages=10, floor=NEVER, max_bytes=3 * (ENTRY_BYTES + 1) + LOG_BYTES + 2)
    copy.begin("a", 50)
    copy.extend("a", [publication(30), publication(40)], 20, is_whole=True)
    copy.append("a", publication(60))
    assert copy.is_whole("a")
    copy.append("a", publication(70))
    assert places(copy.since("a", 30, 100)) == [40, 60, 70]
    assert not copy.is_whole("a")


def test_copies_that_come_and_go_leave_nothing() -> None:
    copy = history(floor=NEVER)
    for place in range(10, 1000):
        copy.begin("a", place - 2)
        copy.extend("a", [publication(place - 1)], place - 2, is_whole=False)
        copy.append("a", publication(place))
        assert len(copy._oldest) < 2 * MIN_HEAP
        copy.drop("a")
    assert (len(copy), copy.bytes) == (0, 0)


class NaiveLog:
    def __init__(self, floor: int) -> None:
        self.entries: list[Publication] = []
        self.floor = floor
        self.needs = 0
        self.quiet_since: int | None = None


class AgainstAModel(RuleBasedStateMachine):
    """A model that searches everything each time, and remembers all that was ever published."""

    def __init__(self) -> None:
        super().__init__()
        self.messages = 3
        self.max_bytes = 3000
        self.kept = history(messages=self.messages, max_bytes=self.max_bytes)
        self.now = 10
        self.published: dict[str, list[int]] = {name: [] for name in NAMES}
        self.logs: dict[str, NaiveLog] = {}
        self.floor = 0

    # The model.

    def log(self, name: str) -> NaiveLog:
        return self.logs.setdefault(name, NaiveLog(self.floor))

    def lose(self, log: NaiveLog) -> None:
        log.floor = log.entries.pop(0).place

    def settle(self) -> None:
        """Whether each log is quiet, and since when."""
        for log in self.logs.values():
            if log.entries or log.needs:
                log.quiet_since = None
            elif log.quiet_since is None:
                log.quiet_since = self.now

    def forget(self, name: str) -> None:
        self.floor = max(self.floor, self.logs.pop(name).floor)

    def tidy(self) -> None:
        for log in self.logs.values():
            while log.entries and log.entries[0].place <= self.now - TTL:
                self.lose(log)
        self.settle()
        for name, log in list(self.logs.items()):
            if log.quiet_since is not None and log.quiet_since <= self.now - POSITION_TTL:
                self.forget(name)

    def size(self, *, quiet: bool) -> int:
        return sum(
            LOG_BYTES + 2 * len(name) + sum(len(p.event) + ENTRY_BYTES for p in log.entries)
            for name, log in self.logs.items()
            if (log.quiet_since is not None if quiet else log.entries)
        )

    def evict(self) -> None:
        self.settle()
        while True:
            quiet = [
                (log.quiet_since, name) for name, log in self.logs.items() if log.quiet_since is not None
            ]
            kept = [log for log in self.logs.values() if log.entries]
            if self.size(quiet=True) * QUIET_SHARE > self.max_bytes:
                oldest = min(since for since, _ in quiet)
                # Those of the same time may go in any order: follow the real one.
                names = sorted((n in self.kept._quiet, n) for since, n in quiet if since == oldest)
                self.forget(names[0][1])
            elif self.size(quiet=False) + self.size(quiet=True) > self.max_bytes and kept:
                self.lose(min(kept, key=lambda log: log.entries[0].place))
                self.settle()
            else:
                break

    # Operations

    @rule(passed=st.sampled_from([1, 10, 400, TTL, 4000, POSITION_TTL]))
    def wait(self, passed: int) -> None:
        self.now += passed

    @rule(name=st.sampled_from(NAMES), length=st.sampled_from([0, 100, 900, 5000]))
    def publish(self, name: str, length: int) -> None:
        self.now += 1
        message = publication(self.now, name, b"x" * length)
        self.kept.append(name, message)
        self.published[name].append(self.now)
        self.tidy()
        log = self.log(name)
        log.entries.append(message)
        if len(log.entries) > self.messages:
            self.lose(log)
        self.evict()

    @rule(name=st.sampled_from(NAMES))
    def need(self, name: str) -> None:
        self.kept.need(name, self.now)
        self.tidy()
        self.log(name).needs += 1
        self.settle()

    @precondition(lambda self: any(log.needs for log in self.logs.values()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([n for n, log in self.logs.items() if log.needs]))
        self.logs[name].needs -= 1
        self.kept.release(name, self.now)
        self.evict()

    @rule(name=st.sampled_from(NAMES), back=st.sampled_from([0, 1, 5, 500, 1500, 9000, 20_000]))
    def ask(self, name: str, back: int) -> None:
        since = max(0, self.now - back)
        found = places(self.kept.since(name, since, self.now))
        self.tidy()
        log = self.logs.get(name)
        after = [place for place in self.published[name] if place > since]
        # Never a wrong claim, whatever the model says of what is kept.
        assert found is None or found == after
        assert found == (None if since < (self.floor if log is None else log.floor) else after)
        newest = [p.place for p in self.kept.newest_first(name, self.now)]
        assert newest == ([p.place for p in reversed(log.entries)] if log else [])

    @invariant()
    def bounded(self) -> None:
        assert self.kept.bytes <= self.max_bytes
        assert len(self.kept._oldest) == sum(bool(log.entries) for log in self.kept._logs.values())


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(stateful_step_count=50)
