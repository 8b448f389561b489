"""A connection of extended long polling. Frames wait for confirmation, and commands are done once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ...protocol import close_codes
from ...protocol.polls import MAX_COMMANDS, Poll, as_frame, encode_answer, encode_close, encode_greeting
from ..config import App, Config
from ..connection import Connection
from ..extended_hub import ExtendedHub
from ..memory import UNCOUNTED_BYTES
from ..outbox import Batch
from ..replay import MAX_UNSENT_BYTES
from .waiting import BROKEN_POLL_GRACE_S

CLOSED_GRACE_S = 5.0
"""How long the last frames of a connection that the server has ended are kept, in seconds."""

# The answer of a node: three digits of an HTTP status, then the body.
_OK = b"200"
_UNKNOWN_N = b"400n must not be above the n of the last answer\n"
_BUSY = b"429too many commands of this connection wait\n"


class PolledConnection:
    """A subscriber that polls with a POST: its outbox, and the transport of its connection.

    Parameters:
        secret: names the connection to its client.
        forget: called when no request can reach the connection any more.
    """

    name = "longpoll"
    can_extend = True

    def __init__(
        self,
        secret: str,
        subscriber_id: str,
        app: App,
        hub: ExtendedHub,
        config: Config,
        *,
        forget: Callable[[], object],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._secret = secret
        self._limits = config.limits
        self._hub = hub
        self._forget = forget
        self._ended = False
        # The frames that the client has not confirmed. The last one has the number `_last`.
        self._frames: deque[bytes] = deque()
        self._last = 0
        self._unsent_bytes = 0
        # The handle of the last command that was taken, and how many were taken and answered.
        self._handle = 0
        self._taken = self._answered = 0
        # The request that waits; done with False if a newer one takes its place.
        self._held: asyncio.Future[bool] | None = None
        self._awaited = 0  # it waits until so many commands are answered
        self.counted_bytes = 0
        self._connection = Connection(subscriber_id, app, hub, self, config.limits)
        self._append(encode_greeting(subscriber_id))
        self._expiry = self._loop.call_later(self._limits.ping_timeout_s, self._end)

    # Requests

    async def serve(self, poll: Poll) -> bytes:
        """Take the commands of a request, and wait until there is something to answer.

        A newer request takes the place of this one, which is then answered without frames. A request that is
        cancelled, since it is lost, leaves the client less time to come back.

        Returns:
            The status and the body of the answer.
        """
        if poll.n > self._last:
            return _UNKNOWN_N
        if not self._ended and not self._take(poll):
            return _BUSY
        is_late = poll.n < self._last - len(self._frames) and not self._ended
        self._confirm(poll.n)
        try:
            is_newest = not is_late and await self._hold(poll)
            frames = list(self._frames) if is_newest else []
        finally:
            if poll.close_code is not None:
                self._end(poll.close_code)
        return _OK + encode_answer(self._secret, self._last if frames else poll.n, frames)

    def _take(self, poll: Poll) -> bool:
        """Queue those commands that are new; False if too many would wait."""
        new = []
        handle = self._handle
        for command in map(as_frame, poll.commands):
            if command.handle is None or command.handle > handle:
                handle = command.handle or handle
                new.append(command.text)
        is_too_many = self._taken - self._answered + len(new) > MAX_COMMANDS
        if new and (is_too_many or self._connection.queued_bytes > self._limits.max_poll_bytes):
            return False
        self._handle = handle
        self._taken += len(new)
        for text in new:
            self._connection.receive(text)
        if self.buffered_bytes > UNCOUNTED_BYTES:
            self._hub.memory.count(self)
        return True

    def _confirm(self, n: int) -> None:
        """Forget the frames that the client has."""
        for _ in range(n - self._last + len(self._frames)):
            self._unsent_bytes -= len(self._frames.popleft())
        if self.counted_bytes:
            self._hub.memory.count(self)

    async def _hold(self, poll: Poll) -> bool:
        """Wait until the answer is due; False if a newer request came."""
        if self._ended or (poll.close_code is not None and not poll.commands):
            return True
        self._release(is_newest=False)
        held: asyncio.Future[bool] = self._loop.create_future()
        self._held = held
        # A request with commands is answered with their acks.
        self._awaited = self._taken if poll.commands else 0
        self._expiry.cancel()
        grace_s = self._limits.ping_timeout_s
        timer = self._loop.call_later(self._limits.heartbeat_s, self._release)
        try:
            self._release_if_due()
            return await held
        except asyncio.CancelledError:
            grace_s = min(grace_s, BROKEN_POLL_GRACE_S)
            raise
        finally:
            timer.cancel()
            if self._held in (held, None) and not self._ended:
                self._held = None
                self._expiry.cancel()
                self._expiry = self._loop.call_later(grace_s, self._end)

    def _release(self, *, is_newest: bool = True) -> None:
        """Let the request that waits be answered."""
        held, self._held = self._held, None
        if held is not None and not held.done():
            held.set_result(is_newest)

    def _release_if_due(self) -> None:
        if self._ended or (
            self._frames and (self._answered >= self._awaited or self._unsent_bytes > MAX_UNSENT_BYTES)
        ):
            self._release()

    # Ends

    def _end(self, code: int | None = None) -> None:
        """End the connection, and forget it.

        Parameters:
            code: the client's close code; ``None`` if it is gone.
        """
        self._stop(code)
        self._frames.clear()
        self._unsent_bytes = 0
        self._hub.memory.forget(self)
        self._forget()

    def _stop(self, code: int | None) -> None:
        self._expiry.cancel()
        if not self._ended:
            self._ended = True
            # Not immediately: the hub may be in the middle of writing to all of a stream's outboxes.
            self._loop.call_soon(self._connection.close, code)
        self._release()

    def close(self, code: int, reason: str) -> None:
        """End the connection with a last frame, and keep it for the next request."""
        if self._ended:
            return
        if code == close_codes.SLOW_SUBSCRIBER:
            self._drop_frames()
        self._append(encode_close(code, reason))
        self._stop(code)
        self._expiry = self._loop.call_later(CLOSED_GRACE_S, self._end)

    def shed(self) -> None:
        if self._ended:
            self._end()
            return
        self._drop_frames()
        self.close(close_codes.TRY_AGAIN_LATER, "the server holds too much for its clients")

    def _drop_frames(self) -> None:
        self._frames.clear()
        self._unsent_bytes = 0

    # Callbacks of the connection and the hub

    @property
    def is_open(self) -> bool:
        return not self._ended

    @property
    def unsent_bytes(self) -> int:
        return self._unsent_bytes

    @property
    def written_at(self) -> float:
        return self._loop.time()  # an answer without frames is the heartbeat

    @property
    def buffered_bytes(self) -> int:
        return self._unsent_bytes + self._connection.queued_bytes

    @property
    def subscription_count(self) -> int:
        return self._connection.subscription_count

    def write(self, batch: Batch) -> None:
        if self._ended:
            return
        for event in batch.events:
            self._append(event)
        self._written()

    def write_ack(self, event: bytes) -> None:
        if self._ended:
            return
        self._answered += 1
        self._append(event)
        self._written()

    def drained(self) -> None:
        if self.counted_bytes:
            self._hub.memory.count(self)

    def _append(self, event: bytes) -> None:
        self._frames.append(event)
        self._last += 1
        self._unsent_bytes += len(event)

    def _written(self) -> None:
        if self._unsent_bytes > self._limits.max_unsent_bytes:
            self._connection.drop_slow_subscriber()
        elif self._unsent_bytes > UNCOUNTED_BYTES:
            self._hub.memory.count(self)
        self._release_if_due()
