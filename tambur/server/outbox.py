"""The messages to a subscriber, until its transport takes them."""

from __future__ import annotations

from typing import Protocol


class Batch:
    """Events that leave together, in this order, to one outbox or to thousands.

    Attributes:
        events: the JSON text of each event.
        encoded: the events as a transport encodes them, once for all its outboxes.
        encoded_at: when that was, by the event loop's clock. It is read once, instead of for each outbox.
    """

    __slots__ = ("encoded", "encoded_at", "events")

    def __init__(self, events: tuple[bytes, ...]) -> None:
        self.events = events
        self.encoded: bytes | None = None
        self.encoded_at = 0.0


class Outbox(Protocol):
    """Where the events for one subscriber go."""

    @property
    def unsent_bytes(self) -> int:
        """How many bytes wait for the subscriber to read them."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether written events still reach the subscriber, as far as is known."""
        ...

    @property
    def written_at(self) -> float:
        """When something was written last, or shortly before, by the event loop's clock."""
        ...

    def write(self, batch: Batch) -> None:
        """Send a batch, or keep it for sending.

        It neither waits nor raises nor calls back into the hub. An outbox that cannot take more
        has its subscriber dropped later.
        """
        ...

    def close(self, code: int, reason: str) -> None:
        """End the connection, with a WebSocket close code where there is one. It neither waits nor raises."""
        ...


class Transport(Outbox, Protocol):
    """How a connection is carried."""

    @property
    def name(self) -> str:
        """For the log."""
        ...

    def write_ack(self, event: bytes) -> None:
        """Send the ack of the oldest command that has none yet."""
        ...

    @property
    def can_extend(self) -> bool:
        """Whether this transport accepts ``hello``."""
        ...

    def drained(self) -> None:
        """Read on: all queued commands have been answered."""
        ...
