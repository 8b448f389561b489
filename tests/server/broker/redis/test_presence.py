"""Presence over Redis: after any events in any order, every subscriber knows the present users."""

from __future__ import annotations

import asyncio
import random

import pytest

from tambur.protocol.tokens import Mode
from tambur.server.broker import BrokerUnavailableError
from tambur.server.broker.factory import from_url
from tambur.server.broker.redis.backend import RedisBackend
from tambur.server.extended_hub import ExtendedHub as Hub
from tests.support.broker import nobody_asks
from tests.support.node import APP, LocalClient
from tests.support.node import settle as turn
from tests.support.redis_server import RedisServer

USERS = ["alice", "bob", "carol"]


class Tracker(LocalClient):
    """A client that knows which ack answers which command."""

    def __init__(self, hub: Hub, subscriber_id: str) -> None:
        super().__init__(hub, subscriber_id)
        self.sent: list[str] = []

    def command(self, word: str, *arguments: str) -> None:
        self.sent.append(word)
        super().command(word, *arguments)

    @property
    def user_id(self) -> str | None:
        subscriptions = self.connection._subscriptions
        return subscriptions.modes("s").get(Mode.PRESENCE) if "s" in subscriptions else None

    def picture(self) -> set[str]:
        """The users reported as present since it last enabled presence."""
        picture: set[str] = set()
        for event in self.seen.everything:
            match event:
                case ["msg", "s", "presence", [user_id, what]]:
                    assert (user_id in picture) == (what == "down"), f"{user_id} is {what} twice"
                    picture ^= {user_id}
                case ["ack", handle, "ok"] if self.sent[handle - 1] in ("unset_mode", "unsubscribe"):
                    picture = set()
        return picture


class Cluster:
    """Hubs with their clients, each over its own backend."""

    def __init__(self, redis: RedisServer, count: int) -> None:
        self.backends: list[RedisBackend] = []
        for _ in range(count):
            backend = from_url(redis.url(), max_claims=1, node_timeout_s=30)
            assert isinstance(backend, RedisBackend)
            self.backends.append(backend)
        self.hubs = [Hub(backend, coalesce_window_s=0) for backend in self.backends]
        self.clients: list[Tracker] = []
        self.count = 0
        self.failures = 0

    async def start(self) -> None:
        for backend, hub in zip(self.backends, self.hubs, strict=True):
            await backend.start(hub.deliver, nobody_asks)

    async def settle(self) -> None:
        """Wait until every command is answered and its effects have arrived everywhere."""
        while workers := [c.connection._worker for c in self.clients if c.connection._worker is not None]:
            await asyncio.wait(workers)
        for _ in range(2):
            for backend in self.backends:
                await self.join(backend)
        await turn()

    async def join(self, backend: RedisBackend) -> None:
        """Have a broker answer, which then has delivered all that came before."""
        self.count += 1
        while True:
            try:
                await backend.presence.join(APP.key, "settled", "user", str(self.count))
            except BrokerUnavailableError:
                await asyncio.sleep(0.01)
            else:
                return

    def act(self, chance: random.Random) -> None:
        """Something that a client, or the network, may do at any time."""
        deeds = {"connect": 3, "enable": 6, "disable": 2, "resubscribe": 2, "close": 1, "fail": 1}
        (deed,) = chance.choices(list(deeds), list(deeds.values()))
        number = chance.randrange(len(self.hubs))
        if deed == "fail":
            link = self.backends[number]._shard.link
            if link is not None:
                link.fail(ConnectionResetError("test"))
                self.failures += 1
        elif deed == "connect" or not self.clients:
            if len(self.clients) < 9:
                self.count += 1
                self.clients.append(Tracker(self.hubs[number], str(self.count)))
                self.clients[-1].command("subscribe", "s")
        else:
            client = chance.choice(self.clients)
            if deed == "enable":
                client.enable("presence", "s", chance.choice(USERS))
            elif deed == "disable":
                client.command("unset_mode", "presence", "s")
            elif deed == "resubscribe":
                client.command("unsubscribe", "s")
                client.command("subscribe", "s")
            else:
                client.connection.close()
                self.clients.remove(client)


@pytest.mark.parametrize("seed", range(3))
def test_everybody_has_the_right_picture_in_the_end(redis_server: RedisServer, seed: int) -> None:
    redis_server.cli("FLUSHDB")
    chance = random.Random(seed)

    async def whole() -> None:
        cluster = Cluster(redis_server, 3)
        await cluster.start()
        pictures = 0
        for _ in range(25):
            for _ in range(chance.randrange(1, 8)):
                cluster.act(chance)
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.choice([0, 0, 0.001]))
            await cluster.settle()
            there = {client.user_id for client in cluster.clients} - {None}
            for client in cluster.clients:
                expected = there - {client.user_id} if client.user_id is not None else set()
                assert client.picture() == expected
                pictures += bool(expected)
        assert pictures
        assert cluster.failures
        for backend in cluster.backends:
            await backend.close()

    asyncio.run(whole())
    assert "present" not in redis_server.cli("KEYS", "*:s")
