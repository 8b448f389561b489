"""One connection of a subscriber: its greeting, commands and their acks, and messages in their order."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..credentials import host_and_port
from ..errors import CommandRefusedError, SubscriberClosedError, SubscriberTimeoutError
from ..printable import one_line
from ..protocol.names import SUBSCRIBER_ID
from .messages import Message
from .websocket import WebSocket

MAX_SHOWN_CODE_POINTS = 200
"""How much of a server's answer to a command an error shows."""

SILENT_HEARTBEATS = 1.5
"""After how many times ``heartbeat_s`` without a frame an extended connection counts as lost."""

NORMAL = 1000
"""The close code of a client that does not return."""

WILL_RETURN = 4000
"""The close code of a client that will continue its session. To the server, the connection is lost."""

logger = logging.getLogger("tambur")


class Hello(NamedTuple):
    """The answer to a ``hello``.

    Attributes:
        resumed: whether the session of a lost connection continues.
        position: where live private messages begin.
        complete: whether every private message after the position that was asked for has been received.
    """

    resumed: bool
    position: str
    complete: bool


class Connection:
    """A connection to a server. :meth:`greet` reads the server's first frame.

    Parameters:
        url: the server's address, with ``ws`` or ``wss``.
        timeout_s: how long connecting may take, in seconds.

    Attributes:
        subscriber_id: the UUID that the server gave to this connection.
        session_key: with which another connection can continue the session; ``None`` without a session.
        messages: those that arrived and were not taken out yet, oldest first.
        is_extended: whether a ``hello`` was answered with ``"ok"``.
        may_extend: whether a ``hello`` can still be sent; not after another command.

    Raises:
        SubscriberClosedError: if the server cannot be reached or refuses. Once the connection is lost, the
            methods raise it, too.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._server = host_and_port(url)
        self._socket = WebSocket(url, timeout_s)
        self._handle = 0
        self._acks: dict[int, tuple[str, Mapping[str, Any]]] = {}
        self._max_silence_s: float | None = None
        self._is_silent = False
        self.subscriber_id = ""
        self.session_key: str | None = None
        self.messages: deque[Message] = deque()
        self.may_extend = True

    @property
    def is_extended(self) -> bool:
        return self._max_silence_s is not None

    def greet(self, timeout_s: float) -> None:
        """Read the subscriber ID.

        Raises:
            SubscriberClosedError: if the first frame is not that of a Tambur server.
        """
        try:
            greeting = self._socket.receive(timeout_s)
        except (TimeoutError, SubscriberClosedError) as error:
            raise SubscriberClosedError(f"{self._server} sent no subscriber ID") from error
        if not isinstance(greeting, str) or not greeting.startswith("id:"):
            raise SubscriberClosedError(f"{self._server} is not a Tambur server: it sent no subscriber ID")
        subscriber_id = greeting.removeprefix("id:")
        # Applications sign tokens for it. Any other form could make one token valid for another stream.
        if SUBSCRIBER_ID.fullmatch(subscriber_id) is None:
            raise SubscriberClosedError(
                f"{self._server} sent an invalid subscriber ID: it must be a UUID, not {subscriber_id!r:.100}"
            )
        self.subscriber_id = subscriber_id

    def hello(self, options: Mapping[str, str], timeout_s: float) -> Hello:
        """Extend the connection.

        Parameters:
            options: the session to continue, and the position of the last private message.
            timeout_s: as for :meth:`command`.

        Raises:
            CommandRefusedError: the connection is not extended.
        """
        match self.command("hello", options, timeout_s=timeout_s):
            case {
                "id": str(subscriber_id),
                "session": str(key),
                "resumed": bool(resumed),
                "position": str(position),
                "complete": bool(complete),
                "heartbeat_s": int() | float() as heartbeat_s,
            } if SUBSCRIBER_ID.fullmatch(subscriber_id) and heartbeat_s > 0:
                self.subscriber_id = subscriber_id
                self.session_key = key
                self._max_silence_s = SILENT_HEARTBEATS * heartbeat_s
                return Hello(resumed, position, complete)
        raise SubscriberClosedError(f"{self._server} sent an invalid answer to 'hello'")

    def command(self, word: str, *arguments: object, timeout_s: float) -> Mapping[str, Any]:
        """Send a command, and read until its ack.

        Parameters:
            timeout_s: how long the ack may take, in seconds, counted from the last message before it.

        Returns:
            The content of the ack; nothing on a connection that is not extended.

        Raises:
            CommandRefusedError: if the server refuses the command.
            SubscriberTimeoutError: if the ack does not arrive in time.
        """
        self._handle += 1
        self.may_extend = self.may_extend and word == "hello"
        self._socket.send(json.dumps([word, self._handle, *arguments]))
        late = f"{self._server} did not answer {word!r} within {timeout_s:g} s"
        while self._handle not in self._acks and 0 not in self._acks:
            self.read(time.monotonic() + timeout_s, late)
        result, content = self._acks.get(self._handle) or self._acks[0]
        self._acks.clear()
        if result != "ok":
            # Most arguments may be a token, a session key or a message, and stay out of the text.
            named = [repr(argument) for argument in arguments[:1] if isinstance(argument, str)]
            refused = " ".join(["the server refused", word, *named])
            text = f"{refused}: {one_line(result, MAX_SHOWN_CODE_POINTS)}"
            raise CommandRefusedError(text, command=word, result=result)
        return content

    def read(self, deadline: float | None, late: str) -> None:
        """Read one frame.

        Parameters:
            deadline: by the monotonic clock; ``None`` waits without limit.
            late: the text of the error if no frame arrives in time.

        Raises:
            SubscriberTimeoutError: if no frame arrives in time.
            SubscriberClosedError: also if the server has been silent for too long.
        """
        while True:
            until = [] if deadline is None else [deadline]
            if self._max_silence_s is not None:
                until.append(self._socket.heard_at + self._max_silence_s)
            wait_s = max(0.0, min(until) - time.monotonic()) if until else None
            try:
                frame = self._socket.receive(wait_s)
                break
            except TimeoutError:
                self._check_silence()
                if deadline is not None and time.monotonic() >= deadline:
                    raise SubscriberTimeoutError(late) from None
        self._take(frame)

    def _check_silence(self) -> None:
        limit_s = self._max_silence_s
        if limit_s is not None and time.monotonic() >= self._socket.heard_at + limit_s:
            self._is_silent = True
            raise SubscriberClosedError(f"{self._server} has sent nothing for {limit_s:g} s") from None

    def _take(self, frame: str | bytes) -> None:
        try:
            array = json.loads(frame)
        except (ValueError, RecursionError):  # RecursionError: JSON nested too deeply
            array = None
        match array:
            case ["ack", int(handle), str(result)]:
                self._acks[handle] = result, {}
            case ["ack", int(handle), str(result), dict(content)]:
                self._acks[handle] = result, content
            case ["msg", str(stream), str(kind), body, *positions] if _is_message(body, positions):
                user_id, text = body if isinstance(body, list) else (None, body)
                self.messages.append(Message(stream, kind, text, user_id, *positions))
            case ["session", str(key)]:
                self.session_key = key
            case ["session" | "heartbeat", *_]:
                pass  # a session key must not be shown
            case _:
                logger.warning("ignored an unknown frame: %.100r", frame)

    def close(self, code: int) -> None:
        """Close the connection. Any thread may call this; it ends a :meth:`read` that waits."""
        self._socket.close(code, at_once=self._is_silent)


def _is_message(body: object, positions: list[Any]) -> bool:
    match body, positions:
        case str() | [str(), str()], [] | [str()]:
            return True
    return False
