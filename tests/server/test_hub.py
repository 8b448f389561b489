"""Which subscribers receive a publication, and when: connections, hub and the in-memory broker together."""

from __future__ import annotations

import asyncio

from tambur.protocol.names import Kind
from tambur.server.broker import BrokerUnavailableError
from tambur.server.broker.memory import MemoryBackend, MemoryBroker
from tambur.server.rounds import WRITES_PER_TURN

from ..support.node import APP, Node, Recorder, SlowBackend, pass_time, run, run_slow, settle


def test_each_kind_reaches_its_subscribers() -> None:
    async def scenario(node: Node) -> None:
        plain, vouched, other = node.client("1", "s"), node.client("2", "s"), node.client("3", "t")
        vouched.enable_auth("s")
        await settle()
        await node.publish("s", "to all")
        await node.publish("s", "to few", Kind.AUTH)
        await node.publish("3", "to one", Kind.PRIVATE)
        await node.publish("nobody", "x", Kind.PRIVATE)
        assert plain.seen.events == [["msg", "s", "public", "to all"]]
        assert vouched.seen.events == [["msg", "s", "public", "to all"], ["msg", "s", "auth", "to few"]]
        assert other.seen.events == [["msg", "private", "private", "to one"]]
        assert vouched.seen.acks == [["ack", 1, "ok"], ["ack", 2, "ok"]]

    run(scenario)


def test_an_excluded_subscriber_receives_no_kind_of_message() -> None:
    async def scenario(node: Node) -> None:
        one, other = node.client("1", "s"), node.client("2", "s")
        for client in (one, other):
            client.enable_auth("s")
        await settle()
        await node.publish("s", "to the other", excluded="1")
        await node.publish("s", "to the other", Kind.AUTH, excluded="1")
        await node.publish("1", "to nobody", Kind.PRIVATE, excluded="1")
        await node.publish("1", "to one", Kind.PRIVATE, excluded="2")
        await node.publish("s", "to both", excluded="unknown")
        assert one.seen.bodies == ["to one", "to both"]
        assert other.seen.bodies == ["to the other", "to the other", "to both"]

    run(scenario)


def test_nothing_is_received_after_unset_mode_and_unsubscribe() -> None:
    async def scenario(node: Node) -> None:
        client = node.client("1", "s")
        client.enable_auth("s")
        client.command("unset_mode", "auth", "s")
        await settle()
        await node.publish("s", "to few", Kind.AUTH)
        client.command("unsubscribe", "s")
        await settle()
        await node.publish("s", "to all")
        assert client.seen.events == []
        client.connection.close()
        assert node.is_empty()

    run(scenario)


def test_a_direct_message_reaches_every_connection_of_the_user_and_nobody_else() -> None:
    async def scenario(node: Node) -> None:
        alice = node.client("a", "s")
        bobs = [node.client(f"b{i}", "s") for i in range(2)]
        away = node.client("b3", "s", "t")
        carol = node.client("c", "s")
        for client, user in ((alice, "alice"), (carol, "carol"), (bobs[0], "bob"), (bobs[1], "bob")):
            client.enable("direct", "s", user)
        away.enable("direct", "t", "bob")
        await settle()
        alice.command("direct", "s", "bob", "hi")
        alice.command("direct", "s", "nobody", "hi")
        alice.command("direct", "s", "alice", "me")
        await settle()
        assert [client.seen.events for client in bobs] == [[["msg", "s", "direct", ["alice", "hi"]]]] * 2
        assert away.seen.events == carol.seen.events == []
        assert alice.seen.events == [["msg", "s", "direct", ["alice", "me"]]]
        assert [result for _, _, result in alice.seen.acks] == ["ok"] * 5

    run(scenario)


WINDOW_S = 0.002


def coalescing() -> Node:
    return Node(coalesce_window_s=WINDOW_S)


def test_publications_of_a_busy_stream_are_coalesced() -> None:
    async def scenario(node: Node) -> None:
        plain, vouched = node.client("1", "s"), node.client("2", "s")
        vouched.enable_auth("s")
        await settle()
        for i in range(3):
            await node.publish("s", f"p{i}")
            await node.publish("s", f"a{i}", Kind.AUTH)
        assert [len(write) for write in plain.seen.writes] == [1]
        await pass_time(WINDOW_S)
        texts = [[event[3] for event in write] for write in vouched.seen.writes]
        assert texts == [["p0"], ["a0", "p1", "a1", "p2", "a2"]]
        assert [[event[3] for event in write] for write in plain.seen.writes] == [["p0"], ["p1", "p2"]]
        # After a window without any, the next one is written at once again.
        await pass_time(WINDOW_S)
        await node.publish("s", "later")
        assert plain.seen.writes[-1] == [["msg", "s", "public", "later"]]

    run(scenario, coalescing)


def test_without_a_window_each_is_written_at_once() -> None:
    async def scenario(node: Node) -> None:
        client = node.client("1", "s")
        await settle()
        for i in range(5):
            await node.publish("s", str(i))
        assert [len(write) for write in client.seen.writes] == [1] * 5

    run(scenario)


def test_without_a_window_each_is_written_to_all_in_one_turn() -> None:
    async def scenario(node: Node) -> None:
        clients = [node.client(str(i), "s") for i in range(3 * WRITES_PER_TURN)]
        await settle()
        for i in range(5):
            await node.publish("s", str(i))
        for client in clients:
            assert client.seen.bodies == [str(i) for i in range(5)]
            assert len(client.seen.writes) == 5

    run(scenario)


def test_a_change_writes_pending_messages_only_to_that_subscriber() -> None:
    """Nothing may follow the ack of an unsubscribe, and one change must not cause a write to all."""

    async def scenario(node: Node) -> None:
        leaving, staying = node.client("1", "s"), node.client("2", "s")
        await settle()
        await node.publish("s", "first")
        await node.publish("s", "waits")
        leaving.command("unsubscribe", "s")
        late = node.client("3", "s")
        await settle()
        assert leaving.seen.everything[-2:] == [["msg", "s", "public", "waits"], ["ack", 2, "ok"]]
        await node.publish("s", "for few", Kind.AUTH)
        await node.publish("s", "waits, too")
        late.enable_auth("s")
        await settle()
        await node.publish("s", "for few again", Kind.AUTH)
        assert late.seen.everything == [
            ["ack", 1, "ok"],
            ["msg", "s", "public", "waits, too"],
            ["ack", 2, "ok"],
        ]
        late.enable("presence", "s", "bob")
        late.enable("direct", "s", "bob")
        late.command("direct", "s", "bob", "to myself")
        await settle()
        assert late.seen.bodies == ["waits, too", "for few again"]
        late.command("unset_mode", "direct", "s")
        await settle()
        assert late.seen.bodies == ["waits, too", "for few again", ["bob", "to myself"]]
        assert staying.seen.bodies == ["first"]
        await pass_time(WINDOW_S)
        assert [[event[3] for event in write] for write in staying.seen.writes] == [
            ["first"],
            ["waits", "waits, too"],
        ]
        assert leaving.seen.bodies == ["first", "waits"]

    run(scenario, coalescing)


def test_writing_to_many_takes_turns_with_everything_else() -> None:
    async def scenario(node: Node) -> None:
        clients = [node.client(str(i), "s") for i in range(250)]
        await settle()
        await node.publish("s", "first")
        assert sum(bool(client.seen.events) for client in clients) == WRITES_PER_TURN
        await node.publish("s", "second")
        # A change comes after all that was published before, and writes to nobody else.
        leaving = clients[-1]
        leaving.command("unsubscribe", "s")
        late = node.client("late", "s")
        await asyncio.sleep(0)
        assert leaving.seen.everything[-3:] == [
            ["msg", "s", "public", "first"],
            ["msg", "s", "public", "second"],
            ["ack", 2, "ok"],
        ]
        assert sum(len(client.seen.events) for client in clients[:-1]) <= 2 * WRITES_PER_TURN
        await settle()
        await pass_time(WINDOW_S)
        for client in clients:
            assert client.seen.bodies == ["first", "second"]
        assert late.seen.events == []
        await node.publish("s", "third")
        await pass_time(WINDOW_S)
        assert leaving.seen.bodies == ["first", "second"]
        assert late.seen.bodies == ["third"]

    run(scenario, coalescing)


def test_a_round_over_many_subscribers_completes() -> None:
    async def scenario(node: Node) -> None:
        clients = [node.client(str(i), "s") for i in range(250)]
        await settle()
        await node.publish("s", "first")
        await settle()
        assert all(client.seen.bodies == ["first"] for client in clients)

    run(scenario, coalescing)


def test_lost_messages_close_the_connections_that_read_their_logs() -> None:
    closed = (1012, "messages were missed")

    async def scenario(node: Node) -> None:
        clients = [node.client(str(i), "s") for i in range(4)]
        clients[0].enable("direct", "s", "alice")
        other = node.client("other", "t")
        await settle()
        assert set(node.hub.read_logs()) == {
            *((APP.key, f"private:{i}") for i in range(4)),
            (APP.key, "private:other"),
            (APP.key, "s\nalice"),
        }
        for logs, expected in (
            ([(APP.key, "unknown"), (APP.key, "s\nbob"), (APP.key, "private:gone")], []),
            ([(APP.key, "s\nalice"), (APP.key, "private:2")], [0, 2]),
            ([(APP.key, "s")], [0, 1, 2, 3]),
        ):
            node.hub.miss(logs)
            assert [i for i, client in enumerate(clients) if client.seen.closed == closed] == expected
        assert other.seen.closed is None
        node.hub.miss(None)
        assert other.seen.closed == closed

    run(scenario)


def test_a_session_that_moved_is_closed() -> None:
    async def scenario(node: Node) -> None:
        client, other = node.client("moved"), node.client("other")
        node.hub.move(APP.key, "moved")
        node.hub.move(APP.key, "unknown")
        assert client.seen.closed == (4009, "the session continues on another connection")
        assert other.seen.closed is None

    run(scenario)


class LaggingBroker(MemoryBroker):
    """A broker that cannot say whether everything has been delivered."""

    async def sync(self) -> None:
        raise BrokerUnavailableError("the broker cannot be reached", 1)


def test_a_subscriber_is_refused_while_the_broker_may_deliver_earlier_messages() -> None:
    backend = MemoryBackend(max_claims=10)
    backend.broker = LaggingBroker(max_claims=10)

    async def scenario(node: Node) -> None:
        first, second = node.client("1", "s"), node.client("2")
        await settle()
        second.command("subscribe", "s")
        await settle()
        assert first.seen.acks == [["ack", 1, "ok"]]
        assert second.seen.acks == [["ack", 1, "unavailable"]]
        first.connection.close()
        await settle()
        assert not node.hub._streams
        assert not backend.broker._subscribed

    run(scenario, lambda: Node(backend))


def test_a_stream_is_used_again_while_the_broker_still_subscribes_for_one_that_was_cancelled() -> None:
    async def scenario(node: Node, backend: SlowBackend) -> None:
        cancelled = asyncio.ensure_future(node.hub.subscribe(APP.key, "s", Recorder()))
        await settle()
        cancelled.cancel()
        client = node.client("1", "s")
        await settle()
        assert len(backend.gates) == 1, "it subscribes once"
        backend.open()
        await settle()
        await node.publish("s", "x")
        assert client.seen.bodies == ["x"]

    run_slow(scenario)


def test_a_stream_that_nobody_waits_for_any_more_is_unsubscribed() -> None:
    async def scenario(node: Node, backend: SlowBackend) -> None:
        for finish in (backend.open, backend.refuse):
            cancelled = asyncio.ensure_future(node.hub.subscribe(APP.key, "s", Recorder()))
            await settle()
            cancelled.cancel()
            await settle()
            finish()
            await settle()
            assert node.is_empty()
            assert not backend.broker._subscribed
            assert node.hub.memory.held_bytes == 0

    run_slow(scenario)


def test_all_subscribers_that_wait_for_a_stream_are_answered_together() -> None:
    async def scenario(node: Node, backend: SlowBackend) -> None:
        first = [node.client(str(i), "s") for i in range(3)]
        await settle()
        assert len(backend.gates) == 1
        backend.refuse()
        await settle()
        assert [client.seen.acks for client in first] == [[["ack", 1, "unavailable"]]] * 3
        second = [node.client(str(i), "s") for i in range(3, 6)]
        await settle()
        backend.open()
        await settle()
        assert [client.seen.acks for client in second] == [[["ack", 1, "ok"]]] * 3

    run_slow(scenario)
