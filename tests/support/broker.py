"""Publications of tests, and a backend that keeps its deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tambur.protocol.names import Kind
from tambur.server.broker import AppKey, Backend, Claim, Outcome, Publication, Published

APP = AppKey("key", "app")
OTHER_APP = AppKey("other", "app")
NOW = 1_353_628_800
DELIVERED = Published(Outcome.DELIVERED)
REPLAYED = Published(Outcome.REPLAYED)
NONCE_REUSED = Published(Outcome.NONCE_REUSED)


def public(stream: str, text: str, app: AppKey = APP) -> Publication:
    return Publication(app, Kind.PUBLIC, stream, text.encode())


def claim(nonce: str, signature: str = "s", *, timestamp: int = NOW, app: AppKey = APP) -> Claim:
    return Claim(app, timestamp, nonce.encode(), signature.encode())


async def nobody_asks(question: bytes) -> bytes:
    """The backend of a broker whose node answers no calls."""
    raise AssertionError(question)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; it may depend on other processes."""
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition does not hold after a minute")


class RecordingBackend:
    """A backend, and what it delivered.

    Attributes:
        nodes: how many nodes listened to the last publish.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.broker, self.presence, self.calls = backend.broker, backend.presence, backend.calls
        self.delivered: list[Publication] = []
        self.joins = 0
        self.nodes: int | None = None

    def deliver(self, publication: Publication) -> None:
        # Places differ from run to run.
        self.delivered.append(publication._replace(place=0))

    async def publish(
        self, publication: Publication, by: Claim, *, now: int = NOW, rate: float | None = None
    ) -> Published:
        published = await self.broker.publish(publication, by, now=now, max_publishes_per_s=rate)
        self.nodes = published.nodes
        return published._replace(nodes=0, place=0)

    async def publish_batch(
        self, publications: list[Publication], by: Claim, *, rate: float | None = None
    ) -> Outcome:
        published = await self.broker.publish_batch(publications, by, now=NOW, max_publishes_per_s=rate)
        return published.outcome

    async def settle(self) -> None:
        """Wait until all that has been done so far has been delivered: the answer to a join comes after it."""
        self.joins += 1
        await self.presence.join(APP, "settled", "user", str(self.joins))

    def presence_events(self) -> list[tuple[str, bytes]]:
        return [(p.user_id or "", p.event) for p in self.delivered if p.kind is Kind.PRESENCE]
