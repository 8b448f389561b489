"""One subscriber's state machine: a command in, a refusal or an effect out (section 4 of the protocol).

A stream is in one of these states, and every command that is not named for a state is refused::

    not subscribed --subscribe--> subscribed --set_mode M--> M enabled
                   <--unsubscribe--          <--unset_mode M--

An effect only changes the state once :meth:`Session.commit` is told that it has happened: where the
broker cannot be reached, the subscriber is refused with ``"unavailable"`` and nothing has changed.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from ..errors import InvalidNameError
from ..protocol.messages import (
    Command,
    Direct,
    Hello,
    SetMode,
    StreamCommand,
    Subscribe,
    UnsetMode,
    Unsubscribe,
)
from ..protocol.names import check_stream, check_user_id
from ..protocol.options import (
    HelloOptions,
    InvalidOptionsError,
    SubscribeOptions,
    parse_hello_options,
    parse_subscribe_options,
)
from ..protocol.tokens import Mode, TokenSigner


class Result(enum.Enum):
    """What an ``ack`` says. A client acts on OK alone."""

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


class Join(NamedTuple):
    """The subscriber is to receive what is published to ``stream``."""

    stream: str


class Extend(NamedTuple):
    """The connection is to be extended, and to continue a session if it can."""

    options: HelloOptions


class Follow(NamedTuple):
    """As :class:`Join` on an extended connection: with modes and a replay, in one step."""

    stream: str
    options: SubscribeOptions


class Leave(NamedTuple):
    """The subscriber is to receive no more of ``stream``."""

    stream: str


class Enable(NamedTuple):
    """``user_id`` is ``None`` for the auth mode."""

    stream: str
    mode: Mode
    user_id: str | None


class Disable(NamedTuple):
    stream: str
    mode: Mode
    user_id: str | None


class Send(NamedTuple):
    """A direct message is to reach every connection of ``to_user_id`` on ``stream``."""

    stream: str
    from_user_id: str
    to_user_id: str
    message: str


Effect: TypeAlias = Extend | Join | Follow | Leave | Enable | Disable | Send


class Session:
    """What one subscriber is subscribed to, and with which modes.

    Parameters:
        subscriber_id: the id that the server gave to the connection.
        signers: one for each secret of the app; a token of any of them is right.
        max_streams: how many streams it may be subscribed to at once.
        max_message_bytes: how long a direct message may be, in bytes of UTF-8.
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
        # Each subscribed stream with its enabled modes and the user id that each was enabled for.
        self._modes: dict[str, dict[Mode, str | None]] = {}

    def receive(self, command: Command) -> Result | Effect:
        """Decide what a command leads to; the checks come in the protocol's order.

        Returns:
            The effect that the command asks for, or the result to refuse it with.
        """
        if isinstance(command, Hello):
            return self._hello(command)
        self._has_commanded = True
        return self._receive(command)

    def _hello(self, command: Hello) -> Result | Effect:
        if self.is_extended or self._has_commanded:
            return Result.INVALID_HELLO
        try:
            return Extend(parse_hello_options(command.options))
        except InvalidOptionsError:
            return Result.INVALID_OPTIONS

    def _receive(self, command: StreamCommand) -> Result | Effect:
        try:
            check_stream(command.stream)
        except InvalidNameError:
            return Result.INVALID_STREAM
        modes = self._modes.get(command.stream)
        if isinstance(command, Subscribe):
            if modes is not None:
                return Result.ALREADY_SUBSCRIBED
            if len(self._modes) >= self._max_streams:
                return Result.TOO_MANY_STREAMS
            return self._follow(command) if self.is_extended else Join(command.stream)
        if modes is None:
            return Result.NOT_SUBSCRIBED
        match command:
            case Unsubscribe():
                return Leave(command.stream)
            case SetMode():
                return self._set_mode(command, modes)
            case UnsetMode():
                if command.mode not in modes:
                    return Result.MODE_NOT_ENABLED
                return Disable(command.stream, command.mode, modes[command.mode])
            case Direct():
                return self._direct(command, modes)

    def _set_mode(self, command: SetMode, modes: dict[Mode, str | None]) -> Result | Effect:
        if command.mode is not Mode.AUTH:
            try:
                check_user_id(command.user_id)
            except InvalidNameError:
                return Result.INVALID_USER_ID
        if command.mode in modes:
            return Result.MODE_ALREADY_ENABLED
        if not self._is_token(command.token, command.mode, command.stream, command.user_id):
            return Result.INVALID_TOKEN
        return Enable(command.stream, command.mode, command.user_id)

    def _follow(self, command: Subscribe) -> Result | Effect:
        try:
            options = parse_subscribe_options(command.options)
        except InvalidOptionsError:
            return Result.INVALID_OPTIONS
        stream = command.stream
        if options.auth is not None and not self._is_token(options.auth, Mode.AUTH, stream, None):
            return Result.INVALID_TOKEN
        for mode, user in ((Mode.PRESENCE, options.presence), (Mode.DIRECT, options.direct)):
            if user is not None and not self._is_token(user.token, mode, stream, user.user_id):
                return Result.INVALID_TOKEN
        return Follow(stream, options)

    def _is_token(self, token: str, mode: Mode, stream: str, user_id: str | None) -> bool:
        # Every secret is tried, so that the time taken does not tell which of them was right.
        right = [signer.verify(token, mode, stream, self.subscriber_id, user_id) for signer in self._signers]
        return any(right)

    def _direct(self, command: Direct, modes: dict[Mode, str | None]) -> Result | Effect:
        try:
            check_user_id(command.to_user_id)
        except InvalidNameError:
            return Result.INVALID_USER_ID
        from_user_id = modes.get(Mode.DIRECT)
        if from_user_id is None:
            return Result.MODE_NOT_ENABLED
        if len(command.message.encode()) > self._max_message_bytes:
            return Result.MESSAGE_TOO_LARGE
        return Send(command.stream, from_user_id, command.to_user_id, command.message)

    def commit(self, effect: Effect) -> None:
        """Note that an effect has happened."""
        match effect:
            case Extend():
                self.is_extended = True
            case Join(stream):
                self._modes[stream] = {}
            case Follow(stream, options):
                modes = self._modes[stream] = {}
                if options.auth is not None:
                    modes[Mode.AUTH] = None
                if options.presence is not None:
                    modes[Mode.PRESENCE] = options.presence.user_id
                if options.direct is not None:
                    modes[Mode.DIRECT] = options.direct.user_id
            case Leave(stream):
                del self._modes[stream]
            case Enable(stream, mode, user_id):
                self._modes[stream][mode] = user_id
            case Disable(stream, mode, _):
                del self._modes[stream][mode]
            case Send():
                pass  # a message leaves no trace

    def enabled_modes(self, stream: str) -> dict[Mode, str | None]:
        """The modes that are enabled on a subscribed stream, with their user ids."""
        return dict(self._modes[stream])

    def streams(self) -> list[str]:
        """The subscribed streams."""
        return list(self._modes)
