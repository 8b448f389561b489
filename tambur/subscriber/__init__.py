"""A blocking WebSocket subscriber for bots, tests and the command line.

It needs ``pip install 'tambur[subscriber]>=1'``. A bot that answers direct messages, and reconnects::

    from tambur import Tambur
    from tambur.subscriber import Subscriber

    tambur = Tambur.from_env()
    with Subscriber.from_env(reconnect=True) as bot:
        bot.subscribe("lobby")
        bot.enable_direct("lobby", "bot", tambur.generate_direct_token)
        for message in bot:
            if message.kind == "direct":
                bot.send_direct("lobby", message.user_id, f"You said: {message.text}")

It implements section 4 of the protocol (docs/reference/protocol.md), and names commands as the protocol does.
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

from ..credentials import Credentials, base_url, host_and_port
from ..errors import CommandRefusedError, SubscriberClosedError, SubscriberTimeoutError
from ..printable import one_line
from ..protocol import close_codes
from ..protocol.names import SUBSCRIBER_ID, check_credential_name, check_stream, check_user_id
from ..protocol.paths import subscribe_path
from ..protocol.tokens import Mode
from .websocket import WebSocket

if TYPE_CHECKING:
    from typing_extensions import Self

LASTING_REFUSALS = (403, 404, 421, close_codes.DISCONNECTED)
"""Statuses and codes that end reconnecting: wrong origin, app or host, or a disconnect by the application."""

MAX_RECONNECT_WAIT_S = 30.0
"""The longest wait between two attempts to reconnect, in seconds; the first is about half a second."""

MAX_SHOWN_CODE_POINTS = 200
"""How much of a server's answer to a command an error shows."""

AuthToken: TypeAlias = str | Callable[[str, str], str]
UserToken: TypeAlias = str | Callable[[str, str, str], str]

logger = logging.getLogger("tambur")


class Message(NamedTuple):
    """A message that a subscriber received.

    Attributes:
        stream: its stream; ``"private"`` for a private message.
        kind: ``"public"``, ``"auth"``, ``"private"``, ``"presence"`` or ``"direct"``.
        text: the published or sent text; for presence, ``"up"`` or ``"down"``.
        user_id: for presence, the user who joined or left; for a direct message, its sender; otherwise
            ``None``.
    """

    stream: str
    kind: str
    text: str
    user_id: str | None = None


class _Mode(NamedTuple):
    """An enabled mode, with the data to enable it again."""

    user_id: str | None
    token: str | Callable[..., str]


class Subscriber:
    """A connection to a server, open once the constructor returns. One thread may use it at a time.

    Parameters:
        api_key: identifies the account.
        app_id: identifies the app.
        api_host: the server as ``host``, ``host:port`` or base URL. Redirects to another one are refused.
        ssl: connect with TLS where ``api_host`` names no scheme.
        timeout: how long connecting may take, and the answer to one command, in seconds.
        reconnect: whether :meth:`receive` reconnects when the connection is lost. It then subscribes to all
            streams again. It enables a mode again if the token was given as a function, because a token is
            valid for one ``subscriber_id``. Messages published meanwhile are missed.

    Attributes:
        url: the address of the WebSocket.
        subscriber_id: the UUID that the server gave to this connection; a reconnect changes it.

    Raises:
        ConfigurationError: if a parameter is malformed.
        SubscriberClosedError: if the server cannot be reached, is not a Tambur server, or has no such app.
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
        self._server = host_and_port(self.url)
        self.subscriber_id = ""
        self._timeout = timeout
        self._reconnect = reconnect
        self._closed = threading.Event()
        self._handle = 0
        self._inbox: deque[Message] = deque()
        self._acks: dict[int, str] = {}
        # The subscriptions and modes that a reconnect restores.
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
        """Connect to the app of a ``TAMBUR_URL``. Its secret is neither used nor kept.

        Raises:
            ConfigurationError: if the URL is malformed.
            SubscriberClosedError: as the constructor.
        """
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
        """Connect to the app that the environment variable ``TAMBUR_URL`` names.

        Raises:
            ConfigurationError: if the variable is not set or malformed.
            SubscriberClosedError: as the constructor.
        """
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
        """Close the connection. Any thread may call this; it ends a :meth:`receive` that waits."""
        self._closed.set()
        self._drop()

    # Commands. Each returns once the server has confirmed it, and raises what `subscribe` raises.

    def subscribe(self, stream: str) -> None:
        """Receive the messages of a stream from now on.

        Raises:
            InvalidNameError: if ``stream`` is not a valid name.
            CommandRefusedError: if the server refuses the command.
            SubscriberClosedError: if the connection is lost.
            SubscriberTimeoutError: if the server does not answer in time.
        """
        stream = check_stream(stream)
        self._command("subscribe", stream)
        self._streams[stream] = {}

    def unsubscribe(self, stream: str) -> None:
        """Stop receiving the messages of a stream. This also disables its modes."""
        stream = check_stream(stream)
        self._command("unsubscribe", stream)
        self._streams.pop(stream, None)

    def enable_auth(self, stream: str, token: AuthToken) -> None:
        """Receive the messages published to ``auth:STREAM``.

        Parameters:
            stream: a subscribed stream.
            token: the token, or a function that makes one from ``stream`` and ``subscriber_id``,
                such as :meth:`tambur.Tambur.generate_auth_token`.
        """
        self._enable(Mode.AUTH, stream, None, token)

    def enable_presence(self, stream: str, user_id: str, token: UserToken) -> None:
        """Be present on a stream, and receive the users who are present, who join and who leave.

        Parameters:
            stream: a subscribed stream.
            user_id: the user that this subscriber represents.
            token: the token, or a function that makes one from ``stream``, ``user_id`` and
                ``subscriber_id``, such as :meth:`tambur.Tambur.generate_presence_token`.
        """
        self._enable(Mode.PRESENCE, stream, check_user_id(user_id), token)

    def enable_direct(self, stream: str, user_id: str, token: UserToken) -> None:
        """Receive the direct messages to a user, and send direct messages as that user.

        Parameters:
            stream: a subscribed stream.
            user_id: the user.
            token: the token, or a function that makes one from ``stream``, ``user_id`` and
                ``subscriber_id``, such as :meth:`tambur.Tambur.generate_direct_token`.
        """
        self._enable(Mode.DIRECT, stream, check_user_id(user_id), token)

    def disable_auth(self, stream: str) -> None:
        """Stop receiving the messages published to ``auth:STREAM``."""
        self._disable(Mode.AUTH, stream)

    def disable_presence(self, stream: str) -> None:
        """Stop being present, and stop receiving presence."""
        self._disable(Mode.PRESENCE, stream)

    def disable_direct(self, stream: str) -> None:
        """Stop receiving direct messages, and stop being able to send them."""
        self._disable(Mode.DIRECT, stream)

    def send_direct(self, stream: str, to_user_id: str, message: str) -> None:
        """Send a message to all connections of a user. If the user has none, the message is dropped."""
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
            self._read(deadline, f"{self._server} did not answer {word!r} within {self._timeout:g} s")
        result = self._acks.get(self._handle) or self._acks[0]
        self._acks.clear()
        if result != "ok":
            # The other arguments may be a token or a message, and stay out of the text.
            text = f"the server refused {word} {arguments[0]!r}: {one_line(result, MAX_SHOWN_CODE_POINTS)}"
            raise CommandRefusedError(text, command=word, result=result)

    # Receiving.

    def receive(self, timeout: float | None = None) -> Message:
        """Wait for the next message, in the order in which the server sent them.

        Parameters:
            timeout: in seconds; ``None`` waits without limit.

        Raises:
            SubscriberTimeoutError: if no message arrives in time.
            SubscriberClosedError: if the connection is lost and ``reconnect`` is false, if the subscriber
                was closed, if the application disconnected it, or if the server no longer has the app.
            CommandRefusedError: if the server, after a reconnect, refuses a stream or a mode that this
                subscriber had.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        late = f"no message within {timeout} s"
        while not self._inbox:
            try:
                self._read(deadline, late)
            except SubscriberClosedError as lost:
                if not self._reconnect or self._closed.is_set() or lost.code in LASTING_REFUSALS:
                    raise
                logger.warning("%s; reconnecting", lost)
                self._drop()
                self._reopen(deadline, late)
        return self._inbox.popleft()

    def __iter__(self) -> Iterator[Message]:
        """Receive messages until :meth:`close` is called. A lost connection raises as in :meth:`receive`."""
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
        """Read one frame, and put it into the inbox or among the acks."""
        wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            frame = self._live().receive(wait_s)
        except TimeoutError:
            raise SubscriberTimeoutError(late) from None
        try:
            array = json.loads(frame)
        except (ValueError, RecursionError):  # RecursionError: JSON nested too deeply
            array = None
        match array:
            case ["ack", int(handle), str(result)]:
                self._acks[handle] = result
            case ["msg", str(stream), str(kind), [str(user_id), str(text)]]:
                self._inbox.append(Message(stream, kind, text, user_id))
            case ["msg", str(stream), str(kind), str(text)]:
                self._inbox.append(Message(stream, kind, text))
            case _:
                logger.warning("ignored an unknown frame: %.100r", frame)

    # Connecting.

    def _open(self) -> None:
        self._connection = connection = WebSocket(self.url, self._timeout)
        try:
            greeting = connection.receive(self._timeout)
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
                if isinstance(error, SubscriberClosedError) and error.code in LASTING_REFUSALS:
                    raise
                if isinstance(error, CommandRefusedError) and error.result != "unavailable":
                    self._drop()  # rather than stay connected with less than before
                    raise
                logger.warning("%s; trying again", error)
                self._drop()
            else:
                logger.warning("reconnected as %s", self.subscriber_id)
                return

    def _resume(self) -> None:
        """Subscribe to all streams again, and enable the modes whose tokens come from a function."""
        for stream, modes in self._streams.items():
            self._command("subscribe", stream)
            for mode, (user_id, token) in list(modes.items()):
                if isinstance(token, str):
                    del modes[mode]  # the token was for the old subscriber ID
                else:
                    self._enable(mode, stream, user_id, token)

    def _drop(self) -> None:
        # One thread may reconnect while another closes; the one that takes the connection out closes it.
        with self._dropping:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
