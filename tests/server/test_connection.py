"""The commands of one subscriber: their order, their answers, and their cost."""

from __future__ import annotations

from typing import Any

import pytest

from tambur.server import Limits
from tambur.server.broker import PresentUsers
from tambur.server.broker.memory import MemoryBackend, MemoryPresence
from tambur.server.connection import EVENTS_PER_COMMAND, MAX_QUEUED_COMMANDS, STREAMS_PER_TURN

from ..support.node import APP, Node, SlowBackend, make_room, pass_time, run, run_slow, settle, until


def test_commands_are_answered_in_their_order_however_long_the_broker_takes() -> None:
    async def scenario(node: Node, backend: SlowBackend) -> None:
        client = node.client("1", "s", "t")
        client.send("nonsense")
        await settle()
        assert client.seen.acks == []
        backend.open()
        await settle()
        assert client.seen.acks == [["ack", 1, "ok"]]
        backend.open()
        await settle()
        assert client.seen.acks == [["ack", 1, "ok"], ["ack", 2, "ok"], ["ack", 0, "unknown command"]]

    run_slow(scenario)


def test_a_command_that_the_broker_refuses_changes_nothing() -> None:
    async def scenario(node: Node, backend: SlowBackend) -> None:
        client = node.client("1", "s")
        await settle()
        backend.refuse()
        await settle()
        assert client.seen.acks == [["ack", 1, "unavailable"]]
        assert not node.hub._streams
        client.command("subscribe", "s")
        await settle()
        backend.open()
        client.enable("presence", "s", "alice")
        client.enable("direct", "s", "alice")
        client.command("direct", "s", "alice", "x")
        await settle()
        backend.refuse()
        await settle()
        backend.refuse()
        await settle()
        assert [result for _, _, result in client.seen.acks[1:]] == ["ok", "unavailable", "ok", "unavailable"]
        assert client.seen.events == []
        client.enable("presence", "s", "alice")
        await settle()
        backend.open()
        await settle()
        assert client.seen.acks[-1] == ["ack", 6, "ok"]

    run_slow(scenario)


@pytest.mark.parametrize("answer", ["open", "refuse"])
@pytest.mark.parametrize("pending", ["subscribe", "join"])
def test_a_connection_that_closes_during_a_broker_call_leaves_nothing_behind(
    pending: str, answer: str
) -> None:
    async def scenario(node: Node, backend: SlowBackend) -> None:
        client = node.client("1", "s")
        await settle()
        if pending == "join":
            backend.open()
            client.enable("presence", "s", "alice")
            await settle()
        client.connection.close()
        getattr(backend, answer)()
        await settle()
        assert node.is_empty()
        assert not backend.presence._present
        assert not backend.broker._subscribed

    run_slow(scenario)


def test_a_transport_pauses_and_resumes_reading() -> None:
    async def scenario(node: Node, backend: SlowBackend) -> None:
        client = node.client("1", *[f"s{i}" for i in range(MAX_QUEUED_COMMANDS + 1)])
        await settle()
        assert client.connection.is_busy
        for _ in range(MAX_QUEUED_COMMANDS + 1):
            backend.open()
            await settle()
        assert not client.connection.is_busy
        assert client.seen.drained_count == 1

    run_slow(scenario)


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
    class Broken(MemoryPresence):
        async def join(self, *args: Any) -> PresentUsers:
            raise KeyError("bug")

    backend = MemoryBackend(max_claims=10)
    backend.presence = Broken(backend.broker.hand_on, backend.webhooks, max_lingering_users=1)

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

    run(scenario, lambda: Node(backend))
    assert "KeyError: 'bug'" in caplog.text


MEMBERS = 4 * EVENTS_PER_COMMAND


@pytest.mark.parametrize(
    ("deed", "cost"),
    [
        ("toggle presence", (2 + 8 + 4) / 2),
        ("presence and unsubscribe", (3 + 8 + 4) / 3),
        ("direct", 1 + 4),
    ],
)
def test_a_command_that_reaches_many_costs_its_sender_as_much_as_many(deed: str, cost: float) -> None:
    per_s = 100

    async def scenario(node: Node) -> None:
        for member in await make_room(node, MEMBERS):
            member.enable("direct", "s", "everybody")
        client = node.client("1", "s", limits=Limits(max_commands_per_s=per_s))
        client.enable("direct", "s", "me")
        await pass_time(10)
        client.seen.acks.clear()
        for _ in range(per_s):
            if deed == "direct":
                client.command("direct", "s", "everybody", "x")
                continue
            client.enable("presence", "s", "me")
            if deed == "toggle presence":
                client.command("unset_mode", "presence", "s")
            else:
                client.command("unsubscribe", "s")
                client.command("subscribe", "s")
        await settle()
        # One second's worth at once, and the same each second after it.
        slack = 4
        for seconds in range(1, 4):
            answered = len(client.seen.acks)
            assert abs(answered - seconds * per_s / cost) <= slack, (seconds, answered)
            for _ in range(100):
                await pass_time(0.01)
        assert {result for _, _, result in client.seen.acks} == {"ok"}

    run(scenario)


def test_a_command_that_reaches_nobody_costs_one() -> None:
    per_s = 64

    async def scenario(node: Node) -> None:
        client = node.client("1", limits=Limits(max_commands_per_s=per_s))
        for _ in range(2 * per_s):
            client.command("subscribe", "s")
            client.command("unsubscribe", "s")
        for seconds in (1, 2):
            await until(lambda: len(client.seen.acks) == seconds * per_s)  # noqa: B023 - called at once
            for _ in range(5):
                await settle()
            assert len(client.seen.acks) == seconds * per_s
            await pass_time(1 / per_s)
            assert len(client.seen.acks) == seconds * per_s + 1
            for _ in range(per_s - 1):
                await pass_time(1 / per_s)

    run(scenario)


def test_a_connection_that_ends_unsubscribes_from_many_streams_in_turns() -> None:
    async def scenario(node: Node) -> None:
        client = node.client("1", *[f"s{i}" for i in range(10 * STREAMS_PER_TURN)])
        while len(client.seen.acks) < 10 * STREAMS_PER_TURN:
            await settle()
        client.connection.close()
        assert node.hub.gauges()[:2] == (0, 9 * STREAMS_PER_TURN)
        await settle()
        assert node.is_empty()

    run(scenario)


def test_a_connection_that_ends_while_its_commands_rest_unsubscribes_at_once() -> None:
    async def scenario(node: Node) -> None:
        other, client = node.client("1", "s"), node.client("2", "s", limits=Limits(max_commands_per_s=1))
        other.enable("presence", "s", "alice")
        await pass_time(10)
        client.enable("presence", "s", "bob")
        for _ in range(10):
            client.command("unsubscribe", "t")
        await pass_time(1)
        assert len(client.seen.acks) == 2
        client.connection.close()
        await settle()
        assert other.seen.bodies == [["bob", "up"], ["bob", "down"]]
        assert len(client.seen.acks) == 2
        other.connection.close()
        assert node.is_empty()

    run(scenario)


def test_direct_messages_over_the_limit_of_bytes_are_refused() -> None:
    limits = Limits(max_direct_bytes_per_s=1000)

    async def scenario(node: Node) -> None:
        client, other = node.client("1", "s", limits=limits), node.client("2", "s", limits=limits)
        client.enable("direct", "s", "alice")
        other.enable("direct", "s", "bob")
        await settle()

        async def send(*sizes: int) -> list[str]:
            """In UTF-8, each character has two bytes."""
            client.seen.acks.clear()
            for size in sizes:
                client.command("direct", "s", "bob", "\u00e9" * (size // 2))
            await settle()
            return [result for _, _, result in client.seen.acks]

        # The one that exceeds the limit is sent, and counts in full.
        assert await send(500, 400, 600, 2) == ["ok", "ok", "ok", "rate_limited"]
        await pass_time(0.4)
        assert await send(2) == ["rate_limited"]
        await pass_time(0.2)
        assert await send(2, 200) == ["ok", "ok"]
        # Nothing else is limited by it, and nobody else.
        assert await send(2) == ["rate_limited"]
        client.command("subscribe", "t")
        other.command("direct", "s", "alice", "x" * 1000)
        await settle()
        assert client.seen.acks[-1][2] == other.seen.acks[-1][2] == "ok"
        # An allowance that stays unused for more than a second is not saved.
        await pass_time(1000)
        assert await send(1000, 2) == ["ok", "rate_limited"]
        assert [len(text.encode()) for _, text in other.seen.bodies] == [500, 400, 600, 2, 200, 1000]

    run(scenario)


def test_a_user_who_is_disconnected_while_a_mode_is_being_enabled_is_closed() -> None:
    async def scenario(node: Node, backend: SlowBackend) -> None:
        client = node.client("1", "s")
        await settle()
        backend.open()
        client.enable("presence", "s", "alice")
        await settle()
        node.hub.revocations.revoke_user(APP.key, "alice", node.hub.clock_ms())
        backend.open()
        await settle()
        assert client.seen.closed == (4003, "disconnected by the application")
        assert node.hub.revocations.is_ended(APP.key, "1")

    run_slow(scenario)
