"""A subscriber's connection on any transport: frame -> command -> check -> hub -> commit -> ack."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping

from ..protocol import close_codes
from ..protocol.messages import (
    Command,
    Direct,
    Hello,
    MalformedCommandError,
    SetMode,
    Subscribe,
    UnsetMode,
    Unsubscribe,
    encode_ack,
    parse,
)
from ..protocol.session_keys import KEYS_OF_CONNECTION, SessionKey
from ..protocol.tokens import Mode
from .broker import BrokerUnavailableError
from .config import App, Limits
from .extended_hub import ExtendedHub, Resumed
from .extension import Extension, check_key
from .logs import line
from .memory import subscription_bytes
from .outbox import Transport
from .refused import record_refused, record_unavailable
from .revocations import DISCONNECTED, LostSession
from .subscriptions import Result, Subscriptions, enabled_users

MAX_MALFORMED_COMMANDS = 10
"""Malformed commands in a row that end a connection (section 4 of the protocol)."""

MAX_QUEUED_COMMANDS = 32
"""Commands that wait before the transport should stop reading."""

STREAMS_PER_TURN = 4
"""Streams that a closed connection unsubscribes from in one turn."""

EVENTS_PER_COMMAND = 32
"""A command costs its sender one more command for each so many events that the hub writes for it."""

FAREWELLS = frozenset({1000, 1005, close_codes.DISCONNECTED})
"""Close codes after which users do not linger: the client or the application meant to end the connection."""

logger = logging.getLogger("tambur.server")


class Connection:
    """A subscriber's connection. It answers commands one after another, in their order.

    Parameters:
        subscriber_id: unique within the app.
        app: the app of the subscriber.
        hub: where the connection subscribes.
        transport: how the connection is carried.
        limits: those of the server.
    """

    __slots__ = (
        "_app",
        "_begun_ms",
        "_closed",
        "_connection_id",
        "_direct_spent_until",
        "_extension",
        "_hub",
        "_is_resting",
        "_is_resumed",
        "_limits",
        "_linger_s",
        "_malformed",
        "_queue",
        "_rested_at",
        "_subscriptions",
        "_transport",
        "_worker",
    )

    def __init__(
        self, subscriber_id: str, app: App, hub: ExtendedHub, transport: Transport, limits: Limits
    ) -> None:
        self._app = app
        self._hub = hub
        self._transport = transport
        self._subscriptions = Subscriptions(
            subscriber_id,
            app.signers,
            max_streams=limits.max_streams_per_subscriber,
            max_message_bytes=limits.max_message_bytes,
        )
        self._queue: list[str] = []  # no deque: an empty one takes 600 bytes of every idle connection
        # Presence counts connections, and two of a session can exist for a moment.
        self._connection_id = subscriber_id
        self._begun_ms = hub.clock_ms()  # of the session: tokens may exist since then
        self._extension: Extension | None = None
        self._is_resumed = False
        self._malformed = 0
        self._limits = limits
        self._rested_at = 0.0
        self._direct_spent_until = 0.0
        self._is_resting = False
        self._closed = False
        self._linger_s = 0.0
        self._worker: asyncio.Task[None] | None = None
        hub.connect(app.key, subscriber_id, transport)

    @property
    def subscriber_id(self) -> str:
        return self._subscriptions.subscriber_id

    @property
    def app_id(self) -> str:
        return self._app.app_id

    @property
    def queued_bytes(self) -> int:
        """The memory of the commands that wait for their turn."""
        return sum(map(sys.getsizeof, self._queue))

    @property
    def subscription_count(self) -> int:
        """To how many streams the subscriber is subscribed."""
        return len(self._subscriptions)

    @property
    def is_busy(self) -> bool:
        """Whether the transport should stop reading until ``drained``, since many commands wait."""
        return len(self._queue) >= MAX_QUEUED_COMMANDS

    @property
    def rest_s(self) -> float:
        """Seconds that the transport should not read for, since the connection used up its commands."""
        return self._rested_at - asyncio.get_running_loop().time()

    def count_frame(self) -> None:
        """Count a frame that is not a command, such as a ping, as one command."""
        self._take_share(asyncio.get_running_loop().time())

    def drop_slow_subscriber(self) -> None:
        """Close the connection, since the transport has more unsent than ``max_unsent_bytes``."""
        counts = self._hub.counts
        counts.slow_subscribers += 1
        if counts.observer is not None and counts.observer.is_tracing:
            counts.observer.dropped(self._subscriptions.users())
        facts = {"transport": self._transport.name, "max_unsent_bytes": self._limits.max_unsent_bytes}
        counts.log_refusal("slow subscriber dropped", {"app": self.app_id, **facts})
        self._transport.close(close_codes.SLOW_SUBSCRIBER, "too much is unsent")

    def receive(self, frame: str) -> None:
        """Queue one frame of the subscriber. Its ack is written when its turn comes."""
        if not self._closed:
            self._queue.append(frame)
            if self._worker is None:
                self._worker = asyncio.get_running_loop().create_task(self._answer_queue())

    def close(self, code: int | None = None) -> None:
        """Drop all subscriptions: the subscriber is gone.

        Parameters:
            code: the close code of the client or the server, whichever closed first; ``None`` if neither did.
        """
        if not self._closed:
            self._closed = True
            if self._subscriptions.is_extended and code not in FAREWELLS:
                self._linger_s = self._limits.presence_linger_s
            self._queue.clear()
            if self._extension is not None:
                self._extension.stop()
                if code not in FAREWELLS:
                    lost = LostSession(
                        self._connection_id, self._subscriptions.users(), self._extension.resumable_until_ms
                    )
                    self._hub.lose(self._app.key, self.subscriber_id, self._transport, lost)
            self._hub.disconnect(self._app.key, self.subscriber_id, self._transport)
            if self._worker is not None and self._is_resting:
                self._worker.cancel()  # otherwise the user would seem present until the worker continues
                self._worker = None
            if self._worker is None:
                self._unsubscribe_some()

    def _take_share(self, now: float, commands: float = 1) -> None:
        # Each command takes its share of a second. After an idle second, all shares may be used immediately.
        self._rested_at = max(self._rested_at, now - 1) + commands / self._limits.max_commands_per_s

    async def _answer_queue(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                now = loop.time()
                self._take_share(now)
                self._is_resting = True
                if self._rested_at > now:
                    await asyncio.sleep(self._rested_at - now)
                await self._hub.commands.wait()
                self._is_resting = False
                await self._answer(self._queue.pop(0))
        except Exception:
            logger.exception(line("command failed", app=self.app_id))
            self._queue.clear()
            self._transport.close(close_codes.INTERNAL_ERROR, "internal error")
        finally:
            self._worker = None
        if self._closed:
            self._unsubscribe_some()
        else:
            self._transport.drained()

    async def _answer(self, frame: str) -> None:
        try:
            command = parse(frame, is_extended=self._subscriptions.is_extended)
        except MalformedCommandError as error:
            self._malformed += 1
            self._transport.write_ack(encode_ack(0, str(error)))
            if self._malformed >= MAX_MALFORMED_COMMANDS:
                self._queue.clear()
                reason = f"{MAX_MALFORMED_COMMANDS} malformed commands in a row"
                self._hub.counts.log_refusal("subscriber closed", {"app": self.app_id, "reason": reason})
                self._transport.close(close_codes.POLICY_VIOLATION, reason)
            return
        self._malformed = 0
        result = self._check(command)
        if result is not Result.OK:
            record_refused(self._hub.counts, self.app_id, command, result)
            self._ack(command.handle, result)
            return
        try:
            events = await self._perform(command)
        except BrokerUnavailableError as error:
            if self._closed:
                return  # the subscriber is gone, which may have ended the replay
            record_unavailable(self._hub.counts, self.app_id, command, error)
            self._ack(command.handle, Result.UNAVAILABLE)
            return
        if self._is_revoked(command):  # the disconnect came meanwhile, and could not see this connection
            self._hub.end_session(self._app.key, self.subscriber_id)
            self._transport.close(close_codes.DISCONNECTED, DISCONNECTED)
        if events:
            self._take_share(asyncio.get_running_loop().time(), events / EVENTS_PER_COMMAND)

    def _check(self, command: Command) -> Result:
        result = self._subscriptions.check(command)
        if result is Result.OK:
            if isinstance(command, Hello) and not self._transport.can_extend:
                return Result.INVALID_HELLO
            if isinstance(command, Direct) and not self._may_send(command.message):
                return Result.RATE_LIMITED
            if self._is_revoked(command):
                return Result.INVALID_TOKEN
        return result

    def _is_revoked(self, command: Command) -> bool:
        """Whether a command enables a mode as a user who was disconnected since this session began."""
        allows, app = self._hub.revocations.allows, self._app.key
        return not all(allows(app, user_id, self._begun_ms) for user_id in enabled_users(command))

    def _may_send(self, message: str) -> bool:
        """Whether a direct message is within the limit of bytes. The last one may exceed it."""
        now = asyncio.get_running_loop().time()
        if self._direct_spent_until >= now:
            return False
        share_s = len(message.encode()) / self._limits.max_direct_bytes_per_s
        self._direct_spent_until = max(self._direct_spent_until, now - 1) + share_s
        return True

    def _ack(self, handle: int, result: Result, facts: Mapping[str, object] | None = None) -> None:
        self._transport.write_ack(encode_ack(handle, result.value, facts))

    async def _perform(self, command: Command) -> int:
        """Have a command take effect, and answer it.

        Returns:
            How many events the hub writes for it, to all subscribers together.
        """
        if isinstance(command, Hello):
            await self._extend(command)
            return 0
        if isinstance(command, Subscribe) and self._subscriptions.is_extended:
            return await self._subscribe_extended(command)
        events = await self._change(command)
        self._subscriptions.commit(command)
        self._ack(command.handle, Result.OK)
        return events

    async def _extend(self, command: Hello) -> None:
        app, hub, transport, subscriptions = self._app, self._hub, self._transport, self._subscriptions
        options, realm = command.options, hub.recovery.realm
        assert options is not None  # checked
        key = None if options.session is None else check_key(app, realm, self._limits, options.session)
        resumed = None
        if key is not None:
            resumed = await hub.resume(app, key, transport, self.subscriber_id, options.since)
        if key is None or resumed is None:
            key = None
            resumed = Resumed(hub.begin(app, self.subscriber_id, transport), options.since is None, resumes=0)
        else:
            subscriptions.subscriber_id = key.subscriber_id
            self._begun_ms = key.begun_ms
            self._is_resumed = True
        hub.counts.count_hello(options.session, is_resumed=self._is_resumed, complete=resumed.complete)
        subscriptions.commit(command)
        number = KEYS_OF_CONNECTION * resumed.resumes
        session = SessionKey(self.subscriber_id, number, self._begun_ms, issued_ms=0)
        extension = Extension(app, realm, self._limits, transport, session)
        facts = {
            "id": self.subscriber_id,
            "session": extension.issue_key(),
            "resumed": self._is_resumed,
            "position": resumed.position,
            "complete": resumed.complete,
            "heartbeat_s": self._limits.heartbeat_s,
        }
        self._ack(command.handle, Result.OK, facts)
        if self._closed:
            hub.disconnect(app.key, self.subscriber_id, transport)
            return
        self._extension = extension
        extension.start()

    async def _subscribe_extended(self, command: Subscribe) -> int:
        assert command.options is not None  # checked
        subscribed = await self._hub.subscribe_extended(
            self._app,
            command.stream,
            self._transport,
            command.options,
            subscriber_id=self.subscriber_id,
            connection_id=self._connection_id,
            with_direct=self._is_resumed,
            max_replay_bytes=self._limits.max_replay_bytes,
        )
        self._hub.memory.add(subscription_bytes(command.stream))
        self._subscriptions.commit(command)
        position, complete, replayed, present, version = subscribed
        self._hub.counts.incomplete += not complete
        facts = {"position": position, "complete": complete, "replayed": replayed, "present": present}
        self._ack(command.handle, Result.OK, facts)
        events = self._hub.go_live(self._app.key, command.stream, self._transport, version)
        return events + replayed + present

    async def _change(self, command: Command) -> int:
        app, hub, transport = self._app.key, self._hub, self._transport
        match command:
            case Subscribe(_, stream):
                await hub.subscribe(app, stream, transport, self.subscriber_id)
                hub.memory.add(subscription_bytes(stream))
            case Unsubscribe(_, stream):
                return self._unsubscribe(stream)
            case SetMode(_, Mode.PRESENCE, stream, str(user_id)):
                return await hub.enable_presence(app, stream, transport, user_id, self._connection_id)
            case SetMode(_, Mode.DIRECT, stream, str(user_id)):
                hub.enable_direct(app, stream, transport, user_id)
            case SetMode(_, _, stream):
                hub.enable_auth(app, stream, transport)
            case UnsetMode(_, mode, stream):
                return self._disable(stream, mode)
            case Direct(_, stream, to_user_id, message):
                from_user_id = self._subscriptions.modes(stream)[Mode.DIRECT]
                assert from_user_id is not None  # only auth mode has no user
                return await hub.send_direct(app, stream, from_user_id, to_user_id, message)
        return 0

    def _disable(self, stream: str, mode: Mode) -> int:
        app, hub, transport = self._app.key, self._hub, self._transport
        match mode, self._subscriptions.modes(stream)[mode]:
            case Mode.PRESENCE, str(user_id):
                return hub.disable_presence(
                    app, stream, transport, user_id, self._connection_id, linger_s=self._linger_s
                )
            case Mode.DIRECT, str(user_id):
                hub.disable_direct(app, stream, transport, user_id)
            case _:
                hub.disable_auth(app, stream, transport)
        return 0

    def _unsubscribe(self, stream: str) -> int:
        events = sum(self._disable(stream, mode) for mode in self._subscriptions.modes(stream))
        self._hub.unsubscribe(self._app.key, stream, self._transport)
        self._hub.memory.add(-subscription_bytes(stream))
        return events

    def _unsubscribe_some(self) -> None:
        """Unsubscribe from a few streams, and from the rest in later turns, since presence ends with each."""
        streams = list(self._subscriptions)
        for stream in streams[:STREAMS_PER_TURN]:
            self._unsubscribe(stream)
            self._subscriptions.commit(Unsubscribe(0, stream))
        if len(streams) > STREAMS_PER_TURN:
            asyncio.get_running_loop().call_soon(self._unsubscribe_some)
