"""The contract of every broker. A broker's own test module inherits it and creates its brokers."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tambur.protocol.names import Kind
from tambur.server.broker import (
    CLAIM_WINDOW_S,
    Backend,
    BrokerUnavailableError,
    Claim,
    Outcome,
    Publication,
)
from tests.support.broker import (
    APP,
    DELIVERED,
    NONCE_REUSED,
    NOW,
    OTHER_APP,
    REPLAYED,
    RecordingBackend,
    claim,
    eventually,
    nobody_asks,
    public,
)

SLOW = 0.01
"""Publishes a second: none is allowed again while a test runs, however long it takes."""


class BrokerContract(abc.ABC):
    """Inherit it, and say how to make a broker."""

    kept_s = CLAIM_WINDOW_S
    """For how many seconds a claim is kept once its timestamp is past."""

    @abc.abstractmethod
    def make(self, *, max_claims: int = 100) -> Backend: ...

    def run(self, scenario: Any, **options: Any) -> None:
        async def whole() -> None:
            node = RecordingBackend(self.make(**options))
            await node.backend.start(node.deliver, nobody_asks)
            try:
                await scenario(node)
            finally:
                await node.backend.close()

        coroutine: Coroutine[Any, Any, None] = whole()
        asyncio.run(coroutine)

    def test_messages_to_a_subscribed_stream_are_delivered_in_order(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            publications = [public("s", str(i)) for i in range(10)]
            for i, publication in enumerate(publications):
                assert await node.publish(publication, claim(str(i))) == DELIVERED
            await node.settle()
            assert node.delivered == publications

        self.run(scenario)

    def test_nothing_else_is_delivered(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            await node.broker.subscribe(APP, "left")
            node.broker.unsubscribe(APP, "left")
            await node.publish(public("t", "x"), claim("1"))
            await node.publish(public("left", "x"), claim("2"))
            await node.publish(public("s", "x", OTHER_APP), claim("3", app=OTHER_APP))
            await node.settle()
            assert node.delivered == []

        self.run(scenario)

    def test_a_private_message_is_delivered_whatever_is_subscribed(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            publication = Publication(APP, Kind.PRIVATE, node.backend.new_subscriber_id(), b"x")
            assert await node.publish(publication, claim("1")) == DELIVERED
            await node.settle()
            assert node.delivered == [publication]

        self.run(scenario)

    def test_a_publish_returns_whether_the_node_listens(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            private = Publication(APP, Kind.PRIVATE, node.backend.new_subscriber_id(), b"x")
            for number, (publication, nodes) in enumerate(
                [
                    (public("s", "x"), 1),
                    (Publication(APP, Kind.AUTH, "s", b"x"), 1),
                    (public("t", "x"), 0),
                    (private, 1),
                    (private._replace(name="alice"), 0),
                ]
            ):
                assert await node.publish(publication, claim(str(number))) == DELIVERED
                assert node.nodes == nodes
                assert await node.publish(publication, claim(str(number))) == REPLAYED
                assert node.nodes == nodes
            node.broker.unsubscribe(APP, "s")
            await node.broker.subscribe(APP, "another")  # confirmed after the unsubscribe
            await node.publish(public("s", "x"), claim("n"))
            assert node.nodes == 0

        self.run(scenario)

    def test_a_direct_message_is_delivered(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            publication = Publication(APP, Kind.DIRECT, "s", b"x", "bob")
            await node.broker.send(publication)
            await node.settle()
            assert node.delivered == [publication]

        self.run(scenario)

    def test_the_same_request_is_delivered_once(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            assert await node.broker.claimed(claim("n")) is None
            assert await node.publish(public("s", "x"), claim("n")) == DELIVERED
            assert await node.publish(public("s", "x"), claim("n")) == REPLAYED
            assert await node.broker.claimed(claim("n")) is Outcome.REPLAYED
            await node.settle()
            assert len(node.delivered) == 1

        self.run(scenario)

    def test_a_nonce_is_used_for_one_signature(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            await node.publish(public("s", "x"), claim("n", "one"))
            assert await node.publish(public("s", "y"), claim("n", "two")) == NONCE_REUSED
            assert await node.broker.claimed(claim("n", "two")) is Outcome.NONCE_REUSED
            await node.settle()
            assert [p.event for p in node.delivered] == [b"x"]

        self.run(scenario)

    def test_the_same_nonce_in_another_second_is_another(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.publish(public("s", "x"), claim("n", "one"))
            assert await node.publish(public("s", "y"), claim("n", "two", timestamp=NOW + 1)) == DELIVERED

        self.run(scenario)

    def test_a_claim_is_kept_as_long_as_its_timestamp_is_accepted(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.publish(public("s", "x"), claim("n"))
            last = NOW + CLAIM_WINDOW_S
            await node.publish(public("s", "x"), claim("other", timestamp=last), now=last)
            assert await node.publish(public("s", "x"), claim("n"), now=last) == REPLAYED

        self.run(scenario)

    def test_more_claims_than_the_limit_are_refused_until_some_are_past(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            for nonce in "ab":
                await node.publish(public("s", nonce), claim(nonce))
            with pytest.raises(BrokerUnavailableError, match="max_claims") as caught:
                await node.publish(public("s", "c"), claim("c"))
            assert caught.value.retry_after_s == self.kept_s + 1
            await node.settle()
            assert [p.event for p in node.delivered] == [b"a", b"b"]
            assert await node.publish(public("s", "a"), claim("a")) == REPLAYED
            later = NOW + self.kept_s + 1
            assert await node.publish(public("s", "c"), claim("c", timestamp=later), now=later) == DELIVERED

        self.run(scenario, max_claims=2)

    def test_the_claims_of_one_app_take_no_room_of_another(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            for nonce in "ab":
                await node.publish(public("s", nonce), claim(nonce))
            with pytest.raises(BrokerUnavailableError, match="max_claims"):
                await node.publish(public("s", "c"), claim("c"))
            other = public("s", "x", OTHER_APP)
            assert await node.broker.claimed(claim("a", app=OTHER_APP)) is None
            for nonce in "ab":
                assert await node.publish(other, claim(nonce, app=OTHER_APP)) == DELIVERED
            later = NOW + 1
            with pytest.raises(BrokerUnavailableError, match="max_claims") as caught:
                await node.publish(other, claim("c", timestamp=later, app=OTHER_APP), now=later)
            assert caught.value.retry_after_s == self.kept_s
            assert await node.publish(public("s", "a"), claim("a"), now=later) == REPLAYED

        self.run(scenario, max_claims=2)

    def test_a_publish_over_the_rate_has_claimed_nothing(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            assert await node.publish(public("s", "0"), claim("0"), rate=SLOW) == DELIVERED
            refused = await node.publish(public("s", "1"), claim("1"), rate=SLOW)
            assert refused.outcome is Outcome.RATE_LIMITED
            assert 0 < refused.retry_after_s <= 1 / SLOW
            assert await node.broker.claimed(claim("1")) is None
            await node.settle()
            assert len(node.delivered) == 1
            # Earlier deliveries are still known, and cost nothing.
            assert await node.publish(public("s", "0"), claim("0"), rate=SLOW) == REPLAYED
            other = public("s", "x", OTHER_APP)
            assert await node.publish(other, claim("x", app=OTHER_APP), rate=SLOW) == DELIVERED

        self.run(scenario)

    def test_publishes_of_one_second_may_come_at_once(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            for i in range(3):
                assert await node.publish(public("s", str(i)), claim(str(i)), rate=3) == DELIVERED

        self.run(scenario)

    def test_a_query_claims_its_nonce_and_counts_as_a_publish(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            async def admit(by: Claim) -> Outcome:
                return (await node.broker.admit(by, now=NOW, max_publishes_per_s=SLOW)).outcome

            assert await admit(claim("q")) is Outcome.DELIVERED
            assert await admit(claim("q")) is Outcome.REPLAYED
            assert await admit(claim("q", "other")) is Outcome.NONCE_REUSED
            assert await node.publish(public("s", "x"), claim("q"), rate=SLOW) == REPLAYED
            refused = await node.publish(public("s", "x"), claim("p"), rate=SLOW)
            assert refused.outcome is Outcome.RATE_LIMITED
            assert await admit(claim("r")) is Outcome.RATE_LIMITED
            other = public("s", "x", OTHER_APP)
            assert await node.publish(other, claim("p", app=OTHER_APP), rate=SLOW) == DELIVERED
            assert await admit(claim("q", app=OTHER_APP)) is Outcome.RATE_LIMITED

        self.run(scenario)

    def test_a_batch_is_delivered_once_and_in_order(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            await node.broker.subscribe(APP, "t")
            batch = [public("st"[i % 2], str(i)) for i in range(333)]
            assert await node.publish_batch(batch, claim("n")) is Outcome.DELIVERED
            assert await node.publish_batch(batch, claim("n")) is Outcome.REPLAYED
            assert await node.publish_batch(batch[:1], claim("n", "two")) is Outcome.NONCE_REUSED
            await node.settle()
            assert node.delivered == batch

        self.run(scenario)

    def test_the_same_batch_several_times_at_once_is_delivered_once_and_in_order(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            batch = [public("s", str(i)) for i in range(333)]
            outcomes = await asyncio.gather(*(node.publish_batch(batch, claim("n")) for _ in range(4)))
            assert set(outcomes) <= {Outcome.DELIVERED, Outcome.REPLAYED}
            await node.settle()
            assert node.delivered == batch

        self.run(scenario)

    def test_other_work_runs_between_the_steps_of_a_batch(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            batch = [public("s", str(i)) for i in range(1000)]
            delivering = asyncio.ensure_future(node.publish_batch(batch, claim("n")))
            await asyncio.sleep(0)
            await node.publish(public("s", "between"), claim("m"))
            assert await delivering is Outcome.DELIVERED
            await node.settle()
            assert len(node.delivered) == 1001
            assert node.delivered.index(public("s", "between")) < 1000

        self.run(scenario)

    def test_each_message_of_a_batch_counts_and_one_token_admits_all(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            batch = [public("s", str(i)) for i in range(10)]
            assert await node.publish_batch(batch, claim("1"), rate=SLOW) is Outcome.DELIVERED
            refused = await node.publish(public("s", "x"), claim("2"), rate=SLOW)
            assert refused.outcome is Outcome.RATE_LIMITED
            assert 900 < refused.retry_after_s <= 1000
            assert await node.publish_batch(batch, claim("3"), rate=SLOW) is Outcome.RATE_LIMITED
            assert await node.broker.claimed(claim("3")) is None
            await node.settle()
            assert node.delivered == batch

        self.run(scenario)

    def test_a_user_joins_with_the_first_connection_and_leaves_with_the_last(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            broker, presence = node.broker, node.presence
            await broker.subscribe(APP, "s")
            assert (await presence.join(APP, "s", "alice", "a1")).user_ids == ("alice",)
            present = await presence.join(APP, "s", "bob", "b1")
            assert set(present.user_ids) == {"alice", "bob"}
            await presence.join(APP, "s", "bob", "b2")
            presence.leave(APP, "s", "bob", "b1")
            await node.settle()
            assert node.presence_events() == [
                ("alice", b'["msg","s","presence",["alice","up"]]'),
                ("bob", b'["msg","s","presence",["bob","up"]]'),
            ]
            presence.leave(APP, "s", "bob", "b2")
            await node.settle()
            assert node.presence_events()[2:] == [("bob", b'["msg","s","presence",["bob","down"]]')]
            presence.leave(APP, "s", "bob", "b2")
            presence.leave(APP, "s", "nobody", "n1")
            await node.settle()
            assert len(node.presence_events()) == 3

        self.run(scenario)

    def test_a_lingering_user_leaves_later(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            await node.presence.join(APP, "s", "alice", "a1")
            node.presence.leave(APP, "s", "alice", "a1", linger_s=0.01)
            await eventually(lambda: len(node.presence_events()) == 2)
            assert node.presence_events()[1] == ("alice", b'["msg","s","presence",["alice","down"]]')

        self.run(scenario)

    def test_a_return_takes_the_place_of_the_lingering_connection(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            presence = node.presence
            await node.broker.subscribe(APP, "s")
            await presence.join(APP, "s", "alice", "a1")
            presence.leave(APP, "s", "alice", "a1", linger_s=1000)
            presence.leave(APP, "s", "alice", "a1", linger_s=1000)
            assert (await presence.join(APP, "s", "bob", "b1")).user_ids == ("alice", "bob")
            await presence.join(APP, "s", "alice", "a2")
            await node.settle()
            assert [user for user, _ in node.presence_events()] == ["alice", "bob"]
            presence.leave(APP, "s", "alice", "a2")
            await node.settle()
            assert node.presence_events()[2:] == [("alice", b'["msg","s","presence",["alice","down"]]')]

        self.run(scenario)

    def test_present_users_are_listed_and_counted_until_they_leave(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            presence = node.presence
            for user, connection in (("alice", "a1"), ("alice", "a2"), ("bob", "b1")):
                await presence.join(APP, "s", user, connection)
            assert sorted(await presence.users(APP, "s")) == ["alice", "bob"]
            assert list(await presence.count_users(APP, ["t", "s"])) == [0, 2]
            assert list(await presence.users(OTHER_APP, "s")) == []
            presence.leave(APP, "s", "bob", "b1", linger_s=1000)
            assert sorted(await presence.users(APP, "s")) == ["alice", "bob"]
            presence.end_lingering(APP, ["b1"])
            await node.settle()
            assert list(await presence.users(APP, "s")) == ["alice"]

        self.run(scenario)

    def test_versions_order_the_events_and_the_answer(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            answers = [await node.presence.join(APP, "s", user, user) for user in ("a", "b", "c")]
            await node.settle()
            versions = [p.version for p in node.delivered]
            assert versions == sorted(set(versions))
            assert [answer.version for answer in answers] == versions

        self.run(scenario)

    def test_streams_and_apps_do_not_see_each_others_users(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.presence.join(APP, "s", "alice", "a1")
            assert (await node.presence.join(APP, "t", "bob", "b1")).user_ids == ("bob",)
            assert (await node.presence.join(OTHER_APP, "s", "carol", "c1")).user_ids == ("carol",)

        self.run(scenario)

    def test_own_and_unknown_ids_belong_to_no_other_node(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            for subscriber_id in (node.backend.new_subscriber_id(), "0" * 36, "", "x\ny"):
                assert await node.calls.ask(subscriber_id, b"?", timeout_s=60) is None

        self.run(scenario)

    def test_a_closed_broker_publishes_nothing(self) -> None:
        async def scenario(node: RecordingBackend) -> None:
            await node.broker.subscribe(APP, "s")
            await node.backend.close()
            with pytest.raises(BrokerUnavailableError):
                await node.publish(public("s", "x"), claim("n"))
            assert node.delivered == []

        self.run(scenario)
