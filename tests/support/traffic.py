"""Publishers and subscribers that run all the time, each in its own thread, and report to a ledger."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from tambur import PublishError, Tambur
from tambur.errors import MessagesMissedError, SubscriberError, SubscriberTimeoutError
from tambur.subscriber import Message, Subscriber

from ..support.app import API_KEY, APP_ID, SECRET
from .ledger import Epoch, Ledger

ROOM = "room"
"""The stream that users are present on."""

TIMEOUT_S = 4.0
RECEIVE_S = 0.5
"""How long a receiver waits, in seconds, before it checks whether it must end."""

CONNECT_PAUSE_S = 0.1

MAX_LAST_PUBLISHES = 20
"""After how many publishes that raised a stopped publisher gives up: no cluster is there any more."""

TOKENS = Tambur(API_KEY, APP_ID, SECRET, "localhost")


class Publisher(threading.Thread):
    """Publishes to one stream until it is stopped, and then until one more publish has returned ``True``.

    Parameters:
        url: where to.
        pause_s: between two publishes, in seconds.
        max_retries, timeout: those of :class:`tambur.Tambur`.
    """

    def __init__(
        self,
        ledger: Ledger,
        stream: str,
        url: str,
        *,
        pause_s: float,
        max_retries: int,
        timeout: float = TIMEOUT_S,
    ) -> None:
        super().__init__(name=f"publisher of {stream}")
        self.stopped = threading.Event()
        self._ledger = ledger
        self._stream = stream
        self._pause_s = pause_s
        self._tambur = Tambur(API_KEY, APP_ID, SECRET, url, max_retries=max_retries, timeout=timeout)

    def run(self) -> None:
        with self._tambur:
            while not self.stopped.wait(self._pause_s):
                self._publish()
            for _ in range(MAX_LAST_PUBLISHES):
                if self._publish():
                    break

    def _publish(self) -> bool:
        number = self._ledger.begin(self._stream)
        try:
            assert self._tambur.publish(self._stream, str(number)) is True
        except PublishError as error:
            self._ledger.end(self._stream, error)
            return False
        self._ledger.end(self._stream, None)
        return True


class Receiver(threading.Thread):
    """A subscriber that connects again whenever its connection is lost.

    Parameters:
        name: unlike all others.
        streams: what it subscribes to.
        user_id: the user that is present in the ROOM; ``None`` for no presence.
        reconnect: whether it leaves it to :class:`Subscriber` to connect again.
    """

    def __init__(
        self,
        ledger: Ledger,
        name: str,
        url: str,
        *streams: str,
        user_id: str | None = None,
        reconnect: bool = False,
    ) -> None:
        super().__init__(name=name)
        self.user_id = user_id
        self.picture: set[str] = set()
        """The users reported as present."""
        self.contradictions: list[str] = []
        self.told = 0
        """How often it learned, after a reconnect, that it may have missed messages."""
        self._ledger = ledger
        self._url = url
        self.streams = streams if user_id is None else (*streams, ROOM)
        self._numbered = streams
        self._reconnect = reconnect
        self._ended = threading.Event()

    def end(self) -> None:
        self._ended.set()

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                with Subscriber(
                    API_KEY, APP_ID, self._url, timeout=TIMEOUT_S, reconnect=self._reconnect
                ) as subscriber:
                    self._subscribe(subscriber)
                    self._receive(subscriber)
            except SubscriberError:
                self._ended.wait(CONNECT_PAUSE_S)

    def _subscribe(self, subscriber: Subscriber) -> None:
        for stream in self.streams:
            subscriber.subscribe(stream)
        if self.user_id is not None:
            subscriber.enable_presence(ROOM, self.user_id, TOKENS.generate_presence_token)

    def _receive(self, subscriber: Subscriber) -> None:
        epoch = self._connected()
        subscriber_id = subscriber.subscriber_id
        try:
            while not self._ended.is_set():
                with contextlib.suppress(SubscriberTimeoutError):
                    message = subscriber.receive(RECEIVE_S)
                    if subscriber.subscriber_id != subscriber_id:
                        subscriber_id = subscriber.subscriber_id
                        epoch = self._connected()
                    self._take(epoch, message)
        except SubscriberError as error:
            self.told += isinstance(error, MessagesMissedError)
            self._ledger.lose(epoch)
            raise

    def _connected(self) -> Epoch:
        self.picture.clear()
        return self._ledger.connect(self.name, self._numbered)

    def _take(self, epoch: Epoch, message: Message) -> None:
        if message.kind != "presence":
            self._ledger.receive(epoch, message.stream, int(message.text))
            return
        assert message.user_id is not None
        if (message.text == "up") == (message.user_id in self.picture):
            self.contradictions.append(f"{self.name} received {message.user_id} {message.text} twice")
        with self._ledger.changed:
            self.picture ^= {message.user_id}
            self._ledger.changed.notify_all()


class Attempts(logging.Handler):
    """Counts the attempts of all publishes, from the line that the publisher logs of each."""

    def __init__(self) -> None:
        super().__init__()
        self.retries = 0

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("publish to") and isinstance(record.args, tuple):
            attempts = record.args[-1]
            assert isinstance(attempts, int)
            self.retries += attempts - 1

    @contextlib.contextmanager
    def listening(self) -> Iterator[Attempts]:
        logger = logging.getLogger("tambur")
        before = logger.level, logger.propagate
        logger.setLevel(logging.DEBUG)
        logger.propagate = False  # a line for each publish is more than pytest should keep
        logger.addHandler(self)
        try:
            yield self
        finally:
            logger.removeHandler(self)
            logger.level, logger.propagate = before
