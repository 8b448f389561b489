"""Users of a lost connection stay present for a while: section 7 of the protocol."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tambur.protocol.tokens import TokenSigner
from tambur.server import Config, Limits, in_background
from tambur.server.broker.memory import MemoryBackend

from ..support.app import API_KEY, APP, APP_ID, SECRET
from ..support.extended import Client
from ..support.node import SIGNER, LocalClient, Node, pass_time, run, settle

UP, DOWN = ["bob", "up"], ["bob", "down"]
TOKENS = TokenSigner(API_KEY, APP_ID, SECRET)
LINGER_S = Limits().presence_linger_s


async def extended(node: Node, user: str = "bob", *, limits: Limits | None = None) -> LocalClient:
    client = node.client(str(uuid.uuid4()), limits=limits)
    client.handle += 1
    client.send("hello", client.handle, {})
    client.command("subscribe", "s")
    client.enable("presence", "s", user)
    await settle()
    assert [ack[2] for ack in client.seen.acks] == ["ok"] * 3
    return client


def run_with_alice(
    scenario: Callable[[Node, Callable[[], Any]], Awaitable[None]], node: Callable[[], Node] = Node
) -> None:
    """Run a scenario in which Alice is present; it gets the events that she received."""

    async def whole(node: Node) -> None:
        alice = node.client("alice", "s")
        alice.enable("presence", "s", "alice")
        await settle()
        await scenario(node, lambda: alice.seen.bodies)

    run(whole, node)


@pytest.mark.parametrize("code", [None, 1001, 1002, 1006, 1012, 4000, 4008, 4009])
def test_a_lost_user_leaves_after_the_linger(code: int | None) -> None:
    async def scenario(node: Node, received: Callable[[], Any]) -> None:
        bob = await extended(node)
        bob.connection.close(code)
        await pass_time(LINGER_S - 0.1)
        assert received() == [UP]
        await pass_time(0.2)
        assert received() == [UP, DOWN]

    run_with_alice(scenario)


@pytest.mark.parametrize("code", [1000, 1005, 4003])
def test_an_end_on_purpose_is_announced_immediately(code: int) -> None:
    async def scenario(node: Node, received: Callable[[], Any]) -> None:
        bob = await extended(node)
        bob.connection.close(code)
        await settle()
        assert received() == [UP, DOWN]

    run_with_alice(scenario)


def test_a_plain_connection_does_not_linger() -> None:
    async def scenario(node: Node, received: Callable[[], Any]) -> None:
        bob = node.client("1", "s")
        bob.enable("presence", "s", "bob")
        await settle()
        bob.connection.close()
        await settle()
        assert received() == [UP, DOWN]

    run_with_alice(scenario)


@pytest.mark.parametrize("command", [("unset_mode", "presence", "s"), ("unsubscribe", "s")])
def test_a_command_of_an_extended_connection_is_announced_immediately(command: tuple[str, ...]) -> None:
    async def scenario(node: Node, received: Callable[[], Any]) -> None:
        bob = await extended(node)
        bob.command(*command)
        await settle()
        assert received() == [UP, DOWN]

    run_with_alice(scenario)


@pytest.mark.parametrize("is_extended", [True, False])
def test_a_return_causes_no_event(is_extended: bool) -> None:
    async def scenario(node: Node, received: Callable[[], Any]) -> None:
        bob = await extended(node)
        bob.connection.close()
        await pass_time(LINGER_S - 0.1)
        if is_extended:
            back = await extended(node)
        else:
            back = node.client("2", "s")
            back.enable("presence", "s", "bob")
            await settle()
        await pass_time(10 * LINGER_S)
        assert received() == [UP]
        assert ["msg", "s", "presence", ["alice", "up"]] in back.seen.events
        assert not any(event[0] == "msg" for event in back.seen.events[1:])
        # The new connection has taken the place of the lost one.
        back.command("unset_mode", "presence", "s")
        await settle()
        assert received() == [UP, DOWN]

    run_with_alice(scenario)


def test_a_resumed_session_that_takes_over_causes_no_event() -> None:
    async def scenario(node: Node, received: Callable[[], Any]) -> None:
        old = await extended(node)
        back = node.client(str(uuid.uuid4()))
        back.handle += 1
        back.send("hello", back.handle, {"session": old.seen.acks[0][3]["session"]})
        await settle()
        assert old.seen.closed is not None
        old.connection.close(old.seen.closed[0])
        back.handle += 1
        token = SIGNER.presence("s", "bob", old.subscriber_id)
        back.send("subscribe", back.handle, "s", {"presence": ["bob", token]})
        await pass_time(2 * LINGER_S)
        assert back.seen.acks[-1][2] == "ok"
        assert received() == [UP]
        back.connection.close(1000)
        await settle()
        assert received() == [UP, DOWN]

    run_with_alice(scenario)


def test_of_two_lost_connections_each_has_its_time() -> None:
    async def scenario(node: Node, received: Callable[[], Any]) -> None:
        first, second = await extended(node), await extended(node)
        first.connection.close()
        await pass_time(LINGER_S / 2)
        second.connection.close()
        await pass_time(LINGER_S / 2 + 0.1)
        assert received() == [UP]
        await pass_time(LINGER_S / 2)
        assert received() == [UP, DOWN]

    run_with_alice(scenario)


def test_a_newcomer_sees_a_lingering_user_and_its_end() -> None:
    async def scenario(node: Node) -> None:
        bob = await extended(node)
        bob.connection.close()
        await settle()
        newcomer = node.client("2", "s")
        newcomer.enable("presence", "s", "alice")
        await settle()
        assert newcomer.seen.bodies == [UP]
        await pass_time(LINGER_S + 0.1)
        assert newcomer.seen.bodies == [UP, DOWN]
        newcomer.connection.close()
        await settle()
        assert node.is_empty()
        assert not node.backend.presence._present

    run(scenario)


def test_without_a_linger_the_loss_is_announced_immediately() -> None:
    async def scenario(node: Node, received: Callable[[], Any]) -> None:
        bob = await extended(node, limits=Limits(presence_linger_s=0))
        bob.connection.close()
        await settle()
        assert received() == [UP, DOWN]

    run_with_alice(scenario)


def test_a_websocket_says_whether_it_is_lost(stream: str) -> None:
    config = Config(apps=(APP,), port=0, limits=Limits(presence_linger_s=1000))
    with in_background(config) as server, Client(server) as alice:

        def enter(client: Client, user: str) -> None:
            client.ask("subscribe", stream)
            token = TOKENS.presence(stream, user, client.subscriber_id)
            assert client.ask("set_mode", "presence", stream, user, token) == "ok"

        enter(alice, "alice")
        expected = []
        for code in (None, 4000, 1000, 1001):
            with Client(server) as bob:
                enter(bob, f"bob {code}")
                bob.protocol.send_close(code)
                bob.flush()
                assert bob.close_code() == (1005 if code is None else code)
            expected += [[f"bob {code}", "up"]] + [[f"bob {code}", "down"]] * (code in (None, 1000))
        assert [alice.json()[3] for _ in expected] == expected


def test_more_lingering_users_than_the_limit_leave_immediately() -> None:
    def make() -> Node:
        return Node(MemoryBackend(max_claims=1, limits=Limits(max_lingering_users=1)))

    async def scenario(node: Node, received: Callable[[], Any]) -> None:
        carol = await extended(node, "carol")
        bob = await extended(node)
        carol.connection.close()
        bob.connection.close()
        await settle()
        assert received() == [["carol", "up"], UP, DOWN]
        await pass_time(LINGER_S + 0.1)
        assert received() == [["carol", "up"], UP, DOWN, ["carol", "down"]]

    run_with_alice(scenario, make)
