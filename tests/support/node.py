"""Connections, a hub and a broker without a network, on a clock that only a test moves."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tambur.protocol.messages import encode_message
from tambur.protocol.names import Kind
from tambur.protocol.tokens import TokenSigner
from tambur.server import App, Limits
from tambur.server.broker import BrokerUnavailableError, Claim, Publication
from tambur.server.broker.memory import MemoryBackend
from tambur.server.config import KeptStreams
from tambur.server.connection import Connection
from tambur.server.extended_hub import ExtendedHub
from tambur.server.outbox import Batch
from tests.support.broker import eventually, nobody_asks

APP = App("key", "app", ("secret",), history=(KeptStreams("kept-*", messages=10),))
SIGNER = TokenSigner("key", "app", "secret")


parse = functools.lru_cache(json.loads)
"""The many subscribers of a room receive the same bytes."""


class Recorder:
    """A transport that keeps written bytes."""

    name = "recorder"

    def __init__(self) -> None:
        self.writes: list[list[Any]] = []
        self.acks: list[Any] = []
        self.everything: list[Any] = []
        self.closed: tuple[int, str] | None = None
        self.drained_count = 0

    @property
    def events(self) -> list[Any]:
        return [event for write in self.writes for event in write]

    @property
    def bodies(self) -> list[Any]:
        """The fourth element of each event: a message, or a user with ``"up"`` or ``"down"``."""
        return [event[3] for event in self.events]

    unsent_bytes = 0
    is_open = True
    written_at = 0.0
    can_extend = True

    def write(self, batch: Batch) -> None:
        events = [parse(event) for event in batch.events]
        self.writes.append(events)
        self.everything += events

    def write_ack(self, event: bytes) -> None:
        self.acks.append(json.loads(event))
        self.everything.append(json.loads(event))

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def drained(self) -> None:
        self.drained_count += 1


class LocalClient:
    """A connection without a socket, and its subscriber's view of it."""

    def __init__(self, hub: ExtendedHub, subscriber_id: str, limits: Limits | None = None) -> None:
        self.seen = Recorder()
        self.connection = Connection(subscriber_id, APP, hub, self.seen, limits or Limits())
        self.subscriber_id = subscriber_id
        self.handle = 0

    def send(self, *array: Any) -> None:
        self.connection.receive(json.dumps(array))

    def command(self, word: str, *arguments: Any) -> None:
        self.handle += 1
        self.send(word, self.handle, *arguments)

    def enable(self, mode: str, stream: str, user: str) -> None:
        token = getattr(SIGNER, mode)(stream, user, self.subscriber_id)
        self.command("set_mode", mode, stream, user, token)

    def enable_auth(self, stream: str) -> None:
        self.command("set_mode", "auth", stream, SIGNER.auth(stream, self.subscriber_id))


async def ask(client: LocalClient, word: str, *arguments: Any) -> Any:
    """Send a command and return the content of its ack."""
    client.handle += 1
    client.send(word, client.handle, *arguments)
    await settle()
    await eventually(lambda: client.seen.acks and client.seen.acks[-1][1] == client.handle)
    assert client.seen.acks[-1][:3] == ["ack", client.handle, "ok"]
    return client.seen.acks[-1][3]


def messages(client: LocalClient) -> list[Any]:
    """The messages that a client received, without heartbeats."""
    return [event[3] for event in client.seen.events if event[0] == "msg"]


class Node:
    """A hub over a backend."""

    def __init__(self, backend: MemoryBackend | None = None, *, coalesce_window_s: float = 0.0) -> None:
        self.backend = backend or MemoryBackend(max_claims=1_000_000)
        self.broker = self.backend.broker
        self.hub = ExtendedHub(self.backend, coalesce_window_s=coalesce_window_s)
        self.nonce = 0

    async def start(self) -> Node:
        await self.backend.start(self.hub.deliver, nobody_asks)
        return self

    def client(self, subscriber_id: str, *streams: str, limits: Limits | None = None) -> LocalClient:
        client = LocalClient(self.hub, subscriber_id, limits)
        for stream in streams:
            client.command("subscribe", stream)
        return client

    async def publish(
        self, stream: str, text: str, kind: Kind = Kind.PUBLIC, *, excluded: str | None = None
    ) -> None:
        self.nonce += 1
        claim = Claim(APP.key, 0, str(self.nonce).encode(), b"s")
        event = encode_message(kind, stream, text)
        publication = Publication(APP.key, kind, stream, event, excluded=excluded)
        await self.broker.publish(publication, claim, now=0, max_publishes_per_s=None)

    def is_empty(self) -> bool:
        return not self.hub._streams and not self.hub._private


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock only :func:`pass_time` moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__()

    def time(self) -> float:
        return self.now


async def settle() -> None:
    """Run every task until it waits for something that a test has not done yet."""
    for _ in range(100):
        await asyncio.sleep(0)


async def pass_time(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    loop.now += seconds
    await settle()


async def until(condition: Callable[[], bool]) -> None:
    """Run turns of the event loop until a condition holds, and no turn more."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition does not hold after 1,000 turns")


async def make_room(node: Node, members: int) -> list[LocalClient]:
    """Make subscribers of the stream ``s``, each present as its own user; forget what they received so far."""
    clients = [node.client(f"m{i}", "s") for i in range(members)]
    await until(lambda: all(client.seen.acks for client in clients))
    for i, client in enumerate(clients):
        client.enable("presence", "s", f"user {i}")
    await until(lambda: all(len(client.seen.acks) == 2 for client in clients))
    for _ in range(3):
        await pass_time(10)
    for client in clients:
        client.seen.writes.clear()
    return clients


def run(scenario: Callable[[Node], Awaitable[None]], node: Callable[[], Node] = Node) -> None:
    async def whole() -> None:
        await scenario(await node().start())

    loop = Loop()
    try:
        loop.run_until_complete(whole())
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        loop.close()


class SlowBackend(MemoryBackend):
    """A backend whose calls wait until a test opens or refuses them."""

    def __init__(self) -> None:
        super().__init__(max_claims=1000)
        self.gates: list[asyncio.Future[None]] = []
        for part, method in ((self.broker, "subscribe"), (self.presence, "join"), (self.broker, "send")):
            setattr(part, method, self._gated(getattr(part, method)))

    def _gated(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def wait_then_call(*arguments: Any) -> Any:
            gate = asyncio.get_running_loop().create_future()
            self.gates.append(gate)
            await gate
            return await method(*arguments)

        return wait_then_call

    def open(self) -> None:
        self.gates.pop(0).set_result(None)

    def refuse(self) -> None:
        self.gates.pop(0).set_exception(BrokerUnavailableError("away", retry_after_s=1))


def run_slow(scenario: Callable[[Node, SlowBackend], Awaitable[None]]) -> None:
    backend = SlowBackend()

    async def whole(node: Node) -> None:
        await scenario(node, backend)

    run(whole, lambda: Node(backend))
