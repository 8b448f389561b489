"""Messages of a subscriber, and the answer to a subscribe."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Self


class _Content(NamedTuple):
    stream: str
    kind: str
    text: str
    user_id: str | None = None


class Message(_Content):
    """A message that a subscriber received.

    Two messages with the same stream, kind, text and user are equal, whatever their positions.

    Attributes:
        stream: its stream; ``"private"`` for a private message.
        kind: ``"public"``, ``"auth"``, ``"private"``, ``"presence"`` or ``"direct"``.
        text: the published or sent text; for presence, ``"up"`` or ``"down"``.
        user_id: for presence, the user who joined or left; for a direct message, its sender; otherwise
            ``None``.
        position: where :meth:`Subscriber.subscribe` can continue after this message; ``None`` for presence,
            and from a server that has no extended connections (section 7 of the protocol).
    """

    position: str | None

    def __new__(
        cls, stream: str, kind: str, text: str, user_id: str | None = None, position: str | None = None
    ) -> Self:
        message = super().__new__(cls, stream, kind, text, user_id)
        message.position = position
        return message


class Subscription(NamedTuple):
    """The answer to a subscribe.

    Attributes:
        position: where live messages begin; ``None`` if the server has no extended connections.
        complete: whether everything after ``since`` was replayed. If not, load the state of the stream
            anew: messages may be missing.
        replayed: how many messages were replayed; they are the next that :meth:`Subscriber.receive` returns.
    """

    position: str | None
    complete: bool
    replayed: int
