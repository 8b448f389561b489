"""The interface to a broker's memory, from which clients continue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from . import AppKey, Publication


class Recovery(Protocol):
    """The memory of a broker, from which clients continue after a lost connection.

    docs/explanation/recovery.md explains the terms. A *log* has the name of a stream, or is that of
    a subscriber ID, ``private:ID``.
    """

    @property
    def epoch(self) -> bytes:
        """Names the history that all places belong to, 1 to 64 bytes."""

    @property
    def realm(self) -> bytes:
        """Where session keys are valid; see :class:`~tambur.protocol.session_keys.SessionKeys`."""

    def reached(self, app: AppKey, log: str) -> int:
        """The place up to which all publications of a log were delivered to this node."""

    async def load(self, app: AppKey, log: str, place: int | None, user_id: str | None = None) -> None:
        """Load the kept publications of a log after a place. The stream of the log must be subscribed.

        Parameters:
            place: ``None`` for all kept publications.
            user_id: whose direct messages on the stream are wanted, too; ``None`` for nobody's. They must be
                needed, see :meth:`need`.

        Raises:
            BrokerUnavailableError: it is not at hand.
        """

    def since(
        self, app: AppKey, log: str, place: int, user_id: str | None = None
    ) -> Sequence[Publication] | None:
        """The publications of a log after a place that were delivered to this node, oldest first.

        Parameters:
            user_id: whose direct messages on the stream are wanted, too; ``None`` for nobody's.

        Returns:
            ``None`` if something that came after the place may be missing.
        """

    def newest_first(self, app: AppKey, stream: str) -> Iterator[Publication]:
        """The kept messages of a stream without direct ones, from the newest to the oldest."""

    async def count_kept(self, app: AppKey, streams: Sequence[str]) -> Sequence[int]:
        """How many messages of each of some streams are kept, without direct ones.

        Raises:
            BrokerUnavailableError: it is not known.
        """

    def need(self, app: AppKey, log: str, user_id: str | None = None) -> None:
        """Remember the floor of a log while a connection reads it.

        Parameters:
            log: of a subscriber, or a stream with ``user_id``. :meth:`Broker.subscribe` needs only a stream.
            user_id: whose direct messages on the stream are read.
        """

    def release(self, app: AppKey, log: str, user_id: str | None = None) -> None:
        """Undo :meth:`need`."""

    async def resume(self, app: AppKey, subscriber_id: str, number: int, place: int | None = None) -> int:
        """Continue a session on this node, and need the log of its private messages; see :meth:`need`.

        Other nodes have closed its connection when this returns, or do so as soon as they are reached.

        Parameters:
            number: of the key that the client has.
            place: after which :meth:`load` will be asked for the private messages; ``None`` if it will not.

        Returns:
            How often the session was resumed; 0 if it was ended, or a later key was used. Then the log is not
            needed.

        Raises:
            BrokerUnavailableError: the session can be continued later.
        """
