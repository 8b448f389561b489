"""A node without a network: a hub over a broker, and its clients."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tambur.protocol.messages import encode_message
from tambur.protocol.names import Kind
from tambur.protocol.tokens import TokenSigner
from tambur.server import App, Limits
from tambur.server.broker import Claim, Publication
from tambur.server.broker.memory import MemoryBroker
from tambur.server.connection import Connection
from tambur.server.hub import Batch, Hub

from .broker import nobody_asks

APP = App("key", "app", ("secret",))
SIGNER = TokenSigner("key", "app", "secret")


class Recorder:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.writes: list[list[Any]] = []
        self.acks: list[Any] = []
        self.everything: list[Any] = []
        self.closed: tuple[int, str] | None = None
        self.drained_count = 0

    @property
    def events(self) -> list[Any]:
        return [event for write in self.writes for event in write]

    unsent_bytes = 0

    def write(self, batch: Batch) -> None:
        events = [json.loads(event) for event in batch.events]
        self.writes.append(events)
        self.everything += events

    def write_ack(self, event: bytes) -> None:
        self.acks.append(json.loads(event))
        self.everything.append(json.loads(event))

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def drained(self) -> None:
        self.drained_count += 1


class Client:
    """A connection, and what its subscriber would send and see."""

    def __init__(self, hub: Hub, subscriber_id: str) -> None:
        self.seen = Recorder()
        self.connection = Connection(subscriber_id, APP, hub, self.seen, Limits())
        self.subscriber_id = subscriber_id
        self.handle = 0

    def send(self, *array: Any) -> None:
        self.connection.receive(json.dumps(array))

    def command(self, word: str, *arguments: str) -> None:
        self.handle += 1
        self.send(word, self.handle, *arguments)

    def enable(self, mode: str, stream: str, user: str) -> None:
        token = getattr(SIGNER, mode)(stream, user, self.subscriber_id)
        self.command("set_mode", mode, stream, user, token)

    def enable_auth(self, stream: str) -> None:
        self.command("set_mode", "auth", stream, SIGNER.auth(stream, self.subscriber_id))


class Node:
    """A hub over a broker."""

    def __init__(self, broker: MemoryBroker | None = None, *, join_window_s: float = 0.0) -> None:
        self.broker = broker or MemoryBroker(max_claims=1_000_000)
        self.hub = Hub(self.broker, join_window_s=join_window_s)
        self.nonce = 0

    async def start(self) -> Node:
        await self.broker.start(self.hub.deliver, nobody_asks)
        return self

    def client(self, subscriber_id: str, *streams: str) -> Client:
        client = Client(self.hub, subscriber_id)
        for stream in streams:
            client.command("subscribe", stream)
        return client

    async def publish(self, stream: str, text: str, kind: Kind = Kind.PUBLIC) -> None:
        self.nonce += 1
        claim = Claim(APP.key, 0, str(self.nonce).encode(), b"s")
        publication = Publication(APP.key, kind, stream, encode_message(kind, stream, text))
        await self.broker.publish(publication, claim, now=0, max_publishes_per_s=None)

    def is_empty(self) -> bool:
        return not self.hub._streams and not self.hub._private


async def settle() -> None:
    """Let every task run until it waits for something that a test has not done yet."""
    for _ in range(20):
        await asyncio.sleep(0)
