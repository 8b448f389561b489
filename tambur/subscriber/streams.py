"""The streams of a subscriber, with the data that another connection needs to continue them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..protocol.tokens import Mode
from .messages import Message, Subscription


class EnabledMode(NamedTuple):
    """An enabled mode, with the data to enable it again."""

    user_id: str | None
    token: str | Callable[..., str]


class Stream:
    """A subscribed stream.

    Attributes:
        modes: those that are enabled.
        position: of the last message; ``None`` if it is not known.
    """

    def __init__(self) -> None:
        self.modes: dict[Mode, EnabledMode] = {}
        self.position: str | None = None
        self._present: set[str] = set()
        # The users that the server lists while the stream is continued; None at other times.
        self._listed: set[str] | None = None

    def take(self, message: Message) -> bool:
        """Note a message, and say whether the application receives it."""
        self.position = message.position or self.position
        if message.kind != Mode.PRESENCE.value or message.user_id is None:
            return True
        present = self._present if self._listed is None else self._listed
        (present.add if message.text == "up" else present.discard)(message.user_id)
        return self._listed is None

    def forget_present(self) -> None:
        """The stream's presence mode is disabled."""
        self._present.clear()

    def begin_to_continue(self, name: str, subscriber_id: str, *, resumed: bool) -> dict[str, object]:
        """Make the options that continue the stream on another connection.

        Parameters:
            name: that of the stream.
            subscriber_id: that of the connection.
            resumed: whether the connection continues the session. Otherwise tokens that were given as text
                are void, and their modes are dropped.
        """
        self.drop_void_modes(resumed=resumed)
        options: dict[str, object] = {} if self.position is None else {"since": self.position}
        for mode, (user_id, token) in self.modes.items():
            users = () if user_id is None else (user_id,)
            signed = token if isinstance(token, str) else token(name, *users, subscriber_id)
            options[mode.value] = [*users, signed] if users else signed
        if Mode.PRESENCE in self.modes:
            self._listed = set()
        return options

    def end_to_continue(self, name: str) -> list[Message]:
        """Return who left and who joined meanwhile, as presence messages."""
        listed, self._listed = self._listed, None
        if listed is None:
            return []
        before, self._present = self._present, listed
        downs = [Message(name, Mode.PRESENCE.value, "down", user_id) for user_id in sorted(before - listed)]
        ups = [Message(name, Mode.PRESENCE.value, "up", user_id) for user_id in sorted(listed - before)]
        return downs + ups

    def stop_to_continue(self) -> None:
        """The connection was lost before the stream was continued."""
        self._listed = None

    def drop_void_modes(self, *, resumed: bool) -> None:
        """Forget the modes whose tokens are void."""
        if not resumed:
            self.modes = {
                mode: given for mode, given in self.modes.items() if not isinstance(given.token, str)
            }
        if Mode.PRESENCE not in self.modes:
            self._present.clear()


def read_subscription(content: Mapping[str, Any], *, complete: bool) -> Subscription:
    """Read the content of the ack of a subscribe.

    Parameters:
        content: nothing on a connection that is not extended.
        complete: what to say on such a connection.
    """
    match content:
        case {"position": str(position), "complete": bool(complete), "replayed": int(replayed)}:
            return Subscription(position, complete, replayed)
    return Subscription(None, complete, 0)
