"""The subscriptions of one connection: the accepted commands and their changes (protocol, section 4).

Each stream is in one of these states. Commands not listed for a state are refused::

    not subscribed --subscribe--> subscribed --set_mode M--> M enabled
                   <--unsubscribe--          <--unset_mode M--

:meth:`Subscriptions.check` decides, and :meth:`Subscriptions.commit` changes the state once the command has
taken effect. If the broker fails in between, the answer is ``"unavailable"`` and nothing has changed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from ..errors import InvalidNameError
from ..protocol.messages import Command, Direct, Hello, SetMode, Subscribe, UnsetMode, Unsubscribe
from ..protocol.names import check_stream, check_user_id
from ..protocol.options import SubscribeOptions
from ..protocol.tokens import Mode, TokenSigner


class Result(enum.Enum):
    """The result in an ``ack``. Clients act only on OK."""

    OK = "ok"
    ALREADY_SUBSCRIBED = "already_subscribed"
    NOT_SUBSCRIBED = "not_subscribed"
    INVALID_TOKEN = "invalid_token"  # noqa: S105 - a word of the protocol
    MODE_ALREADY_ENABLED = "mode_already_enabled"
    MODE_NOT_ENABLED = "mode_not_enabled"
    INVALID_STREAM = "invalid_stream"
    INVALID_USER_ID = "invalid_user_id"
    MESSAGE_TOO_LARGE = "message_too_large"
    TOO_MANY_STREAMS = "too_many_streams"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    INVALID_HELLO = "invalid_hello"
    INVALID_OPTIONS = "invalid_options"


Modes = Mapping[Mode, str | None]
"""The enabled modes, each with the user that it was enabled for; ``None`` for auth mode."""

_NO_MODES: Modes = MappingProxyType({})  # shared, since a dict takes 64 bytes of every subscription


def enabled_users(command: Command) -> list[str]:
    """The users that a command enables a mode for."""
    match command:
        case SetMode(user_id=str(user_id)):
            return [user_id]
        case Subscribe(options=SubscribeOptions() as options):
            return [as_user.user_id for as_user in (options.presence, options.direct) if as_user is not None]
    return []


class Subscriptions:
    """The streams that one connection is subscribed to, each with its modes.

    Parameters:
        subscriber_id: the ID that the server gave to the connection.
        signers: one for each secret of the app; each accepts the tokens of its secret.
        max_streams: how many streams the connection may be subscribed to.
        max_message_bytes: size limit of a direct message, in bytes of UTF-8.

    Attributes:
        is_extended: whether a ``hello`` was answered with ``"ok"``.
    """

    __slots__ = (
        "_has_commanded",
        "_max_message_bytes",
        "_max_streams",
        "_modes",
        "_signers",
        "is_extended",
        "subscriber_id",
    )

    def __init__(
        self, subscriber_id: str, signers: Sequence[TokenSigner], *, max_streams: int, max_message_bytes: int
    ) -> None:
        self.subscriber_id = subscriber_id
        self._signers = signers
        self._max_streams = max_streams
        self._max_message_bytes = max_message_bytes
        self._has_commanded = False
        self.is_extended = False
        self._modes: dict[str, Modes] = {}

    def __len__(self) -> int:
        return len(self._modes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modes)

    def users(self) -> frozenset[str]:
        """The users of the enabled modes."""
        users = (user_id for modes in self._modes.values() for user_id in modes.values())
        return frozenset(user_id for user_id in users if user_id is not None)

    def modes(self, stream: str) -> Modes:
        """The enabled modes of a subscribed stream."""
        return self._modes[stream]

    # Deciding. The checks come in the order of the protocol.

    def check(self, command: Command) -> Result:
        """Decide whether a command may take effect.

        Returns:
            OK, or the reason to refuse it.
        """
        if isinstance(command, Hello):
            return self._check_hello(command)
        self._has_commanded = True
        try:
            check_stream(command.stream)
        except InvalidNameError:
            return Result.INVALID_STREAM
        modes = self._modes.get(command.stream)
        if isinstance(command, Subscribe):
            return self._check_subscribe(command) if modes is None else Result.ALREADY_SUBSCRIBED
        if modes is None:
            return Result.NOT_SUBSCRIBED
        match command:
            case Unsubscribe():
                return Result.OK
            case SetMode():
                return self._check_set_mode(command, modes)
            case UnsetMode():
                return Result.OK if command.mode in modes else Result.MODE_NOT_ENABLED
            case Direct():
                return self._check_direct(command, modes)

    def _check_hello(self, command: Hello) -> Result:
        if self.is_extended or self._has_commanded:
            return Result.INVALID_HELLO
        return Result.OK if command.options is not None else Result.INVALID_OPTIONS

    def _check_subscribe(self, command: Subscribe) -> Result:
        if len(self._modes) >= self._max_streams:
            return Result.TOO_MANY_STREAMS
        stream, options = command.stream, command.options
        if options is None:
            return Result.INVALID_OPTIONS
        if options.auth is not None and not self._is_token(options.auth, Mode.AUTH, stream, None):
            return Result.INVALID_TOKEN
        for mode, user in ((Mode.PRESENCE, options.presence), (Mode.DIRECT, options.direct)):
            if user is not None and not self._is_token(user.token, mode, stream, user.user_id):
                return Result.INVALID_TOKEN
        return Result.OK

    def _check_set_mode(self, command: SetMode, modes: Modes) -> Result:
        if command.mode is not Mode.AUTH:
            try:
                check_user_id(command.user_id)
            except InvalidNameError:
                return Result.INVALID_USER_ID
        if command.mode in modes:
            return Result.MODE_ALREADY_ENABLED
        if not self._is_token(command.token, command.mode, command.stream, command.user_id):
            return Result.INVALID_TOKEN
        return Result.OK

    def _is_token(self, token: str, mode: Mode, stream: str, user_id: str | None) -> bool:
        # Every secret is tried, so that the time taken does not tell which of them was right.
        right = [signer.verify(token, mode, stream, self.subscriber_id, user_id) for signer in self._signers]
        return any(right)

    def _check_direct(self, command: Direct, modes: Modes) -> Result:
        try:
            check_user_id(command.to_user_id)
        except InvalidNameError:
            return Result.INVALID_USER_ID
        if Mode.DIRECT not in modes:
            return Result.MODE_NOT_ENABLED
        if len(command.message.encode()) > self._max_message_bytes:
            return Result.MESSAGE_TOO_LARGE
        return Result.OK

    # Changing.

    def commit(self, command: Command) -> None:
        """Note that a command, for which :meth:`check` returned OK, has taken effect."""
        match command:
            case Hello():
                self.is_extended = True
            case Subscribe(_, stream, options):
                assert options is not None  # else it would have been refused
                self._modes[stream] = options.modes() or _NO_MODES
            case Unsubscribe(_, stream):
                del self._modes[stream]
            case SetMode(_, mode, stream, user_id):
                self._modes[stream] = {**self._modes[stream], mode: user_id}
            case UnsetMode(_, mode, stream):
                left = {other: user for other, user in self._modes[stream].items() if other is not mode}
                self._modes[stream] = left or _NO_MODES
            case Direct():
                pass  # a message changes nothing
