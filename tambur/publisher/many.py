"""Publishes many messages in batches; without batches, streams side by side, and each stream in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import InvalidMessageError, InvalidNameError, TamburError
from ..protocol.names import Name, check_destination
from . import batches
from .attempt import check_timeout
from .batches import MAX_BYTES, MAX_MESSAGES, Message, NoBatchesError

if TYPE_CHECKING:
    from .client import Tambur

Pair: TypeAlias = tuple[int, Name, Any]


def publish_many(
    self: Tambur,
    pairs: Iterable[tuple[Name, Any]],
    *,
    timeout: float | tuple[float, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[bool | TamburError]:
    """Publish many messages, to each stream in the given order.

    One request holds up to 1,000 messages, and the server delivers each message once (section 8 of the
    protocol). A server without batches gets a request for each message, over up to ``pool_maxsize``
    connections at once; a subclass with its own ``publish`` gets a call for each. A message that fails does
    not stop the others, not even those to the same stream.

    Parameters:
        pairs: pairs of a stream and a message, as in :meth:`publish`. All are read before the first
            is sent.
        timeout: the timeout of each request, as in :meth:`publish`.
        progress: called in this thread after each message, with the number of finished messages and the
            number of all; ``None`` for no calls. If it raises, or on Ctrl-C, no other request is sent,
            and those under way are finished.

    Returns:
        For each pair, in the same order, ``True`` or the error of its :meth:`publish`.

    Raises:
        InvalidMessageError: if one of them is not a pair. Nothing is sent then.
    """
    self._warn_once()
    timeouts = None if timeout is None else check_timeout(timeout)
    numbered = [(number, *_check_pair(number, pair)) for number, pair in enumerate(pairs)]
    total = len(numbered)
    if not total:
        return []
    outcomes: list[bool | TamburError] = [False] * total
    with ThreadPoolExecutor(self._pool_maxsize, "tambur-publish") as executor:
        run = _Run(self, timeouts, executor)
        try:
            run.start(numbered)
            for done in range(1, total + 1):
                number, outcome = run.finished.get()
                if not isinstance(outcome, (bool, TamburError)):
                    raise outcome  # noqa: TRY301 - it ends everything, as an error in progress does
                outcomes[number] = outcome
                if progress is not None:
                    progress(done, total)
        except BaseException:
            run.stopped.set()  # requests under way are finished, no other is begun
            executor.shutdown(cancel_futures=True)
            raise
    return outcomes


def _check_pair(number: int, pair: object) -> tuple[Any, Any]:
    # A text of two characters could be unpacked, too.
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        length = f" of {len(pair)}" if isinstance(pair, (tuple, list)) else ""
        found = f"{type(pair).__name__}{length}, at index {number}"
        raise InvalidMessageError(f"pairs must be pairs of a stream and a message, not {found}")
    stream, message = pair
    return stream, message


class _Run:
    """The work of the threads.

    Attributes:
        finished: the number and the outcome of each message.
        stopped: set when no other request may begin.
    """

    def __init__(
        self, tambur: Tambur, timeouts: tuple[float, float] | None, executor: ThreadPoolExecutor
    ) -> None:
        self.finished: queue.SimpleQueue[tuple[int, bool | BaseException]] = queue.SimpleQueue()
        self.stopped = threading.Event()
        self._tambur = tambur
        self._timeouts = timeouts
        self._executor = executor

    def start(self, pairs: list[Pair]) -> None:
        if len(pairs) == 1 or not batches.are_usable(self._tambur):
            self._start_single(pairs)
        else:
            self._submit(self._send_batches, pairs)

    def _start_single(self, pairs: list[Pair]) -> None:
        """Publish each message by itself, in a thread for each stream."""
        streams: dict[str, list[Pair]] = {}
        for pair in pairs:
            streams.setdefault(_key(pair[1]), []).append(pair)
        for of_stream in streams.values():
            self._submit(self._publish_all, of_stream)

    def _submit(self, work: Callable[[list[Pair]], None], pairs: list[Pair]) -> None:
        def run() -> None:
            try:
                work(pairs)
            except BaseException as error:  # noqa: BLE001 - the calling thread handles it
                self.finished.put((pairs[0][0], error))

        self._executor.submit(run)

    def _publish_all(self, pairs: list[Pair]) -> None:
        for number, stream, message in pairs:
            if self.stopped.is_set():
                return
            self._publish(number, stream, message)

    def _publish(self, number: int, stream: Name, message: Any) -> None:
        # A subclass written for the 2012 package may have a publish() without a timeout.
        options: Any = {} if self._timeouts is None else {"timeout": self._timeouts}
        try:
            self.finished.put((number, self._tambur.publish(stream, message, **options)))
        except BaseException as error:  # noqa: BLE001 - the calling thread handles it
            self.finished.put((number, error))

    def _send_batches(self, pairs: list[Pair]) -> None:
        """Publish in batches; without them, each message by itself."""
        batch: list[Message] = []
        size = 0
        for position, pair in enumerate(pairs):
            try:
                message = batches.encode(self._tambur, *pair)
            except TamburError as error:
                self.finished.put((pair[0], error))
                continue
            if batch and (len(batch) == MAX_MESSAGES or size + message.encoded_bytes > MAX_BYTES):
                left = self._send(batch)
                if self.stopped.is_set():
                    return
                if left:
                    self._start_single(left + pairs[position:])
                    return
                batch, size = [], 0
            batch.append(message)
            size += message.encoded_bytes
        if batch and (left := self._send(batch)):
            self._start_single(left)

    def _send(self, batch: list[Message]) -> list[Pair]:
        """Publish one batch. Returns the messages that are left if the server has no batches."""
        try:
            for message, outcome in batches.send(self._tambur, batch, self._timeouts):
                if self.stopped.is_set():
                    break
                if outcome is None:
                    self._publish(message.number, message.stream, message.message)
                else:
                    self.finished.put((message.number, outcome))
        except NoBatchesError as error:
            return [message[:3] for message in error.left]
        return []


def _key(stream: object) -> str:
    """One key for all forms of a stream's name, and one for the invalid names, which publish refuses."""
    try:
        return check_destination(stream)
    except InvalidNameError:
        return ""
