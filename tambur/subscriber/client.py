"""The blocking subscriber."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from ..credentials import Credentials, base_url
from ..errors import ConfigurationError, SubscriberClosedError
from ..protocol.names import check_credential_name, check_stream, check_user_id
from ..protocol.options import MAX_LAST
from ..protocol.paths import subscribe_path
from ..protocol.tokens import Mode
from .messages import Message, Subscription
from .session import Session
from .streams import EnabledMode

if TYPE_CHECKING:
    from typing_extensions import Self

AuthToken: TypeAlias = str | Callable[[str, str], str]
UserToken: TypeAlias = str | Callable[[str, str, str], str]


class Subscriber:
    """A connection to a server, open once the constructor returns. One thread may use it at a time.

    Before its first command, it is extended (section 7 of the protocol): messages have positions.

    Parameters:
        api_key: identifies the account.
        app_id: identifies the app.
        api_host: the server as ``host``, ``host:port`` or base URL. Redirects to another one are refused.
        ssl: connect with TLS where ``api_host`` names no scheme.
        timeout: how long connecting may take, and the answer to one command, in seconds.
        reconnect: whether :meth:`receive` reconnects when the connection is lost, also if the server has
            been silent for too long. It continues the session (section 7 of the protocol): the
            ``subscriber_id`` stays the same, streams and modes are restored, and the server sends what was
            published meanwhile. If the session has ended, a mode is only restored if its token was given
            as a function, because a token is valid for one ``subscriber_id``.

    Attributes:
        url: the address of the WebSocket.

    Raises:
        ConfigurationError: if a parameter is malformed.
        SubscriberClosedError: if the server cannot be reached, is not a Tambur server, or has no such app.
        SubscriberTimeoutError: if the server does not answer in time.
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
        self._session = Session(self.url, timeout, reconnect=reconnect)

    @property
    def subscriber_id(self) -> str:
        """The UUID that the server gave to this subscriber.

        A reconnect changes it if the session has ended.
        """
        return self._session.subscriber_id

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 10.0, reconnect: bool = False) -> Self:
        """Connect to the app of a ``TAMBUR_URL``. Its secret is neither used nor kept.

        Raises:
            ConfigurationError: if the URL is malformed.
            SubscriberClosedError: as the constructor.
            SubscriberTimeoutError: as the constructor.
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
            SubscriberTimeoutError: as the constructor.
        """
        return cls.from_url(Credentials.from_env().to_url(), timeout=timeout, reconnect=reconnect)

    def __repr__(self) -> str:
        return f"<Subscriber {self.subscriber_id} of {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Any thread may call this; it ends a :meth:`receive` that waits."""
        self._session.close()

    # Commands. Each returns once the server has confirmed it, and raises what `subscribe` raises.

    def subscribe(
        self,
        stream: str,
        *,
        since: str | None = None,
        last: int | None = None,
        auth: AuthToken | None = None,
    ) -> Subscription:
        """Receive the messages of a stream from now on, and on request earlier ones before.

        Parameters:
            stream: its name.
            since: the ``position`` of a message or subscription, also of another process. Messages published
                to the stream after it are replayed. ``None`` for no replay.
            last: how many of the newest messages are replayed, 0 to 1,000. It needs an ``[[apps.history]]``
                entry in the server's configuration. ``None`` for no replay. Excludes ``since``.
            auth: a token as for :meth:`enable_auth`, which is then not necessary. Only with it, messages to
                ``auth:STREAM`` are replayed. ``None`` to leave auth mode off.

        Raises:
            InvalidNameError: if ``stream`` is not a valid name.
            ConfigurationError: if ``since`` or ``last`` is invalid, or both are given.
            CommandRefusedError: if the server refuses the command.
            SubscriberClosedError: if the connection is lost.
            SubscriberTimeoutError: if the server does not answer in time.
        """
        stream = check_stream(stream)
        _check_replay(since, last)
        options: dict[str, object] = {"since": since, "last": last}
        options = {name: value for name, value in options.items() if value is not None}
        token = auth(stream, self.subscriber_id) if callable(auth) else auth
        answer = self._session.subscribe(stream, options, auth=token)
        if auth is not None:
            self._session.streams[stream].modes[Mode.AUTH] = EnabledMode(None, auth)
        return answer

    def unsubscribe(self, stream: str) -> None:
        """Stop receiving the messages of a stream. This also disables its modes."""
        stream = check_stream(stream)
        self._session.command("unsubscribe", stream)
        self._session.streams.pop(stream, None)

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
        self._session.streams[stream].forget_present()

    def disable_direct(self, stream: str) -> None:
        """Stop receiving direct messages, and stop being able to send them."""
        self._disable(Mode.DIRECT, stream)

    def send_direct(self, stream: str, to_user_id: str, message: str) -> None:
        """Send a message to all connections of a user. If the user has none, the message is dropped."""
        self._session.command("direct", check_stream(stream), check_user_id(to_user_id), message)

    def _enable(self, mode: Mode, stream: str, user_id: str | None, token: str | Callable[..., str]) -> None:
        stream = check_stream(stream)
        users = () if user_id is None else (user_id,)
        signed = token if isinstance(token, str) else token(stream, *users, self.subscriber_id)
        self._session.command("set_mode", mode.value, stream, *users, signed)
        self._session.streams[stream].modes[mode] = EnabledMode(user_id, token)

    def _disable(self, mode: Mode, stream: str) -> None:
        stream = check_stream(stream)
        self._session.command("unset_mode", mode.value, stream)
        self._session.streams[stream].modes.pop(mode, None)

    # Receiving.

    def receive(self, timeout: float | None = None) -> Message:
        """Wait for the next message, in the order in which the server sent them.

        Parameters:
            timeout: in seconds; ``None`` waits without limit.

        Raises:
            MessagesMissedError: if, after a reconnect, messages of some streams may be missing. It is raised
                once, before the first message that was published later. The next call continues.
            SubscriberTimeoutError: if no message arrives in time.
            SubscriberClosedError: if the connection is lost and ``reconnect`` is false, if the subscriber
                was closed, if the application disconnected it, or if the server no longer has the app.
            CommandRefusedError: if the server, after a reconnect, refuses a stream or a mode that this
                subscriber had.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._session.receive(deadline, f"no message within {timeout} s")

    def __iter__(self) -> Iterator[Message]:
        """Receive messages until :meth:`close` is called.

        Errors are those of :meth:`receive`. To continue after a ``MessagesMissedError``, iterate again.
        """
        while True:
            try:
                message = self.receive()
            except SubscriberClosedError:
                if self._session.is_closed:
                    return
                raise
            yield message


def _check_replay(since: str | None, last: int | None) -> None:
    if since is not None and (not isinstance(since, str) or not since):
        raise ConfigurationError(f"since must be a position that the server gave, not {since!r}")
    if last is None:
        return
    if not isinstance(last, int) or isinstance(last, bool) or not 0 <= last <= MAX_LAST:
        raise ConfigurationError(f"last must be an integer from 0 to {MAX_LAST}, not {last!r}")
    if since is not None:
        raise ConfigurationError("since and last exclude each other")
