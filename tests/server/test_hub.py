"""Connections, hub and the in-memory broker together, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tambur.protocol.messages import encode_presence
from tambur.protocol.names import Kind
from tambur.server.broker import BrokerUnavailableError, Presence, Publication
from tambur.server.broker.memory import MemoryBroker
from tambur.server.connection import MAX_QUEUED_COMMANDS
from tambur.server.hub import OUTBOXES_IN_A_ROW
from tests.support.node import APP, Client, Node, settle


def run(scenario: Callable[[Node], Awaitable[None]], node: Callable[[], Node] = Node) -> None:
    async def whole() -> None:
        await scenario(await node().start())

    asyncio.run(whole())


def test_each_kind_reaches_those_it_is_for() -> None:
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


def test_what_was_left_is_not_received() -> None:
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


def test_the_newcomers_list_is_whole_before_his_ack() -> None:
    async def scenario(node: Node) -> None:
        for user in ("alice", "bob"):
            node.client(user, "s").enable("presence", "s", user)
        await settle()
        late = node.client("late", "s")
        late.enable("presence", "s", "carol")
        await settle()
        assert late.seen.everything == [
            ["ack", 1, "ok"],
            ["msg", "s", "presence", ["alice", "up"]],
            ["msg", "s", "presence", ["bob", "up"]],
            ["ack", 2, "ok"],
        ]

    run(scenario)


@pytest.mark.parametrize("leave", ["unset_mode", "unsubscribe", "close"])
def test_each_way_to_leave_sends_down(leave: str) -> None:
    async def scenario(node: Node) -> None:
        alice, bob = node.client("a", "s"), node.client("b", "s")
        alice.enable("presence", "s", "alice")
        bob.enable("presence", "s", "bob")
        await settle()
        if leave == "close":
            bob.connection.close()
        else:
            bob.command(leave, *(("presence", "s") if leave == "unset_mode" else ("s",)))
        await settle()
        assert alice.seen.events == [
            ["msg", "s", "presence", ["bob", "up"]],
            ["msg", "s", "presence", ["bob", "down"]],
        ]
        assert bob.seen.events == [["msg", "s", "presence", ["alice", "up"]]]

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


def test_publications_of_a_busy_stream_are_joined() -> None:
    async def scenario(node: Node) -> None:
        loop = asyncio.get_running_loop()
        plain, vouched = node.client("1", "s"), node.client("2", "s")
        vouched.enable_auth("s")
        await settle()
        for i in range(3):
            await node.publish("s", f"p{i}")
            await node.publish("s", f"a{i}", Kind.AUTH)
        assert [len(write) for write in plain.seen.writes] == [1]
        window_over = loop.create_future()
        loop.call_later(2.5 * node.hub._join_window_s, window_over.set_result, None)
        await window_over
        texts = [[event[3] for event in write] for write in vouched.seen.writes]
        assert texts == [["p0"], ["a0", "p1", "a1", "p2", "a2"]]
        assert [[event[3] for event in write] for write in plain.seen.writes] == [["p0"], ["p1", "p2"]]
        # A window has passed without any, so the next is written at once again.
        await node.publish("s", "later")
        assert plain.seen.writes[-1] == [["msg", "s", "public", "later"]]

    run(scenario, lambda: Node(join_window_s=0.02))


def test_without_a_window_each_is_written_at_once() -> None:
    async def scenario(node: Node) -> None:
        client = node.client("1", "s")
        await settle()
        for i in range(5):
            await node.publish("s", str(i))
        assert [len(write) for write in client.seen.writes] == [1] * 5

    run(scenario)


def test_what_waits_goes_out_before_anything_else_changes() -> None:
    """Else a message would come after the ack of the unsubscribe, or reach who came after it."""

    async def scenario(node: Node) -> None:
        leaving, staying = node.client("1", "s"), node.client("2", "s")
        staying.enable("presence", "s", "alice")
        await settle()
        await node.publish("s", "first")
        await node.publish("s", "waits")
        leaving.command("unsubscribe", "s")
        late = node.client("3", "s")
        await settle()
        await node.publish("s", "waits, too")
        late.enable("presence", "s", "bob")
        await settle()
        assert leaving.seen.everything[-2:] == [["msg", "s", "public", "waits"], ["ack", 2, "ok"]]
        assert late.seen.everything == [
            ["ack", 1, "ok"],
            ["msg", "s", "public", "waits, too"],
            ["msg", "s", "presence", ["alice", "up"]],
            ["ack", 2, "ok"],
        ]
        assert [event[3] for event in staying.seen.events] == ["first", "waits", "waits, too", ["bob", "up"]]

    run(scenario, lambda: Node(join_window_s=3600))


def test_writing_to_many_takes_turns_with_everything_else() -> None:
    async def scenario(node: Node) -> None:
        clients = [node.client(str(i), "s") for i in range(250)]
        await settle()
        await node.publish("s", "first")
        assert sum(bool(client.seen.events) for client in clients) == OUTBOXES_IN_A_ROW
        await node.publish("s", "second")
        # Whatever changes the stream comes after all that was published before.
        clients[-1].command("unsubscribe", "s")
        late = node.client("late", "s")
        await settle()
        assert clients[-1].seen.everything[-1] == ["ack", 2, "ok"]
        for client in clients:
            assert [event[3] for event in client.seen.events] == ["first", "second"]
        assert late.seen.events == []
        await node.publish("s", "third")
        await settle()
        assert clients[-1].seen.events[-1][3] == "second"

    run(scenario, lambda: Node(join_window_s=3600))


def test_writing_to_many_ends_without_help() -> None:
    async def scenario(node: Node) -> None:
        clients = [node.client(str(i), "s") for i in range(250)]
        await settle()
        await node.publish("s", "first")
        await settle()
        assert all([event[3] for event in client.seen.events] == ["first"] for client in clients)

    run(scenario, lambda: Node(join_window_s=3600))


class SlowBroker(MemoryBroker):
    """Answers when it is told to, or says that it cannot."""

    def __init__(self) -> None:
        super().__init__(max_claims=1000)
        self.gates: list[asyncio.Future[None]] = []

    async def _gate(self) -> None:
        gate = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        await gate

    def open(self) -> None:
        self.gates.pop(0).set_result(None)

    def refuse(self) -> None:
        self.gates.pop(0).set_exception(BrokerUnavailableError("away", retry_after_s=1))

    async def subscribe(self, app: Any, stream: str) -> None:
        await self._gate()
        await super().subscribe(app, stream)

    async def join(self, app: Any, stream: str, user_id: str, subscriber_id: str) -> Presence:
        await self._gate()
        return await super().join(app, stream, user_id, subscriber_id)

    async def send(self, publication: Publication) -> None:
        await self._gate()
        await super().send(publication)


def slow(scenario: Callable[[Node, SlowBroker], Awaitable[None]]) -> None:
    async def whole() -> None:
        broker = SlowBroker()
        await scenario(await Node(broker).start(), broker)

    asyncio.run(whole())


def test_commands_are_answered_in_their_order_however_long_the_broker_takes() -> None:
    async def scenario(node: Node, broker: SlowBroker) -> None:
        client = node.client("1", "s", "t")
        client.send("nonsense")
        await settle()
        assert client.seen.acks == []
        broker.open()
        await settle()
        assert client.seen.acks == [["ack", 1, "ok"]]
        broker.open()
        await settle()
        assert client.seen.acks == [["ack", 1, "ok"], ["ack", 2, "ok"], ["ack", 0, "unknown command"]]

    slow(scenario)


class PlacingBroker(MemoryBroker):
    """A broker that says how far publications have come."""

    come_to = 0

    async def place(self) -> int:
        return self.come_to


def test_what_was_missed_goes_to_those_who_were_subscribed_when_it_was_published() -> None:
    async def whole() -> None:
        broker = PlacingBroker(max_claims=10)
        node = await Node(broker, join_window_s=10).start()
        clients = []
        for broker.come_to in (3, 5, 7):
            client = node.client(str(broker.come_to), "s")
            await settle()
            client.enable_auth("s")
            client.enable("direct", "s", "alice")
            clients.append(client)
            await settle()
        await node.publish("s", "in time")
        await node.publish("s", "joined")
        for kind, user_id in ((Kind.PUBLIC, None), (Kind.AUTH, None), (Kind.DIRECT, "alice")):
            event = b'["%s"]' % kind.value.encode()
            node.hub.deliver(Publication(APP.key, kind, "s", event, user_id, place=6))
        in_time = [["msg", "s", "public", text] for text in ("in time", "joined")]
        late = [["public"], ["auth"], ["direct"]]
        assert [c.seen.events for c in clients] == [in_time + late, in_time + late, in_time]
        assert node.hub.counts.deliveries == 3 * 2 + 2 * 3
        node.hub.miss()
        assert [c.seen.closed for c in clients] == [(1012, "messages were missed")] * 3

    asyncio.run(whole())


class PlacelessBroker(MemoryBroker):
    """A broker that goes away as soon as it has been subscribed to something."""

    async def place(self) -> int:
        raise BrokerUnavailableError("the broker cannot be reached", 1)


def test_who_cannot_be_told_how_far_publications_have_come_is_not_subscribed() -> None:
    async def whole() -> None:
        broker = PlacelessBroker(max_claims=10)
        node = await Node(broker).start()
        client = node.client("1", "s")
        await settle()
        assert client.seen.acks == [["ack", 1, "unavailable"]]
        assert not node.hub._streams
        assert not broker._subscribed

    asyncio.run(whole())


def test_a_command_that_the_broker_cannot_do_has_changed_nothing() -> None:
    async def scenario(node: Node, broker: SlowBroker) -> None:
        client = node.client("1", "s")
        await settle()
        broker.refuse()
        await settle()
        assert client.seen.acks == [["ack", 1, "unavailable"]]
        assert not node.hub._streams
        client.command("subscribe", "s")
        await settle()
        broker.open()
        client.enable("presence", "s", "alice")
        client.enable("direct", "s", "alice")
        client.command("direct", "s", "alice", "x")
        await settle()
        broker.refuse()
        await settle()
        broker.refuse()
        await settle()
        assert [result for _, _, result in client.seen.acks[1:]] == ["ok", "unavailable", "ok", "unavailable"]
        assert client.seen.events == []
        client.enable("presence", "s", "alice")
        await settle()
        broker.open()
        await settle()
        assert client.seen.acks[-1] == ["ack", 6, "ok"]

    slow(scenario)


def test_all_who_wait_for_a_stream_are_answered_together() -> None:
    async def scenario(node: Node, broker: SlowBroker) -> None:
        first = [node.client(str(i), "s") for i in range(3)]
        await settle()
        assert len(broker.gates) == 1
        broker.refuse()
        await settle()
        assert [client.seen.acks for client in first] == [[["ack", 1, "unavailable"]]] * 3
        second = [node.client(str(i), "s") for i in range(3, 6)]
        await settle()
        broker.open()
        await settle()
        assert [client.seen.acks for client in second] == [[["ack", 1, "ok"]]] * 3

    slow(scenario)


@pytest.mark.parametrize("answer", ["open", "refuse"])
@pytest.mark.parametrize("pending", ["subscribe", "join"])
def test_who_goes_while_the_broker_thinks_leaves_nothing_behind(pending: str, answer: str) -> None:
    async def scenario(node: Node, broker: SlowBroker) -> None:
        client = node.client("1", "s")
        await settle()
        if pending == "join":
            broker.open()
            client.enable("presence", "s", "alice")
            await settle()
        client.connection.close()
        getattr(broker, answer)()
        await settle()
        assert node.is_empty()
        assert not broker._present
        assert not broker._subscribed

    slow(scenario)


def test_presence_between_asking_and_answer_is_neither_missed_nor_doubled() -> None:
    async def scenario(node: Node, broker: SlowBroker) -> None:
        client = node.client("1", "s")
        await settle()
        broker.open()
        await settle()
        client.enable("presence", "s", "alice")
        await settle()

        def event(user: str, version: int, *, up: bool) -> Publication:
            return Publication(APP.key, Kind.PRESENCE, "s", encode_presence("s", user, up=up), user, version)

        # The broker's answer will be of version 1, which is alice's own; the first is older than that.
        node.hub.deliver(event("past", 1, up=True))
        node.hub.deliver(event("coming", 2, up=True))
        node.hub.deliver(event("coming", 3, up=False))
        assert client.seen.events == []
        broker.open()
        await settle()
        assert [e[3] for e in client.seen.events] == [["coming", "up"], ["coming", "down"]]
        assert client.seen.everything[-1] == ["ack", 2, "ok"]

    slow(scenario)


def test_a_transport_is_told_to_wait_and_to_go_on() -> None:
    async def scenario(node: Node, broker: SlowBroker) -> None:
        client = node.client("1", *[f"s{i}" for i in range(MAX_QUEUED_COMMANDS + 1)])
        await settle()
        assert client.connection.is_busy
        for _ in range(MAX_QUEUED_COMMANDS + 1):
            broker.open()
            await settle()
        assert not client.connection.is_busy
        assert client.seen.drained_count == 1

    slow(scenario)


def test_ten_malformed_commands_in_a_row_end_a_connection() -> None:
    async def scenario(node: Node) -> None:
        client = node.client("1")
        for _ in range(9):
            client.send("x")
        client.command("subscribe", "s")
        for _ in range(9):
            client.send("x")
        await settle()
        assert client.seen.closed is None
        client.send("x")
        await settle()
        assert client.seen.closed == (1008, "10 malformed commands in a row")
        assert [handle for _, handle, _ in client.seen.acks] == [0] * 9 + [1] + [0] * 10

    run(scenario)


def test_a_bug_closes_its_connection_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryBroker):
        async def join(self, *args: Any) -> Presence:
            raise KeyError("bug")

    async def scenario(node: Node) -> None:
        victim, other = node.client("1", "s"), node.client("2", "s")
        victim.enable("presence", "s", "alice")
        await settle()
        assert victim.seen.closed == (1011, "internal error")
        await node.publish("s", "x")
        assert other.seen.events == [["msg", "s", "public", "x"]]
        victim.connection.close()
        other.connection.close()
        assert node.is_empty()

    run(scenario, lambda: Node(Broken(max_claims=10)))
    assert "KeyError: 'bug'" in caplog.text


class PresenceMachine(RuleBasedStateMachine):
    """Any interleaving of several users' connections leaves everybody with the right picture."""

    users = st.sampled_from(["alice", "bob", "carol"])
    picks = st.integers(0, 5)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.node = Node()
        self.loop.run_until_complete(self.node.start())
        self.clients: list[Client] = []
        self.count = 0
        # Who has presence enabled, and as whom.
        self.present: dict[Client, str] = {}

    def teardown(self) -> None:
        for client in self.clients:
            client.connection.close()
        assert self.node.is_empty()
        assert not self.node.broker._present
        self.loop.close()

    def settle(self) -> None:
        self.loop.run_until_complete(settle())

    @rule()
    @precondition(lambda self: len(self.clients) < 6)
    def connect(self) -> None:
        self.count += 1

        async def connect() -> Client:
            return self.node.client(str(self.count), "s")

        self.clients.append(self.loop.run_until_complete(connect()))
        self.settle()

    def pick(self, number: int) -> Client:
        return self.clients[number % len(self.clients)]

    def run_command(self, action: Callable[[], None]) -> None:
        async def act() -> None:
            action()

        self.loop.run_until_complete(act())
        self.settle()

    @rule(number=picks, user=users)
    @precondition(lambda self: self.clients)
    def enable(self, number: int, user: str) -> None:
        client = self.pick(number)
        self.run_command(lambda: client.enable("presence", "s", user))
        if client.seen.acks[-1][2] == "ok":
            self.present[client] = user

    @rule(number=picks)
    @precondition(lambda self: self.clients)
    def disable(self, number: int) -> None:
        client = self.pick(number)
        self.run_command(lambda: client.command("unset_mode", "presence", "s"))
        self.forget(client)

    @rule(number=picks)
    @precondition(lambda self: self.clients)
    def resubscribe(self, number: int) -> None:
        client = self.pick(number)
        self.run_command(lambda: client.command("unsubscribe", "s"))
        self.run_command(lambda: client.command("subscribe", "s"))
        self.forget(client)

    @rule(number=picks)
    @precondition(lambda self: self.clients)
    def disconnect(self, number: int) -> None:
        client = self.pick(number)
        self.run_command(client.connection.close)
        self.clients.remove(client)
        self.forget(client)

    @rule(numbers=st.tuples(picks, picks, picks), user=users)
    @precondition(lambda self: self.clients)
    def enable_several_at_once(self, numbers: tuple[int, int, int], user: str) -> None:
        clients = list(dict.fromkeys(self.pick(number) for number in numbers))

        def act() -> None:
            for client in clients:
                client.enable("presence", "s", user)

        self.run_command(act)
        for client in clients:
            if client.seen.acks[-1][2] == "ok":
                self.present[client] = user

    def forget(self, client: Client) -> None:
        self.present.pop(client, None)
        client.seen.writes.clear()

    @invariant()
    def everybody_has_the_right_picture(self) -> None:
        there = set(self.present.values())
        for client in self.clients:
            picture: set[str] = set()
            for _, _, _, (user, what) in client.seen.events:
                assert (user in picture) == (what == "down"), f"{user} is {what} twice"
                picture ^= {user}
            me = self.present.get(client)
            assert picture == (set() if me is None else there - {me})


PresenceMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestPresenceMachine = PresenceMachine.TestCase
