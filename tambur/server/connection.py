"""One subscriber, whatever carries him: frame -> command -> session -> effect on the hub -> ack."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from ..protocol import close_codes
from ..protocol import messages as commands
from ..protocol.tokens import Mode
from .broker import BrokerUnavailableError
from .config import App, Limits
from .extended_hub import ExtendedHub, Resumed
from .extension import Extension, check_key
from .logs import line
from .outbox import Outbox
from .session import Disable, Effect, Enable, Extend, Follow, Join, Leave, Result, Send, Session

MAX_MALFORMED_COMMANDS = 10
"""How many malformed frames in a row end a connection (section 4 of the protocol)."""

MAX_QUEUED_COMMANDS = 32
"""How many commands may wait before the transport should stop reading."""

COMMANDS_PER_TURN = 4
"""How many commands are answered, or streams left, before everything else has its turn."""

EVENTS_PER_COMMAND = 32
"""A command costs its sender one more for each so many events that the hub writes for it."""

logger = logging.getLogger("tambur.server")


class Transport(Outbox, Protocol):
    """How a connection is carried."""

    @property
    def name(self) -> str:
        """For the log."""
        ...

    def write_ack(self, event: bytes) -> None:
        """Send the answer to the oldest command that has none yet."""
        ...

    @property
    def can_extend(self) -> bool:
        """Whether a ``hello`` is a command here."""
        ...

    def drained(self) -> None:
        """All queued commands have been answered; reading may go on."""
        ...


class Connection:
    """Answers a subscriber's commands one after another, in their order.

    Parameters:
        subscriber_id: its id, unique within the app.
        app: whose subscriber it is.
        hub: where it subscribes.
        transport: carries it.
    """

    __slots__ = (
        "_app",
        "_closed",
        "_connection_id",
        "_direct_spent_until",
        "_extension",
        "_hub",
        "_is_resting",
        "_is_resumed",
        "_limits",
        "_malformed",
        "_queue",
        "_rested_at",
        "_session",
        "_transport",
        "_worker",
    )

    def __init__(
        self, subscriber_id: str, app: App, hub: ExtendedHub, transport: Transport, limits: Limits
    ) -> None:
        self._app = app
        self._hub = hub
        self._transport = transport
        self._session = Session(
            subscriber_id,
            app.signers,
            max_streams=limits.max_streams_per_subscriber,
            max_message_bytes=limits.max_message_bytes,
        )
        self._queue: list[str] = []  # no deque: an empty one takes 600 bytes of every idle connection
        # Presence counts connections, and two of a session can exist for a moment.
        self._connection_id = subscriber_id
        self._extension: Extension | None = None
        self._is_resumed = False
        self._malformed = 0
        self._limits = limits
        self._rested_at = 0.0
        self._direct_spent_until = 0.0
        self._is_resting = False
        self._closed = False
        self._worker: asyncio.Task[None] | None = None
        hub.connect(app.key, subscriber_id, transport)

    @property
    def subscriber_id(self) -> str:
        return self._session.subscriber_id

    @property
    def app_id(self) -> str:
        return self._app.app_id

    @property
    def is_busy(self) -> bool:
        """Whether so many commands wait that the transport should stop reading until ``drained``."""
        return len(self._queue) >= MAX_QUEUED_COMMANDS

    @property
    def rest_s(self) -> float:
        """How long the transport should not read, in seconds, since more has come than may in a second."""
        return self._rested_at - asyncio.get_running_loop().time()

    def count_frame(self) -> None:
        """Count a frame that is no command, such as a ping, as if it were one."""
        self._take_share(asyncio.get_running_loop().time())

    def drop_slow_subscriber(self) -> None:
        """Close the connection, since the transport has more unsent than ``max_unsent_bytes``."""
        self._hub.counts.slow_subscribers += 1
        facts = {"transport": self._transport.name, "max_unsent_bytes": self._limits.max_unsent_bytes}
        logger.info(line("slow subscriber dropped", app=self.app_id, **facts))
        self._transport.close(close_codes.SLOW_SUBSCRIBER, "too much is unsent")

    def receive(self, frame: str) -> None:
        """Take one frame from the subscriber; its ack is written when its turn has come."""
        if not self._closed:
            self._queue.append(frame)
            if self._worker is None:
                self._worker = asyncio.get_running_loop().create_task(self._answer_queue())

    def close(self) -> None:
        """The subscriber is gone: leave everything that it was subscribed to."""
        if not self._closed:
            self._closed = True
            self._queue.clear()
            self._hub.disconnect(self._app.key, self.subscriber_id, self._transport)
            if self._extension is not None:
                self._extension.stop()
            if self._worker is not None and self._is_resting:
                self._worker.cancel()  # others should not see a user for as long as its connection would rest
                self._worker = None
            if self._worker is None:
                self._leave_some_streams()

    def _take_share(self, now: float, commands: float = 1) -> None:
        # Each command takes its share of a second. After an idle second, all of it may be used at once.
        self._rested_at = max(self._rested_at, now - 1) + commands / self._limits.max_commands_per_s

    async def _answer_queue(self) -> None:
        loop = asyncio.get_running_loop()
        in_a_row = 0
        try:
            while self._queue:
                in_a_row += 1
                now = loop.time()
                self._take_share(now)
                if self._rested_at > now or in_a_row % COMMANDS_PER_TURN == 0:
                    self._is_resting = True
                    await asyncio.sleep(self._rested_at - now)
                    self._is_resting = False
                await self._answer(self._queue.pop(0))
        except Exception:
            logger.exception(line("command failed", app=self.app_id))
            self._queue.clear()
            self._transport.close(close_codes.INTERNAL_ERROR, "internal error")
        finally:
            self._worker = None
        if self._closed:
            self._leave_some_streams()
        else:
            self._transport.drained()

    async def _answer(self, frame: str) -> None:
        try:
            command = commands.parse(frame, is_extended=self._session.is_extended)
        except commands.MalformedCommandError as error:
            self._malformed += 1
            self._ack(0, str(error))
            if self._malformed >= MAX_MALFORMED_COMMANDS:
                self._queue.clear()
                reason = f"{MAX_MALFORMED_COMMANDS} malformed commands in a row"
                logger.info(line("subscriber closed", app=self.app_id, reason=reason))
                self._transport.close(close_codes.POLICY_VIOLATION, reason)
            return
        self._malformed = 0
        answer = self._session.receive(command)
        if isinstance(answer, Send) and not self._may_send(answer.message):
            answer = Result.RATE_LIMITED
        elif isinstance(answer, Extend) and not self._transport.can_extend:
            answer = Result.INVALID_HELLO
        if isinstance(answer, Result):
            self._ack(command.handle, answer.value)
            return
        try:
            events = await self._perform(command.handle, answer)
        except BrokerUnavailableError as error:
            if self._closed:
                return  # the subscriber is gone, which may have ended the replay
            facts = {"app": self.app_id, "stream": getattr(command, "stream", None), "reason": error}
            logger.warning(line("command refused", command=type(command).__name__, **facts))
            self._ack(command.handle, Result.UNAVAILABLE.value)
            return
        if events:
            self._take_share(asyncio.get_running_loop().time(), events / EVENTS_PER_COMMAND)

    def _may_send(self, message: str) -> bool:
        """Whether a direct message is within the limit, which the last one may exceed."""
        now = asyncio.get_running_loop().time()
        if self._direct_spent_until >= now:
            return False
        share_s = len(message.encode()) / self._limits.max_direct_bytes_per_s
        self._direct_spent_until = max(self._direct_spent_until, now - 1) + share_s
        return True

    def _ack(self, handle: int, result: str, facts: Mapping[str, object] | None = None) -> None:
        self._transport.write_ack(commands.encode_ack(handle, result, facts))

    async def _perform(self, handle: int, effect: Effect) -> int:
        """Do what a command asks for, and answer it.

        Returns:
            How many events the hub writes for it, to all subscribers together.
        """
        if isinstance(effect, Extend):
            await self._extend(handle, effect)
            return 0
        if isinstance(effect, Follow):
            return await self._follow(handle, effect)
        events = await self._change(effect)
        self._session.commit(effect)
        self._ack(handle, Result.OK.value)
        return events

    async def _extend(self, handle: int, effect: Extend) -> None:
        app, hub, transport, session = self._app, self._hub, self._transport, self._session
        options, realm = effect.options, hub.recovery.realm
        key = None if options.session is None else check_key(app, realm, self._limits, options.session)
        resumed = None
        if key is not None:
            resumed = await hub.resume(app, key, transport, session.subscriber_id, options.since)
        if key is None or resumed is None:
            key = None
            resumed = Resumed(
                hub.begin(app, session.subscriber_id, transport), complete=options.since is None
            )
        else:
            session.subscriber_id = key.subscriber_id
            self._is_resumed = True
        session.commit(effect)
        extension = Extension(
            app, realm, self._limits, transport, subscriber_id=session.subscriber_id, used=key
        )
        facts = {
            "id": session.subscriber_id,
            "session": extension.issue_key(),
            "resumed": self._is_resumed,
            "position": resumed.position,
            "complete": resumed.complete,
            "heartbeat_s": self._limits.heartbeat_s,
        }
        self._ack(handle, Result.OK.value, facts)
        if self._closed:
            hub.disconnect(app.key, session.subscriber_id, transport)
            return
        self._extension = extension
        extension.start()

    async def _follow(self, handle: int, effect: Follow) -> int:
        followed = await self._hub.follow(
            self._app,
            effect.stream,
            self._transport,
            effect.options,
            subscriber_id=self.subscriber_id,
            connection_id=self._connection_id,
            with_direct=self._is_resumed,
            max_replay_bytes=self._limits.max_replay_bytes,
        )
        self._session.commit(effect)
        position, complete, replayed, present, version = followed
        facts = {"position": position, "complete": complete, "replayed": replayed, "present": present}
        self._ack(handle, Result.OK.value, facts)
        events = self._hub.go_live(self._app.key, effect.stream, self._transport, version)
        return events + replayed + present

    async def _change(self, effect: Effect) -> int:
        app, hub, transport = self._app.key, self._hub, self._transport
        match effect:
            case Join(stream):
                await hub.subscribe(app, stream, transport, self.subscriber_id)
            case Leave(stream):
                return self._leave(stream)
            case Enable(stream, Mode.PRESENCE, str(user_id)):
                return await hub.enable_presence(app, stream, transport, user_id, self._connection_id)
            case Enable(stream, Mode.DIRECT, str(user_id)):
                hub.enable_direct(app, stream, transport, user_id)
            case Enable(stream):
                hub.enable_auth(app, stream, transport)
            case Disable():
                return self._disable(effect)
            case Send(stream, from_user_id, to_user_id, message):
                return await hub.send_direct(app, stream, from_user_id, to_user_id, message)
        return 0

    def _disable(self, effect: Disable) -> int:
        app, hub, transport = self._app.key, self._hub, self._transport
        match effect:
            case Disable(stream, Mode.PRESENCE, str(user_id)):
                return hub.disable_presence(app, stream, transport, user_id, self._connection_id)
            case Disable(stream, Mode.DIRECT, str(user_id)):
                hub.disable_direct(app, stream, transport, user_id)
            case Disable(stream):
                hub.disable_auth(app, stream, transport)
        return 0

    def _leave(self, stream: str) -> int:
        modes = self._session.enabled_modes(stream).items()
        events = sum(self._disable(Disable(stream, mode, user_id)) for mode, user_id in modes)
        self._hub.unsubscribe(self._app.key, stream, self._transport)
        return events

    def _leave_some_streams(self) -> None:
        """Leave all streams, in turns: to each of them, the end of a presence may have to be written."""
        streams = self._session.streams()
        for stream in streams[:COMMANDS_PER_TURN]:
            self._leave(stream)
            self._session.commit(Leave(stream))
        if len(streams) > COMMANDS_PER_TURN:
            asyncio.get_running_loop().call_soon(self._leave_some_streams)
