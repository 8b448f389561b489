"""A node's link to Redis: a connection for commands and one for messages, which fail together."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from ...logs import line
from .. import BrokerUnavailableError

CALL_TIMEOUT_S = 2.0
"""After how many seconds without a word from Redis, while it owes one, the link has failed."""

CLOSE_TIMEOUT_S = 0.5
"""How long saying goodbye to Redis may take, in seconds."""

RETRY_AFTER_S = 1.0
"""After how many seconds trying again makes sense while Redis is away."""

_TICKS = 4

_numbers = itertools.count(1)

logger = logging.getLogger("tambur.server")


class Wire(Protocol):
    """A connection to Redis, as :mod:`redis.asyncio` has it."""

    async def connect(self) -> None: ...

    async def disconnect(self) -> None: ...

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]: ...

    async def send_packed_command(self, command: Iterable[bytes], check_health: bool = ...) -> None: ...  # noqa: FBT001

    async def read_response(
        self,
        disable_decoding: bool = ...,  # noqa: FBT001
        *,
        disconnect_on_error: bool = ...,
    ) -> Any: ...


class _Writer:
    """Sends commands in their order; those of one turn of the event loop leave together."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._unsent: list[tuple[Any, ...]] = []
        self._wake = asyncio.Event()

    def write(self, *command: Any) -> None:
        self._unsent.append(command)
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            commands, self._unsent = self._unsent, []
            await self._wire.send_packed_command(self._wire.pack_commands(commands), check_health=False)


class Link:
    """Whatever goes wrong with a call fails the whole link; the next one finds out what was done.

    Parameters:
        commands, messages: two connections, not connected yet.
        receive: called with the channel and the data of each message.
    """

    def __init__(self, commands: Wire, messages: Wire, receive: Callable[[bytes, bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._wires = commands, messages
        self._commands, self._messages = _Writer(commands), _Writer(messages)
        self._receive = receive
        self.failed: asyncio.Future[BaseException] = self._loop.create_future()
        """Its result is what went wrong; it has none as long as all is well."""
        # What Redis owes: an answer to each command, in their order, and on the other connection
        # confirmations by channel and answers by their heads.
        self._calls: deque[asyncio.Future[Any] | None] = deque()
        self._confirmations: dict[bytes, asyncio.Future[None]] = {}
        self._questions: dict[bytes, tuple[asyncio.Future[Any], Callable[[bytes], Any]]] = {}
        self._quiet_ticks = [0, 0]
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect.

        Raises:
            Exception: of redis and asyncio, if that fails.
        """
        for wire in self._wires:
            await asyncio.wait_for(wire.connect(), CALL_TIMEOUT_S)
        for work in (
            self._commands.run(),
            self._messages.run(),
            self._read_answers(self._wires[0]),
            self._read_messages(self._wires[1]),
        ):
            self._tasks.append(self._loop.create_task(self._guard(work)))
        self._tick()

    async def close(self) -> None:
        """Disconnect; what is owed is not waited for."""
        self.fail(ConnectionAbortedError("the link was closed"))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        closing = [asyncio.wait_for(wire.disconnect(), CLOSE_TIMEOUT_S) for wire in self._wires]
        await asyncio.gather(*closing, return_exceptions=True)

    # What goes out.

    def call(self, *command: Any) -> asyncio.Future[Any]:
        """Send a command; its answer is the result, or a :class:`BrokerUnavailableError` if none comes."""
        answer = self._promise()
        self._calls.append(answer)
        self._commands.write(*command)
        return answer

    def send(self, *command: Any) -> None:
        """Send a command whose answer is of no interest."""
        self._calls.append(None)
        self._commands.write(*command)

    def subscribe(self, channel: bytes) -> asyncio.Future[None]:
        """Have what is published to a channel received, once the result is there."""
        confirmed = self._confirmations[channel] = self._promise()
        self._messages.write("SUBSCRIBE", channel)
        return confirmed

    def unsubscribe(self, channel: bytes) -> None:
        """Have what is published to a channel received no more."""
        self._messages.write("UNSUBSCRIBE", channel)

    def ask(self, understand: Callable[[bytes], Any]) -> tuple[bytes, asyncio.Future[Any]]:
        """Expect an answer among the messages.

        Parameters:
            understand: called with the answer when its turn among the messages has come, and makes
                the result of it.

        Returns:
            What the message begins with that is the answer, and the result.
        """
        # No two links count alike: an answer to one that was given up is no answer to its successor.
        head = b"answer %d\n" % next(_numbers)
        answered = self._promise()
        self._questions[head] = answered, understand
        return head, answered

    # What comes in.

    async def _read_answers(self, wire: Wire) -> None:
        while True:
            answer = await wire.read_response(disable_decoding=True, disconnect_on_error=False)
            self._quiet_ticks[0] = 0
            waiting = self._calls.popleft()
            if waiting is not None:
                _settle(waiting, answer)

    async def _read_messages(self, wire: Wire) -> None:
        while True:
            message = await wire.read_response(disable_decoding=True, disconnect_on_error=False)
            self._quiet_ticks[1] = 0
            match message:
                case [b"message", bytes(channel), bytes(data)]:
                    try:
                        self._take(channel, data)
                    except Exception:
                        told = channel.decode("utf-8", "replace")
                        logger.exception(line("message from Redis lost", channel=told))
                case [b"subscribe", bytes(channel), _] if channel in self._confirmations:
                    _settle(self._confirmations.pop(channel), None)

    def _take(self, channel: bytes, data: bytes) -> None:
        if not data.startswith(b"answer "):
            self._receive(channel, data)
            return
        head, line_break, rest = data.partition(b"\n")
        head += line_break
        if head in self._questions:
            answered, understand = self._questions[head]
            _settle(answered, understand(rest))
            del self._questions[head]

    # Failure.

    def fail(self, error: BaseException) -> None:
        """Give up: nothing goes out any more, and what is owed will not come."""
        if self.failed.done():
            return
        self.failed.set_result(error)
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        questions = [answered for answered, _ in self._questions.values()]
        for waiting in [*self._calls, *self._confirmations.values(), *questions]:
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
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told as the failure
            self.fail(error)

    def _tick(self) -> None:
        # Ticks are counted, not seconds: if it is this process that was stopped, Redis is not to blame.
        for i, owed in enumerate((self._calls, self._confirmations or self._questions)):
            self._quiet_ticks[i] = self._quiet_ticks[i] + 1 if owed else 0
        if max(self._quiet_ticks) > _TICKS:
            self.fail(asyncio.TimeoutError(f"no answer within {CALL_TIMEOUT_S:g} s"))
        else:
            self._timer = self._loop.call_later(CALL_TIMEOUT_S / _TICKS, self._tick)


def _break(promise: asyncio.Future[Any]) -> None:
    promise.set_exception(BrokerUnavailableError("the broker cannot be reached", RETRY_AFTER_S))
    promise.exception()  # asyncio complains of those that nobody looks at, which are some here


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
