"""A blocking WebSocket subscriber, for bots, tests and the command line: ``pip install tambur[subscriber]``.

A bot that answers direct messages, and goes on when the server restarts::

    from tambur import Tambur
    from tambur.subscriber import Subscriber

    tambur = Tambur.from_env()
    with Subscriber.from_env(reconnect=True) as bot:
        bot.subscribe("lobby")
        bot.enable_direct("lobby", "bot", tambur.generate_direct_token)
        for message in bot:
            if message.kind == "direct":
                bot.send_direct("lobby", message.user_id, f"You said: {message.text}")

It is section 4 of the protocol; the names of the commands are the protocol's.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ..credentials import Credentials, base_url
from ..errors import CommandRefusedError, SubscriberClosedError, SubscriberTimeoutError
from ..protocol.names import check_credential_name, check_stream, check_user_id
from ..protocol.paths import subscribe_path
from ..protocol.tokens import Mode
from .websocket import WebSocket

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_RECONNECT_WAIT_S = 30.0
"""The longest wait between two attempts to reconnect, in seconds; the first is about half a second."""

AuthToken: TypeAlias = str | Callable[[str, str], str]
UserToken: TypeAlias = str | Callable[[str, str, str], str]

logger = logging.getLogger("tambur")


class Message(NamedTuple):
    """What a subscriber received.

    Attributes:
        stream: the stream it came over, ``"private"`` for a private message.
        kind: ``"public"``, ``"auth"``, ``"private"``, ``"presence"`` or ``"direct"``.
        text: what was published or sent; of presence, ``"up"`` or ``"down"``.
        user_id: of presence, who joined or left; of a direct message, who sent it; otherwise ``None``.
    """

    stream: str
    kind: str
    text: str
    user_id: str | None = None


class _Mode(NamedTuple):
    user_id: str | None
    token: str | Callable[..., str]


class Subscriber:
    """A connection to a server, open once the constructor returns. One thread may use it at a time.

    Parameters:
        api_key: identifies the account.
        app_id: identifies the app.
        api_host: the server as ``host``, ``host:port`` or base URL.
        ssl: connect with TLS where ``api_host`` names no scheme.
        timeout: how long connecting, or the answer to one command, may take, in seconds.
        reconnect: whether :meth:`receive` connects again when the connection is lost. Streams are
            then subscribed again; a mode is enabled again if its token was given as a function, since a
            token is only good for one ``subscriber_id``. What was published meanwhile is missed.

    Raises:
        ConfigurationError: if a parameter is malformed.
        SubscriberClosedError: if the server cannot be reached, or has no such app.
    """

    def __init__(
        self,
        api_key: str,
        app_id: str,
        api_host: str,
        *,
        ssl: bool = False,
        timeout: float = 10.0,
        reconnect: bool = False,
    ) -> None:
        path = subscribe_path(
            check_credential_name("api_key", api_key), check_credential_name("app_id", app_id)
        )
        self.url = "ws" + base_url(api_host, ssl=ssl).removeprefix("http") + path
        self.subscriber_id = ""
        self._timeout = timeout
        self._reconnect = reconnect
        self._closed = threading.Event()
        self._handle = 0
        self._inbox: deque[Message] = deque()
        self._acks: dict[int, str] = {}
        # What is subscribed and enabled, and so to be again after a reconnect.
        self._streams: dict[str, dict[Mode, _Mode]] = {}
        self._connection: WebSocket | None = None
        self._dropping = threading.Lock()
        try:
            self._open()
        except BaseException:
            self._drop()
            raise

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 10.0, reconnect: bool = False) -> Self:
        """Subscribe to the app of a ``TAMBUR_URL``, whose secret is not needed and not kept."""
        credentials = Credentials.from_url(url)
        return cls(
            credentials.api_key,
            credentials.app_id,
            credentials.base_url,
            timeout=timeout,
            reconnect=reconnect,
        )

    @classmethod
    def from_env(cls, *, timeout: float = 10.0, reconnect: bool = False) -> Self:
        """Subscribe to the app that the environment variable ``TAMBUR_URL`` names."""
        return cls.from_url(Credentials.from_env().to_url(), timeout=timeout, reconnect=reconnect)

    def __repr__(self) -> str:
        return f"<Subscriber {self.subscriber_id} of {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. Any thread may call it; a :meth:`receive` that waits is ended."""
        self._closed.set()
        self._drop()

    # Commands. Each returns once the server has confirmed it.

    def subscribe(self, stream: str) -> None:
        """Receive what is published to a stream, from now on.

        Raises:
            InvalidNameError: if ``stream`` is no stream's name.
            CommandRefusedError: if the server refuses; so do all the commands.
            SubscriberClosedError: if the connection is lost; so do all the commands.
            SubscriberTimeoutError: if the answer takes too long; so do all the commands.
        """
        stream = check_stream(stream)
        self._command("subscribe", stream)
        self._streams[stream] = {}

    def unsubscribe(self, stream: str) -> None:
        """Receive nothing more of a stream. Its modes are disabled, too."""
        stream = check_stream(stream)
        self._command("unsubscribe", stream)
        self._streams.pop(stream, None)

    def enable_auth(self, stream: str, token: AuthToken) -> None:
        """Receive what is published to ``auth:`` a stream.

        Parameters:
            token: the token itself, or a function that makes one of ``stream`` and ``subscriber_id``,
                such as :meth:`tambur.Tambur.generate_auth_token`.
        """
        self._enable(Mode.AUTH, stream, None, token)

    def enable_presence(self, stream: str, user_id: str, token: UserToken) -> None:
        """Be there as ``user_id``, and receive who is there, who joins and who leaves.

        Parameters:
            token: the token itself, or a function that makes one of ``stream``, ``user_id`` and
                ``subscriber_id``, such as :meth:`tambur.Tambur.generate_presence_token`.
        """
        self._enable(Mode.PRESENCE, stream, check_user_id(user_id), token)

    def enable_direct(self, stream: str, user_id: str, token: UserToken) -> None:
        """Receive direct messages to ``user_id``, and be able to send some; ``token`` as for presence."""
        self._enable(Mode.DIRECT, stream, check_user_id(user_id), token)

    def disable_auth(self, stream: str) -> None:
        """Receive what is published to ``auth:`` a stream no more."""
        self._disable(Mode.AUTH, stream)

    def disable_presence(self, stream: str) -> None:
        """Be there no more, and receive no presence."""
        self._disable(Mode.PRESENCE, stream)

    def disable_direct(self, stream: str) -> None:
        """Receive and send no direct messages."""
        self._disable(Mode.DIRECT, stream)

    def send_direct(self, stream: str, to_user_id: str, message: str) -> None:
        """Send a message to all connections of a user. It is no error if he isn't there."""
        self._command("direct", check_stream(stream), check_user_id(to_user_id), message)

    def _enable(self, mode: Mode, stream: str, user_id: str | None, token: str | Callable[..., str]) -> None:
        stream = check_stream(stream)
        users = () if user_id is None else (user_id,)
        signed = token if isinstance(token, str) else token(stream, *users, self.subscriber_id)
        self._command("set_mode", mode.value, stream, *users, signed)
        self._streams[stream][mode] = _Mode(user_id, token)

    def _disable(self, mode: Mode, stream: str) -> None:
        stream = check_stream(stream)
        self._command("unset_mode", mode.value, stream)
        self._streams[stream].pop(mode, None)

    def _command(self, word: str, *arguments: str) -> None:
        self._handle += 1
        self._live().send(json.dumps([word, self._handle, *arguments]))
        deadline = time.monotonic() + self._timeout
        while self._handle not in self._acks and 0 not in self._acks:
            self._read(deadline, f"the server did not answer {word!r} within {self._timeout:g} s")
        result = self._acks.get(self._handle) or self._acks[0]
        self._acks.clear()
        if result != "ok":
            # Neither the token nor the message: what a user needs is what it was about.
            raise CommandRefusedError(
                f"the server refused {word} {arguments[0]!r}: {result}", command=word, result=result
            )

    # Receiving.

    def receive(self, timeout: float | None = None) -> Message:
        """Wait for the next message, in the order in which the server sent them.

        Parameters:
            timeout: in seconds; ``None`` waits for as long as it takes.

        Raises:
            SubscriberTimeoutError: if there is none within the timeout.
            SubscriberClosedError: if the connection is lost and ``reconnect`` is false, if it was
                closed, or if the server has no such app any more.
            CommandRefusedError: if it was connected again, but the server now refuses a stream or a mode
                that it had.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        late = f"no message within {timeout} s"
        while not self._inbox:
            try:
                self._read(deadline, late)
            except SubscriberClosedError as lost:
                if not self._reconnect or self._closed.is_set():
                    raise
                logger.warning("%s; connecting again", lost)
                self._drop()
                self._reopen(deadline, late)
        return self._inbox.popleft()

    def __iter__(self) -> Iterator[Message]:
        """Receive messages until :meth:`close` is called; a lost connection raises as in :meth:`receive`."""
        while True:
            try:
                message = self.receive()
            except SubscriberClosedError:
                if self._closed.is_set():
                    return
                raise
            yield message

    def _live(self) -> WebSocket:
        connection = self._connection
        if connection is None or self._closed.is_set():
            raise SubscriberClosedError("the subscriber is not connected")
        return connection

    def _read(self, deadline: float | None, late: str) -> None:
        """Take one frame in: into the inbox, or among the acks."""
        wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            frame = self._live().receive(wait_s)
        except TimeoutError:
            raise SubscriberTimeoutError(late) from None
        try:
            array = json.loads(frame)
        except ValueError:
            array = None
        match array:
            case ["ack", int(handle), str(result)]:
                self._acks[handle] = result
            case ["msg", str(stream), str(kind), [str(user_id), str(text)]]:
                self._inbox.append(Message(stream, kind, text, user_id))
            case ["msg", str(stream), str(kind), str(text)]:
                self._inbox.append(Message(stream, kind, text))
            case _:
                logger.warning("a frame that is none of the protocol's was left out: %.100r", frame)

    # Connecting.

    def _open(self) -> None:
        self._connection = connection = WebSocket(self.url, self._timeout)
        try:
            greeting = connection.receive(self._timeout)
        except (TimeoutError, SubscriberClosedError) as error:
            raise SubscriberClosedError(f"{self.url} sent no subscriber id") from error
        if not isinstance(greeting, str) or not greeting.startswith("id:"):
            raise SubscriberClosedError(f"{self.url} is no Tambur server: it sent no subscriber id")
        self.subscriber_id = greeting.removeprefix("id:")
        self._acks.clear()

    def _reopen(self, deadline: float | None, late: str) -> None:
        wait_s = 0.5
        while True:
            pause_s = wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
            if deadline is not None and time.monotonic() + pause_s > deadline:
                raise SubscriberTimeoutError(f"{late}; the connection is lost")
            if self._closed.wait(pause_s):
                raise SubscriberClosedError("the subscriber was closed")
            wait_s = min(2 * wait_s, MAX_RECONNECT_WAIT_S)
            try:
                self._open()
                self._resume()
            except (SubscriberClosedError, SubscriberTimeoutError, CommandRefusedError) as error:
                if isinstance(error, SubscriberClosedError) and error.code in (403, 404):
                    raise
                if isinstance(error, CommandRefusedError) and error.result != "unavailable":
                    self._drop()  # else it would be connected, but not to all that it was before
                    raise
                logger.warning("%s; trying again", error)
                self._drop()
            else:
                logger.warning("connected again, as %s", self.subscriber_id)
                return

    def _resume(self) -> None:
        """Subscribe to everything again, and enable the modes for which tokens can be had."""
        for stream, modes in self._streams.items():
            self._command("subscribe", stream)
            for mode, (user_id, token) in list(modes.items()):
                if isinstance(token, str):
                    del modes[mode]  # it was for the old subscriber id
                else:
                    self._enable(mode, stream, user_id, token)

    def _drop(self) -> None:
        # Whichever thread takes the connection out closes it: one may be reconnecting while one closes.
        with self._dropping:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
