"""Webhooks while nodes and the receiver are killed and restarted in turn."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tambur.protocol.tokens import TokenSigner
from tambur.webhooks import Event

from ..support import endpoint
from ..support.app import API_KEY, APP_ID, SECRET
from ..support.endpoint import Endpoint
from ..support.extended import Client
from ..support.node_process import NodeProcess
from ..support.redis_server import RedisServer

TOKENS = TokenSigner(API_KEY, APP_ID, SECRET)
ROUNDS = int(os.environ.get("TAMBUR_WEBHOOK_ROUNDS", "4"))
JOINS = 12
"""Joins of a round; half as many users leave in it."""

LIMITS = "[limits]\npresence_linger_s = {}\n"
WEBHOOK = '[[apps.webhooks]]\nurl = "{}"\nsecret = "{}"\n'


@contextlib.contextmanager
def running(
    directory: Path,
    redis: RedisServer,
    hook: Endpoint,
    count: int,
    *,
    linger_s: float,
    node_timeout_s: float = 30,
) -> Iterator[list[NodeProcess]]:
    """Nodes with one endpoint, over an empty Redis."""
    redis.cli("FLUSHALL")
    more = WEBHOOK.format(hook.url, endpoint.SECRET) + LIMITS.format(linger_s)
    nodes: list[NodeProcess] = []
    try:
        for number in range(count):
            (directory / str(number)).mkdir()
            nodes.append(
                NodeProcess(directory / str(number), redis.url(), node_timeout_s=node_timeout_s, more=more)
            )
        yield nodes
        for node in nodes:
            node.end(signal.SIGTERM)
            assert node.process.returncode == 0
    finally:
        for node in nodes:
            if node.process.returncode is None:
                node.end(signal.SIGKILL)


def enter(node: NodeProcess, stream: str, user: str) -> Client:
    """A new extended connection, present as a user."""
    client = Client(node)
    client.ask("subscribe", stream)
    token = TOKENS.presence(stream, user, client.subscriber_id)
    assert client.ask("set_mode", "presence", stream, user, token) == "ok"
    return client


def leave(client: Client, code: int) -> None:
    client.protocol.send_close(code)
    client.flush()
    assert client.close_code() == code
    client.connection.close()


def joined(events: list[Event]) -> set[str]:
    return {event.user_id for event in events if event.type == "user.joined"}


def test_the_receivers_picture_is_right_after_faults(tmp_path: Path, redis_server: RedisServer) -> None:
    chance = random.Random(7)
    here: dict[tuple[str, str], tuple[int, Client]] = {}
    joins = 0
    with (
        Endpoint() as hook,
        running(tmp_path, redis_server, hook, 3, linger_s=1, node_timeout_s=2) as nodes,
    ):
        for round_number in range(ROUNDS):
            for _ in range(JOINS):
                joins += 1
                number = chance.randrange(3)
                place = f"room {chance.randrange(3)}", f"user {joins}"
                here[place] = number, enter(nodes[number], *place)
            for place in chance.sample(sorted(here), JOINS // 2):
                leave(here.pop(place)[1], chance.choice((1000, 4000)))
            fault = round_number % 4
            if fault == 0:
                hook.stop()
            elif fault == 2:
                hook.start()
            victim = round_number % 3
            nodes[victim].end(signal.SIGKILL if fault % 2 else signal.SIGTERM)
            for place, (number, client) in list(here.items()):
                if number == victim:
                    client.connection.close()
                    del here[place]
                    if chance.random() < 0.5:  # some return
                        other = (victim + 1) % 3
                        here[place] = other, enter(nodes[other], *place)
            nodes[victim].start()
        hook.start()
        hook.wait(lambda _: hook.picture() == set(here))
        for _, client in here.values():
            leave(client, 1000)
        # Of a user who was there for a moment, no event may have come yet.
        events = hook.wait(lambda events: len(joined(events)) == joins and not hook.picture())
    same: dict[str, set[object]] = defaultdict(set)
    for event in events:
        same[event.id].add(event)
    assert all(len(found) == 1 for found in same.values())
    assert len({event.version for event in events}) == len(same)


def test_a_return_within_the_linger_is_no_event(tmp_path: Path, redis_server: RedisServer) -> None:
    with Endpoint() as hook, running(tmp_path, redis_server, hook, 2, linger_s=1000) as nodes:
        alice = enter(nodes[1], "room", "alice")
        bob = enter(nodes[0], "room", "bob")
        assert alice.json()[3] == ["bob", "up"]
        leave(bob, 4000)
        bob = enter(nodes[0], "room", "bob")
        for number in (0, 1):  # the restarted node, and another
            nodes[0].end(signal.SIGTERM)
            bob.connection.close()
            if number == 0:
                nodes[0].start()
            bob = enter(nodes[number], "room", "bob")
        nodes[0].start()
        carol = enter(nodes[0], "room", "carol")
        assert alice.json()[3] == ["carol", "up"]
        leave(carol, 1000)
        assert alice.json()[3] == ["carol", "down"]
        events = hook.wait(
            lambda events: len(joined(events)) == 3 and any(event.type == "user.left" for event in events)
        )
        assert [event.user_id for event in events if event.type == "user.left"] == ["carol"]
        assert sorted(joined(events)) == [
            "alice",
            "bob",
            "carol",
        ]
        for client in (alice, bob):
            client.connection.close()
