"""The state of a subscriber that outlives its connections, and how it continues on another one."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NoReturn

from ..errors import (
    CommandRefusedError,
    MessagesMissedError,
    SubscriberClosedError,
    SubscriberTimeoutError,
)
from ..protocol import close_codes
from ..protocol.tokens import Mode
from .connection import NORMAL, WILL_RETURN, Connection
from .messages import Message, Subscription
from .streams import Stream, read_subscription

LASTING_REFUSALS = (403, 404, 421)
"""Statuses that would not change at the next attempt: wrong origin, app or host."""

LASTING_ENDS = (close_codes.DISCONNECTED, close_codes.SESSION_MOVED)
"""Close codes after which a client stays away."""

MIN_RECONNECT_WAIT_S = 0.5
"""The longest wait before the first attempt to reconnect, in seconds."""

MAX_RECONNECT_WAIT_S = 30.0
"""The longest wait between two attempts to reconnect, in seconds."""

MAX_SHOWN_STREAMS = 3
"""How many streams the text of an error names."""

PRIVATE = "private"
"""Stands for a stream in private messages."""

logger = logging.getLogger("tambur")


class Session:
    """A subscriber's session, connected once the constructor returns.

    Parameters:
        url: the address of the WebSocket.
        timeout_s: how long connecting may take, and the answer to one command, in seconds.
        reconnect: whether :meth:`receive` connects again when the connection is lost.

    Attributes:
        subscriber_id: of the newest connection.
        streams: those that are subscribed, by name.
        inbox: the messages that were received, oldest first.
    """

    def __init__(self, url: str, timeout_s: float, *, reconnect: bool) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._reconnect = reconnect
        self._closed = threading.Event()
        self.subscriber_id = ""
        self.streams: dict[str, Stream] = {}
        self.inbox: deque[Message] = deque()
        self._private_position: str | None = None
        self._key: str | None = None
        self._missed: dict[str, None] = {}  # an ordered set of streams
        self._attempts = 0  # since the connection was lost
        self._last_failure: str | None = None  # of these attempts
        self._attempt_at: float | None = None  # when the next one is made, by the monotonic clock
        self._connection: Connection | None = None
        self._dropping = threading.Lock()
        try:
            self._open()
        except BaseException:
            self._drop(WILL_RETURN)
            raise

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed.is_set()

    def close(self) -> None:
        """End the session. Any thread may call this; it ends a :meth:`receive` that waits."""
        self._closed.set()
        self._drop(NORMAL)

    def command(self, word: str, *arguments: object) -> Mapping[str, Any]:
        """Send a command, and wait for its ack; see :meth:`Connection.command`."""
        connection = self._begin()
        try:
            return connection.command(word, *arguments, timeout_s=self._timeout_s)
        finally:
            self._take_messages(connection)

    def subscribe(
        self, stream: str, options: Mapping[str, object], *, auth: str | None = None
    ) -> Subscription:
        """Subscribe to a stream.

        Parameters:
            options: those of the command. On a connection that is not extended they are left out.
            auth: the token that enables auth mode; ``None`` to leave it off.
        """
        is_new = stream not in self.streams
        self.streams.setdefault(stream, Stream())
        before = len(self.inbox)
        try:
            content = self._send_subscribe(stream, options, auth)
        except BaseException:
            if is_new:
                del self.streams[stream]
                # A part of a replay would come again with the next attempt.
                kept = [m for i, m in enumerate(self.inbox) if i < before or m.stream != stream]
                self.inbox = deque(kept)
            raise
        answer = read_subscription(content, complete="since" not in options)
        self.streams[stream].position = answer.position
        return answer

    def _send_subscribe(
        self, stream: str, options: Mapping[str, object], auth: str | None
    ) -> Mapping[str, Any]:
        if self._begin().is_extended:
            given = dict(options) if auth is None else {**options, "auth": auth}
            return self.command("subscribe", stream, *([given] if given else []))
        content = self.command("subscribe", stream)
        if auth is not None:
            try:
                self.command("set_mode", Mode.AUTH.value, stream, auth)
            except CommandRefusedError:
                self.command("unsubscribe", stream)
                raise
        return content

    def receive(self, deadline: float | None, late: str) -> Message:
        """Wait for the next message; see :meth:`Subscriber.receive`.

        Parameters:
            deadline: by the monotonic clock; ``None`` waits without limit.
            late: the text of the error if no message arrives in time.
        """
        while not self.inbox or self._missed:
            if self._missed:
                self._raise_missed()
            if self._connection is None and self._reconnect and not self.is_closed:
                self._reopen(deadline, late)
                continue
            try:
                connection = self._live()
                connection.read(deadline, late)
                self._take_messages(connection)
            except SubscriberClosedError as lost:
                if not self._reconnect or self.is_closed or lost.code in LASTING_ENDS:
                    raise
                logger.warning("%s; reconnecting", lost)
                self._drop(WILL_RETURN)
        return self.inbox.popleft()

    def _raise_missed(self) -> NoReturn:
        streams = tuple(self._missed)
        self._missed.clear()
        named = ", ".join(f"{stream!r:.100}" for stream in streams[:MAX_SHOWN_STREAMS])
        others = len(streams) - MAX_SHOWN_STREAMS
        more = f" and {others} more" if others > 0 else ""
        text = f"messages may be missing since the connection was lost: of {named}{more}"
        raise MessagesMissedError(text, streams=streams)

    def _live(self) -> Connection:
        connection = self._connection
        if connection is None or self.is_closed:
            raise SubscriberClosedError("the subscriber is not connected")
        return connection

    def _take_messages(self, connection: Connection) -> None:
        while connection.messages:
            message = connection.messages.popleft()
            stream = self.streams.get(message.stream)
            if stream is None:
                if message.stream == PRIVATE:
                    self._private_position = message.position or self._private_position
            elif not stream.take(message):
                continue
            self.inbox.append(message)

    # Connecting.

    def _open(self) -> bool:
        """Connect; return whether the session of a lost connection continues."""
        self._connection = connection = Connection(self._url, self._timeout_s)
        connection.greet(self._timeout_s)
        self.subscriber_id = connection.subscriber_id
        try:
            return self._reconnect and self._extend(connection)
        except CommandRefusedError:
            if self._key is not None:
                raise  # the session can be continued later
            return False  # the first command tries again

    def _extend(self, connection: Connection) -> bool:
        """Begin a session, or continue that of a lost connection; return whether it continues.

        Raises:
            CommandRefusedError: the server can do neither at the moment.
        """
        options = {"session": self._key, "since": self._private_position}
        given = {name: value for name, value in options.items() if value is not None}
        try:
            hello = connection.hello(given, self._timeout_s)
        except CommandRefusedError as refused:
            if refused.result == "unavailable":
                raise
            # The server has no extended connections.
            connection.may_extend = False
            self._key = self._private_position = None
            return False
        finally:
            self._take_messages(connection)
        self.subscriber_id = connection.subscriber_id
        if hello.resumed and not hello.complete:
            self._missed[PRIVATE] = None
        self._private_position = hello.position
        return hello.resumed

    def _begin(self) -> Connection:
        """The connection, extended before its first command unless the server has no extended connections."""
        connection = self._live()
        if connection.may_extend and not connection.is_extended:
            self._extend(connection)
        return connection

    def _reopen(self, deadline: float | None, late: str) -> None:
        """Make one attempt to connect again, when it is time."""
        self._wait_for_attempt(deadline, late)
        try:
            self._restore(resumed=self._open())
        except (SubscriberClosedError, SubscriberTimeoutError, CommandRefusedError) as error:
            if isinstance(error, SubscriberClosedError) and error.code in LASTING_REFUSALS + LASTING_ENDS:
                raise
            self._drop(WILL_RETURN)
            if isinstance(error, CommandRefusedError) and error.result != "unavailable":
                raise  # rather than stay connected with less than before
            if str(error) != self._last_failure:  # an outage may be long
                logger.warning("trying again: %s", error)
            self._last_failure = str(error)
        except BaseException:  # such as an error of a function that makes tokens
            self._drop(WILL_RETURN)
            raise
        else:
            logger.warning("reconnected as %s", self.subscriber_id)
            self._attempts = 0
            self._last_failure = None

    def _wait_for_attempt(self, deadline: float | None, late: str) -> None:
        if self._attempt_at is None:
            # Beyond 2 ** 10 the exponent would only be large.
            wait_s = min(MIN_RECONNECT_WAIT_S * 2 ** min(self._attempts, 10), MAX_RECONNECT_WAIT_S)
            pause_s = wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
            # It stays, so that calls with short timeouts get there, too.
            self._attempt_at = time.monotonic() + pause_s
        is_late = deadline is not None and deadline < self._attempt_at
        until = deadline if deadline is not None and is_late else self._attempt_at
        if self._closed.wait(max(0.0, until - time.monotonic())):
            raise SubscriberClosedError("the subscriber was closed")
        if is_late:
            raise SubscriberTimeoutError(f"{late}; the connection is lost")
        self._attempt_at = None
        self._attempts += 1

    def _restore(self, *, resumed: bool) -> None:
        """Subscribe to all streams again, with their modes."""
        connection = self._live()
        for name, stream in self.streams.items():
            if connection.is_extended:
                self._continue(name, stream, resumed=resumed)
            else:
                self._subscribe_anew(name, stream)

    def _continue(self, name: str, stream: Stream, *, resumed: bool) -> None:
        before = set(stream.modes)
        options = stream.begin_to_continue(name, self.subscriber_id, resumed=resumed)
        # Only a session has direct messages replayed, and only a subscriber in auth mode those of that mode.
        is_missing = Mode.DIRECT in before or Mode.AUTH in before - set(stream.modes)
        # Without a position, the lost connection was not extended, as while the broker could not be reached.
        if "since" not in options or (is_missing and not resumed):
            self._missed[name] = None
        try:
            content = self.command("subscribe", name, options)
            self.inbox += stream.end_to_continue(name)
        finally:
            stream.stop_to_continue()
        answer = read_subscription(content, complete=False)
        stream.position = answer.position
        if not answer.complete:
            self._missed[name] = None

    def _subscribe_anew(self, name: str, stream: Stream) -> None:
        """Restore a stream on a connection that is not extended."""
        if stream.position is not None:
            stream.position = None
            self._missed[name] = None
        stream.drop_void_modes(resumed=False)
        self.command("subscribe", name)
        for mode, (user_id, token) in list(stream.modes.items()):
            users = () if user_id is None else (user_id,)
            signed = token if isinstance(token, str) else token(name, *users, self.subscriber_id)
            self.command("set_mode", mode.value, name, *users, signed)

    def _drop(self, code: int) -> None:
        # One thread may reconnect while another closes; the one that takes the connection out closes it.
        with self._dropping:
            connection, self._connection = self._connection, None
        if connection is not None:
            self._key = connection.session_key or self._key
            connection.close(code)
