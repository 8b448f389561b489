"""The queue of a stream: which subscriptions receive which entries, in which writes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tambur.protocol.names import Kind
from tambur.server import rounds
from tambur.server.broker import AppKey, Publication
from tambur.server.counters import Counts
from tambur.server.outbox import Batch
from tambur.server.rounds import WRITES_PER_TURN
from tambur.server.stream import Stream

APP = AppKey("key", "app")


def write_all(stream: Stream) -> None:
    """Do all steps of the current round."""
    while stream.write_some():
        pass


class Box:
    """An outbox that keeps written bytes."""

    unsent_bytes = 0
    is_open = True
    written_at = 0.0
    can_extend = True

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    @property
    def texts(self) -> list[str]:
        return [event.decode() for batch in self.batches for event in batch.events]

    def write(self, batch: Batch) -> None:
        self.batches.append(batch)

    def close(self, code: int, reason: str) -> None:
        raise AssertionError(code, reason)


def publication(text: str, kind: Kind = Kind.PUBLIC, user: str | None = None, **more: Any) -> Publication:
    return Publication(APP, kind, "s", text.encode(), user, **more)


@pytest.fixture
def stream() -> Stream:
    return Stream(Counts())


def add(stream: Stream, count: int) -> list[Box]:
    boxes = [Box() for _ in range(count)]
    for box in boxes:
        stream.add(box)
    return boxes


def test_entries_that_wait_leave_in_one_write_with_one_encoding(stream: Stream) -> None:
    boxes = add(stream, 3)
    for text in ("a", "b", "c"):
        stream.append(publication(text))
    assert not stream.write_some()
    assert [box.texts for box in boxes] == [["a", "b", "c"]] * 3
    (batch,) = {batch for box in boxes for batch in box.batches}
    assert len(batch.events) == 3


def test_a_round_writes_to_a_few_each_turn_and_new_entries_wait(stream: Stream) -> None:
    boxes = add(stream, 2 * WRITES_PER_TURN + 1)
    stream.append(publication("a"))
    written = []
    while stream.write_some():
        written.append(sum(len(box.texts) for box in boxes))
        stream.append(publication("b"))
    assert written == [WRITES_PER_TURN, 2 * WRITES_PER_TURN]
    assert [box.texts for box in boxes] == [["a"]] * len(boxes)
    assert stream.has_unwritten
    write_all(stream)
    assert [len(box.batches) for box in boxes] == [2] * len(boxes)
    assert [box.texts for box in boxes] == [["a", "b", "b"]] * len(boxes)


def test_unsubscribing_in_the_middle_of_a_round_costs_one_write(stream: Stream) -> None:
    boxes = add(stream, 10 * WRITES_PER_TURN)
    stream.append(publication("a"))
    stream.write_some()
    stream.append(publication("b"))
    last = boxes.pop()
    stream.remove(last)
    assert last.texts == ["a", "b"]
    assert sum(len(box.texts) for box in boxes) == WRITES_PER_TURN
    write_all(stream)
    write_all(stream)
    assert [box.texts for box in boxes] == [["a", "b"]] * len(boxes)
    assert last.texts == ["a", "b"]
    assert len(last.batches) == 1


def test_a_new_subscription_begins_with_the_next_entry_and_writes_nothing(stream: Stream) -> None:
    boxes = add(stream, 10 * WRITES_PER_TURN)
    stream.append(publication("a"))
    stream.write_some()
    stream.append(publication("b"))
    (new,) = add(stream, 1)
    assert sum(len(box.texts) for box in boxes) == WRITES_PER_TURN
    stream.append(publication("c"))
    write_all(stream)
    write_all(stream)
    assert new.texts == ["c"]
    assert [box.texts for box in boxes] == [["a", "b", "c"]] * len(boxes)


def test_auth_takes_effect_between_two_entries(stream: Stream) -> None:
    (box,) = add(stream, 1)
    for mode in ("off", "on", "off again"):
        if mode == "on":
            stream.enable_auth(box)
        elif mode == "off again":
            stream.disable_auth(box)
        stream.append(publication("public"))
        stream.append(publication("auth", Kind.AUTH))
    write_all(stream)
    assert box.texts == ["public", "public", "auth", "public"]


def test_subscriptions_that_receive_the_same_of_mixed_entries_share_one_encoding(stream: Stream) -> None:
    boxes = add(stream, 20)
    for i, box in enumerate(boxes[4:]):
        stream.enable_presence(box, f"user {i}")
    for box in boxes[2:6]:
        stream.enable_auth(box)
    for text, kind, user in (
        ("p", Kind.PUBLIC, None),
        ("a", Kind.AUTH, None),
        ("u", Kind.PRESENCE, "user 9"),
    ):
        stream.append(publication(text, kind, user, version=1))
    write_all(stream)
    expected = [["p"]] * 2 + [["p", "a"]] * 2 + [["p", "a", "u"]] * 2 + [["p", "u"]] * 14
    expected[4 + 9] = ["p"]
    assert [box.texts for box in boxes] == expected
    batches = {batch for box in boxes for batch in box.batches}
    # User 9, who does not receive the event about itself, could share that of subscribers without presence.
    assert len(batches) <= len({tuple(texts) for texts in expected}) + 1


def test_a_round_of_direct_messages_visits_only_their_receivers(stream: Stream) -> None:
    boxes = add(stream, 10 * WRITES_PER_TURN)
    stream.enable_direct(boxes[-1], "bob")
    stream.append(publication("to bob", Kind.DIRECT, "bob"))
    assert not stream.write_some()
    assert boxes[-1].texts == ["to bob"]
    assert sum(len(box.texts) for box in boxes) == 1


def test_a_direct_message_among_others_reaches_only_those_it_is_for(stream: Stream) -> None:
    boxes = add(stream, 4)
    for box, user in zip(boxes[1:], ("bob", "carol", "bob"), strict=True):
        stream.enable_direct(box, user)
    for text, kind, user_id in (("a", Kind.PUBLIC, None), ("to bob", Kind.DIRECT, "bob")):
        stream.append(publication(text, kind, user_id))
    write_all(stream)
    assert [box.texts for box in boxes] == [["a"], ["a", "to bob"], ["a"], ["a", "to bob"]]


def test_entries_for_a_held_subscription_are_kept_until_it_is_released(stream: Stream) -> None:
    held, live = add(stream, 2)
    stream.append(publication("before"))
    stream.hold(held)
    assert (held.texts, live.texts) == (["before"], [])
    for text in ("a", "b"):
        stream.append(publication(text))
        write_all(stream)
    assert (held.texts, live.texts) == (["before"], ["before", "a", "b"])
    stream.append(publication("c"))
    stream.release(held)
    assert held.texts == ["before", "a", "b", "c"]
    stream.append(publication("d"))
    write_all(stream)
    assert held.texts == live.texts == ["before", "a", "b", "c", "d"]
    assert stream._entries == []


def test_presence_events_up_to_a_version_are_left_out_on_release(stream: Stream) -> None:
    (box,) = add(stream, 1)
    stream.hold(box)
    for version in (3, 4, 5):
        stream.append(publication(str(version), Kind.PRESENCE, "u", version=version))
    stream.enable_presence(box, "me")
    stream.release(box, version=4)
    assert box.texts == ["5"]


USERS = ["alice", "bob"]


class Expected:
    """A subscriber, and the messages that it must receive."""

    def __init__(self) -> None:
        self.box = Box()
        self.texts: list[str] = []
        self.auth = False
        self.present_as: str | None = None
        self.direct_as: str | None = None
        self.kept: list[Publication] | None = None

    def take(self, p: Publication, version: int = 0) -> None:
        wanted = {
            Kind.PUBLIC: True,
            Kind.AUTH: self.auth,
            Kind.PRESENCE: self.present_as not in (None, p.user_id) and p.version > version,
            Kind.DIRECT: self.direct_as == p.user_id,
        }
        if self.kept is not None:
            self.kept.append(p)
        elif wanted[p.kind]:
            self.texts.append(p.event.decode())


class StreamMachine(RuleBasedStateMachine):
    """After any changes at any step of a round, each subscriber has received its entries once and in order."""

    picks = st.integers(0, 9)
    users = st.sampled_from(USERS)

    def __init__(self) -> None:
        super().__init__()
        self.stream = Stream(Counts())
        self.all: list[Expected] = []
        self.version = 0
        self.number = 0
        rounds.WRITES_PER_TURN = 2

    def teardown(self) -> None:
        for each in [each for each in self.all if each.kept is not None]:
            self.release_it(each)
        while self.stream.has_unwritten:
            write_all(self.stream)
        for each in self.all:
            assert each.box.texts == each.texts
        assert self.stream._entries == []
        assert self.stream._counts.deliveries >= sum(len(each.texts) for each in self.all)
        rounds.WRITES_PER_TURN = WRITES_PER_TURN

    def pick(self, number: int, *, is_held: bool = False) -> Expected | None:
        found = [each for each in self.all if (each.kept is not None) == is_held]
        return found[number % len(found)] if found else None

    @rule(kind=st.sampled_from([Kind.PUBLIC, Kind.PUBLIC, Kind.AUTH, Kind.PRESENCE, Kind.DIRECT]), user=users)
    def append(self, kind: Kind, user: str) -> None:
        self.number += 1
        self.version += kind is Kind.PRESENCE
        is_about_a_user = kind in (Kind.PRESENCE, Kind.DIRECT)
        version = self.version if kind is Kind.PRESENCE else 0
        made = publication(str(self.number), kind, user if is_about_a_user else None, version=version)
        self.stream.append(made)
        for each in self.all:
            each.take(made)

    @rule()
    def write_some(self) -> None:
        self.stream.write_some()

    @rule()
    @precondition(lambda self: len(self.all) < 7)
    def add(self) -> None:
        self.all.append(Expected())
        self.stream.add(self.all[-1].box)

    @rule(number=picks)
    def remove(self, number: int) -> None:
        each = self.pick(number)
        if each is not None:
            if each.auth:
                self.stream.disable_auth(each.box)
            if each.present_as is not None:
                self.stream.disable_presence(each.box)
            if each.direct_as is not None:
                self.stream.disable_direct(each.box, each.direct_as)
            self.stream.remove(each.box)
            assert each.box.texts == each.texts
            self.all.remove(each)

    @rule(number=picks)
    def toggle_auth(self, number: int) -> None:
        each = self.pick(number)
        if each is not None:
            (self.stream.disable_auth if each.auth else self.stream.enable_auth)(each.box)
            each.auth = not each.auth

    @rule(number=picks, user=users)
    def toggle_direct(self, number: int, user: str) -> None:
        each = self.pick(number)
        if each is not None and each.direct_as is None:
            self.stream.enable_direct(each.box, user)
            each.direct_as = user
        elif each is not None and each.direct_as is not None:
            self.stream.disable_direct(each.box, each.direct_as)
            each.direct_as = None

    @rule(number=picks)
    def disable_presence(self, number: int) -> None:
        each = self.pick(number)
        if each is not None and each.present_as is not None:
            self.stream.disable_presence(each.box)
            each.present_as = None

    @rule(number=picks)
    def hold(self, number: int) -> None:
        each = self.pick(number)
        if each is not None and each.present_as is None:
            self.stream.hold(each.box)
            assert each.box.texts == each.texts
            each.kept = []

    @rule(number=picks, user=users)
    def release_present(self, number: int, user: str) -> None:
        each = self.pick(number, is_held=True)
        if each is not None:
            self.stream.enable_presence(each.box, user)
            each.present_as = user
            self.release_it(each, self.version - 1)

    @rule(number=picks)
    def release(self, number: int) -> None:
        each = self.pick(number, is_held=True)
        if each is not None:
            self.release_it(each)

    def release_it(self, each: Expected, version: int = 0) -> None:
        self.stream.release(each.box, version=version)
        kept, each.kept = each.kept, None
        for made in kept or ():
            each.take(made, version)
        assert each.box.texts == each.texts

    @invariant()
    def nothing_else_is_received(self) -> None:
        for each in self.all:
            assert each.texts[: len(each.box.texts)] == each.box.texts


StreamMachine.TestCase.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=60)
TestStreamMachine = StreamMachine.TestCase
