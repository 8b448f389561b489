"""A node's link to Redis: a connection for commands and one for messages, which fail together."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

import hiredis

from ...logs import line
from .. import BrokerUnavailableError

CALL_TIMEOUT_S = 2.0
"""Seconds to wait for a pending reply of Redis before the link fails."""

CLOSE_TIMEOUT_S = 0.5
"""Seconds to wait for a connection to close."""

RETRY_AFTER_S = 1.0
"""Seconds after which a caller should retry while Redis cannot be reached."""

_TICKS = 4

_numbers = itertools.count(1)

logger = logging.getLogger("tambur.server")


class RedisConnection(Protocol):
    """A connection to Redis, with the methods of :mod:`redis.asyncio` that a link uses."""

    async def connect(self) -> None: ...

    async def disconnect(self) -> None: ...

    async def send_packed_command(self, command: Iterable[bytes], check_health: bool = ...) -> None: ...  # noqa: FBT001

    async def read_response(
        self,
        disable_decoding: bool = ...,  # noqa: FBT001
        *,
        disconnect_on_error: bool = ...,
    ) -> Any: ...


class _Writer:
    """Sends commands in their order; those of one turn of the event loop leave together."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._unsent: list[tuple[Any, ...]] = []
        self._wake = asyncio.Event()
        self.count = 0
        """How many times commands were sent."""

    def write(self, *command: Any) -> None:
        self._unsent.append(command)
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            commands, self._unsent = self._unsent, []
            self.count += 1
            packed = b"".join(map(hiredis.pack_command, commands))
            await self._connection.send_packed_command([packed], check_health=False)


class Link:
    """Two connections to Redis. Any failure of a call fails the whole link; the next link repairs the state.

    Parameters:
        commands, messages: two connections, not connected yet.
        receive: called with the channel and the data of each message.

    Attributes:
        failed: pending while the link works; its result is the error.
    """

    def __init__(
        self,
        commands: RedisConnection,
        messages: RedisConnection,
        receive: Callable[[bytes, bytes], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connections = commands, messages
        self._commands, self._messages = _Writer(commands), _Writer(messages)
        self._receive = receive
        self.failed: asyncio.Future[BaseException] = self._loop.create_future()
        # Pending replies: to each command in order; on the other connection confirmations by
        # channel, and replies among the messages by their first line.
        self._calls: deque[asyncio.Future[Any] | None] = deque()
        self._confirmations: dict[bytes, asyncio.Future[None]] = {}
        self._replies: dict[bytes, tuple[asyncio.Future[Any], Callable[[bytes], Any]]] = {}
        self._quiet_ticks = [0, 0]
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect.

        Raises:
            Exception: of redis and asyncio, if that fails.
        """
        for connection in self._connections:
            await asyncio.wait_for(connection.connect(), CALL_TIMEOUT_S)
        for work in (
            self._commands.run(),
            self._messages.run(),
            self._read_replies(self._connections[0]),
            self._read_messages(self._connections[1]),
        ):
            self._tasks.append(self._loop.create_task(self._guard(work)))
        self._tick()

    async def close(self) -> None:
        """Disconnect without waiting for pending replies."""
        self.fail(ConnectionAbortedError("the link was closed"))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        closing = [asyncio.wait_for(one.disconnect(), CLOSE_TIMEOUT_S) for one in self._connections]
        await asyncio.gather(*closing, return_exceptions=True)

    # Sending.

    @property
    def batch(self) -> int:
        """The number of the commands that leave next: those with one number leave together."""
        return self._commands.count

    def call(self, *command: Any) -> asyncio.Future[Any]:
        """Send a command; the result is its reply, or a :class:`BrokerUnavailableError` if none comes."""
        reply = self._promise()
        self._calls.append(reply)
        self._commands.write(*command)
        return reply

    def send(self, *command: Any) -> None:
        """Send a command and ignore its reply."""
        self._calls.append(None)
        self._commands.write(*command)

    def subscribe(self, channel: bytes) -> asyncio.Future[None]:
        """Receive the messages of a channel, once the result is there."""
        confirmed = self._confirmations[channel] = self._promise()
        self._messages.write("SUBSCRIBE", channel)
        return confirmed

    def unsubscribe(self, channel: bytes) -> None:
        """Stop receiving from a channel."""
        self._messages.write("UNSUBSCRIBE", channel)

    def ask(self, parse: Callable[[bytes], Any]) -> tuple[bytes, asyncio.Future[Any]]:
        """Expect a reply among the messages, which a script publishes.

        Parameters:
            parse: called with the reply in its turn among the messages; returns the result.

        Returns:
            The first line of the reply's message, and the result.
        """
        # Numbers are unique among links: a late reply to a former link must not match.
        head = b"answer %d\n" % next(_numbers)
        replied = self._promise()
        self._replies[head] = replied, parse
        return head, replied

    def forget(self, head: bytes) -> None:
        """Expect a reply among the messages no longer: the script did not publish it, or nobody waits."""
        self._replies.pop(head, None)

    # Receiving.

    async def _read_replies(self, connection: RedisConnection) -> None:
        while True:
            reply = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
            self._quiet_ticks[0] = 0
            waiting = self._calls.popleft()
            if waiting is not None:
                _settle(waiting, reply)

    async def _read_messages(self, connection: RedisConnection) -> None:
        while True:
            message = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
            self._quiet_ticks[1] = 0
            word, channel, data = message
            if word == b"message":
                try:
                    self._take(channel, data)
                except Exception:
                    name = channel.decode("utf-8", "replace")
                    logger.exception(line("message from Redis lost", channel=name))
            elif word == b"subscribe" and channel in self._confirmations:
                _settle(self._confirmations.pop(channel), None)

    def _take(self, channel: bytes, data: bytes) -> None:
        if not data.startswith(b"answer "):
            self._receive(channel, data)
            return
        head, line_break, rest = data.partition(b"\n")
        head += line_break
        if head in self._replies:
            replied, parse = self._replies[head]
            try:
                _settle(replied, parse(rest))
            except Exception as error:
                self.fail(error)
                raise
            del self._replies[head]

    # Failure.

    def fail(self, error: BaseException) -> None:
        """Close the link, and fail all pending replies."""
        if self.failed.done():
            return
        self.failed.set_result(error)
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        replies = [replied for replied, _ in self._replies.values()]
        for waiting in [*self._calls, *self._confirmations.values(), *replies]:
            if waiting is not None and not waiting.done():
                _break(waiting)

    def _promise(self) -> asyncio.Future[Any]:
        promised: asyncio.Future[Any] = self._loop.create_future()
        if self.failed.done():
            _break(promised)
        return promised

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - any error fails the link
            self.fail(error)

    def _tick(self) -> None:
        # Counting ticks, not seconds: if this process was stopped, Redis is not late.
        for i, pending in enumerate((self._calls, self._confirmations or self._replies)):
            self._quiet_ticks[i] = self._quiet_ticks[i] + 1 if pending else 0
        if max(self._quiet_ticks) > _TICKS:
            self.fail(asyncio.TimeoutError(f"no answer within {CALL_TIMEOUT_S:g} s"))
        else:
            self._timer = self._loop.call_later(CALL_TIMEOUT_S / _TICKS, self._tick)


def _break(promise: asyncio.Future[Any]) -> None:
    promise.set_exception(BrokerUnavailableError("the broker cannot be reached", RETRY_AFTER_S))
    promise.exception()  # asyncio complains about exceptions that nothing retrieves


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
