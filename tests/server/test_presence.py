"""Presence on one node: the list of users, the events after it, and the end of presence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tambur.protocol.messages import encode_presence
from tambur.protocol.names import Kind
from tambur.server import hub
from tambur.server.broker import Publication
from tambur.server.rounds import WRITES_PER_TURN

from ..support.node import (
    APP,
    LocalClient,
    Node,
    SlowBackend,
    make_room,
    pass_time,
    run,
    run_slow,
    settle,
    until,
)


def test_the_list_of_users_is_whole_before_the_ack() -> None:
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


def test_events_during_a_join_are_neither_missed_nor_doubled() -> None:
    async def scenario(node: Node, backend: SlowBackend) -> None:
        client = node.client("1", "s")
        await settle()
        backend.open()
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
        backend.open()
        await settle()
        assert [e[3] for e in client.seen.events] == [["coming", "up"], ["coming", "down"]]
        assert client.seen.everything[-1] == ["ack", 2, "ok"]

    run_slow(scenario)


def test_a_room_receives_presence_in_turns() -> None:
    async def scenario(node: Node) -> None:
        members = await make_room(node, 3 * WRITES_PER_TURN + 4)
        newcomer = node.client("new", "s")
        await settle()
        newcomer.enable("presence", "s", "new")

        def told() -> int:
            return sum(len(member.seen.events) for member in members)

        await until(lambda: told() > 0)
        for turn in range(1, len(members) // WRITES_PER_TURN + 1):
            assert told() == turn * WRITES_PER_TURN
            await asyncio.sleep(0)
        assert told() == len(members)
        await pass_time(1)
        newcomer.connection.close()
        assert told() == len(members) + WRITES_PER_TURN
        await pass_time(1)
        assert [member.seen.bodies for member in members] == [[["new", "up"], ["new", "down"]]] * len(members)

    run(scenario, lambda: Node(coalesce_window_s=0.002))


def test_a_long_list_is_written_in_turns_before_later_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "USERS_PER_TURN", per_turn := 16)

    async def scenario(node: Node) -> None:
        count = 2 * per_turn + 1
        members = await make_room(node, count)
        newcomer = node.client("new", "s")
        await settle()
        newcomer.enable("presence", "s", "new")
        await until(lambda: bool(newcomer.seen.events))
        assert len(newcomer.seen.events) == per_turn
        members[0].connection.close()
        await node.publish("s", "meanwhile")
        await settle()
        assert [len(write) for write in newcomer.seen.writes] == [per_turn, per_turn, 1, 2]
        assert newcomer.seen.bodies == [
            *([f"user {i}", "up"] for i in range(count)),
            ["user 0", "down"],
            "meanwhile",
        ]
        assert newcomer.seen.everything[-1] == ["ack", 2, "ok"]

    run(scenario)


def test_messages_keep_their_order_during_a_join() -> None:
    async def scenario(node: Node, backend: SlowBackend) -> None:
        client, other = node.client("1", "s"), node.client("2", "s")
        await settle()
        backend.open()
        await settle()
        for end in (backend.open, backend.refuse):
            client.enable("presence", "s", "alice")
            await settle()
            await node.publish("s", "a")
            await node.publish("s", "b")
            assert other.seen.bodies[-2:] == ["a", "b"]
            end()
            await settle()
            assert client.seen.bodies[-2:] == ["a", "b"]
            await node.publish("s", "c")
            assert client.seen.bodies[-3:] == ["a", "b", "c"]
            client.command("unset_mode", "presence", "s")
            await settle()
        assert client.seen.bodies == other.seen.bodies == ["a", "b", "c"] * 2
        assert [result for _, _, result in client.seen.acks[1:]] == [
            "ok",
            "ok",
            "unavailable",
            "mode_not_enabled",
        ]

    run_slow(scenario)


class PresenceMachine(RuleBasedStateMachine):
    """After any interleaving of connections, every subscriber has the right list of users."""

    users = st.sampled_from(["alice", "bob", "carol"])
    picks = st.integers(0, 5)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.node = Node()
        self.loop.run_until_complete(self.node.start())
        self.clients: list[LocalClient] = []
        self.count = 0
        # The connections with presence enabled, and their users.
        self.present: dict[LocalClient, str] = {}

    def teardown(self) -> None:
        for client in self.clients:
            self.run_command(client.connection.close)
        assert self.node.is_empty()
        assert not self.node.backend.presence._present
        self.loop.close()

    def settle(self) -> None:
        self.loop.run_until_complete(settle())

    @rule()
    @precondition(lambda self: len(self.clients) < 6)
    def connect(self) -> None:
        self.count += 1

        async def connect() -> LocalClient:
            return self.node.client(str(self.count), "s")

        self.clients.append(self.loop.run_until_complete(connect()))
        self.settle()

    def pick(self, number: int) -> LocalClient:
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

    def forget(self, client: LocalClient) -> None:
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


PresenceMachine.TestCase.settings = settings(stateful_step_count=40)
TestPresenceMachine = PresenceMachine.TestCase
