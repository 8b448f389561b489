"""One subscriber, whatever carries him: frame -> command -> session -> effect on the hub -> ack."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from ..protocol import close_codes
from ..protocol import messages as commands
from ..protocol.tokens import Mode
from .broker import BrokerUnavailableError
from .config import App, Limits
from .hub import Hub
from .logs import line
from .outbox import Outbox
from .session import Disable, Effect, Enable, Join, Leave, Result, Send, Session

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
        "_direct_spent_until",
        "_hub",
        "_is_resting",
        "_limits",
        "_malformed",
        "_queue",
        "_rested_at",
        "_session",
        "_transport",
        "_worker",
    )

    def __init__(self, subscriber_id: str, app: App, hub: Hub, transport: Transport, limits: Limits) -> None:
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
            self._hub.disconnect(self._app.key, self.subscriber_id)
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
            command = commands.parse(frame)
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
        if isinstance(answer, Result):
            self._ack(command.handle, answer.value)
            return
        try:
            events = await self._perform(answer)
        except BrokerUnavailableError as error:
            facts = {"app": self.app_id, "stream": command.stream, "reason": error}
            logger.warning(line("command refused", command=type(command).__name__, **facts))
            self._ack(command.handle, Result.UNAVAILABLE.value)
            return
        self._session.commit(answer)
        self._ack(command.handle, Result.OK.value)
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

    def _ack(self, handle: int, result: str) -> None:
        self._transport.write_ack(commands.encode_ack(handle, result))

    async def _perform(self, effect: Effect) -> int:
        """Returns how many events the hub writes for it, to all subscribers together."""
        app, hub, transport = self._app.key, self._hub, self._transport
        match effect:
            case Join(stream):
                await hub.subscribe(app, stream, transport)
            case Leave(stream):
                return self._leave(stream)
            case Enable(stream, Mode.PRESENCE, str(user_id)):
                return await hub.enable_presence(app, stream, transport, user_id, self.subscriber_id)
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
                return hub.disable_presence(app, stream, transport, user_id, self.subscriber_id)
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
