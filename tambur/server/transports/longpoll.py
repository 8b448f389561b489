"""Long polling, for where WebSockets don't pass: section 6 of the protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..apps import Apps
from ..broker import AppKey, BrokerUnavailableError, NodeCalls
from ..config import App, Config
from ..connection import MAX_QUEUED_COMMANDS, Connection
from ..extended_hub import ExtendedHub
from ..memory import UNCOUNTED_BYTES, Holder
from ..outbox import Batch
from .extended_longpoll import QUESTION, TOO_MANY, TOO_MANY_RETRY_AFTER, ExtendedLongPolls
from .jsonp import empty_answer, parse_caller, refuse_page
from .refusal import NO_LONG_POLLING, UNKNOWN_APP, Refusal
from .waiting import BROKEN_POLL_GRACE_S, NODE_DELAY_S, unless_gone

_PATH = re.compile(rb"/comet(/[^/]+/[^/]+)(?:/([^/]+))?")

_UNKNOWN = b"unknown"  # no event: those are JSON arrays


class LongPolls:
    """All subscribers of a server that poll."""

    def __init__(self, config: Config, hub: ExtendedHub, calls: NodeCalls) -> None:
        self._config = config
        self._hub = hub
        self._calls = calls
        self._apps = Apps(config.apps)
        self._subscribers: dict[tuple[AppKey, str], _Subscriber] = {}
        self._extended = ExtendedLongPolls(config, hub, calls, may_open=self._may_open)

    @property
    def routes(self) -> list[Route]:
        """What answers ``/comet/...``."""
        return [Route("/comet/{rest:path}", self._answer, methods=["GET", "POST", "OPTIONS"])]

    @property
    def holders(self) -> Iterable[Holder]:
        """All subscribers, as far as memory is concerned."""
        return itertools.chain(self._subscribers.values(), self._extended.holders)

    def shutdown(self) -> None:
        """End every connection; polls that wait are answered."""
        for subscriber in list(self._subscribers.values()):
            subscriber.end()
        self._extended.shutdown()

    def _may_open(self) -> bool:
        limit = self._config.limits.max_long_polling_subscribers
        return len(self._subscribers) + len(self._extended) < limit

    async def _answer(self, request: Request) -> Response:
        path = _PATH.fullmatch(request.scope["raw_path"])
        app = self._apps.at(path[1]) if path is not None else None
        if path is None or app is None:
            return self._refuse(request, UNKNOWN_APP)
        if not app.long_polling:
            return self._refuse(request, NO_LONG_POLLING)
        if path[2] is None and request.method in {"POST", "OPTIONS"}:
            return await self._extended.answer(request, app)
        if request.method != "GET":
            return PlainTextResponse("poll with GET\n", 405, {"Allow": "GET"})  # a HEAD would lose a message
        if (refusal := refuse_page(app, request)) is not None:
            return self._refuse(request, refusal)
        caller = parse_caller(request)
        if isinstance(caller, Response):
            return caller
        if path[2] is None:
            if not self._may_open():
                return PlainTextResponse(TOO_MANY, 503, {"Retry-After": TOO_MANY_RETRY_AFTER})
            return caller.answer(f"id:{self._connect(app)}")
        serving = self._serve(app.key, unquote(path[2]), request.query_params.get("data"))
        try:
            event = await unless_gone(request, serving)
        except BrokerUnavailableError as error:
            headers = {"Retry-After": str(math.ceil(error.retry_after_s))}
            return PlainTextResponse(f"{error}\n", 503, headers)
        if event == _UNKNOWN:
            return PlainTextResponse("there is no such connection any more\n", 404)
        return caller.answer(json.loads(event)) if event else empty_answer()

    def _refuse(self, request: Request, refusal: Refusal) -> Response:
        path = _PATH.fullmatch(request.scope["raw_path"])
        refusal.record(self._hub.counts, path[1] if path is not None else b"", "longpoll")
        return refusal.answer()

    async def _serve(self, app: AppKey, subscriber_id: str, data: str | None) -> bytes:
        """Serve a request, or have the node serve it that has the subscriber.

        Without stickiness a balancer sends each request to any node.
        """
        if (app, subscriber_id) in self._subscribers:
            return await self._serve_here(app, subscriber_id, data)
        question = json.dumps([*app, subscriber_id, data]).encode()
        timeout_s = self._config.limits.ping_interval_s + NODE_DELAY_S
        answer = await self._calls.ask(subscriber_id, question, timeout_s=timeout_s)
        return _UNKNOWN if answer is None else answer

    async def answer(self, question: bytes) -> bytes:
        """Serve a request that reached another node."""
        if question.startswith(QUESTION):
            return await self._extended.answer_node(question)
        api_key, app_id, subscriber_id, data = json.loads(question)
        return await self._serve_here(AppKey(api_key, app_id), subscriber_id, data)

    async def _serve_here(self, app: AppKey, subscriber_id: str, data: str | None) -> bytes:
        """Returns an event, or nothing for an empty answer."""
        subscriber = self._subscribers.get((app, subscriber_id))
        if subscriber is None:
            return _UNKNOWN
        if data == "fin":
            subscriber.end()
            return b""
        event = await (subscriber.poll() if data is None else subscriber.command(data))
        return event or b""

    def _connect(self, app: App) -> str:
        subscriber_id = self._hub.new_subscriber_id()
        key = app.key, subscriber_id
        self._subscribers[key] = _Subscriber(
            subscriber_id, app, self._hub, self._config, forget=partial(self._subscribers.pop, key)
        )
        return subscriber_id


class _Subscriber:
    """A polling subscriber: its outbox, and the transport of its connection.

    Parameters:
        forget: called once, when the connection has ended.
    """

    can_extend = False
    written_at = 0.0  # the connection is not extended, so it is sent no heartbeats

    def __init__(
        self, subscriber_id: str, app: App, hub: ExtendedHub, config: Config, *, forget: Callable[[], object]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = config.limits
        self._hub = hub
        self._forget = forget
        self._ended = False
        self._events: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._poll: asyncio.Future[bytes | None] | None = None
        # The results of the queued commands, in the order of the queue.
        self._acks: deque[asyncio.Future[bytes | None]] = deque()
        # A queued command is answered even if its request is lost, so the queue is short. The requests of all
        # other commands wait for a place in it, and leave nothing behind when they are lost.
        self._places = asyncio.Semaphore(MAX_QUEUED_COMMANDS)
        self.counted_bytes = 0
        self._connection = Connection(subscriber_id, app, hub, self, config.limits)
        self._expiry = self._loop.call_later(self._limits.ping_timeout_s, self.end)

    # Operations of requests

    async def poll(self) -> bytes | None:
        """Wait for one event, in place of any earlier poll.

        A poll that is cancelled, since its request is lost, leaves the client less time to come back.

        Returns:
            The event; ``None`` if there is none in time, or a newer poll arrives.
        """
        self._answer_poll(None)
        self._expiry.cancel()
        grace_s = self._limits.ping_timeout_s
        poll: asyncio.Future[bytes | None] = self._loop.create_future()
        timeout = self._loop.call_later(self._limits.ping_interval_s, _settle, poll, None)
        try:
            if self._events:
                event = self._events.popleft()
                self._unsent_bytes -= len(event)
                if self.counted_bytes:
                    self._hub.memory.count(self)
                return event
            self._poll = poll
            return await poll
        except asyncio.CancelledError:
            grace_s = min(grace_s, BROKEN_POLL_GRACE_S)
            if poll.done() and not poll.cancelled() and (missed := poll.result()) is not None:
                self._events.appendleft(missed)
                self._unsent_bytes += len(missed)
            raise
        finally:
            timeout.cancel()
            if self._poll is poll:
                self._poll = None
            if self._poll is None and not self._ended:
                self._expiry.cancel()
                self._expiry = self._loop.call_later(grace_s, self.end)

    async def command(self, text: str) -> bytes | None:
        """Have one command answered; ``None`` if the connection ends before."""
        await self._places.acquire()
        if self._ended:
            self._places.release()  # for the next that waits
            return None
        ack: asyncio.Future[bytes | None] = self._loop.create_future()
        self._acks.append(ack)
        self._connection.receive(text)
        if self.buffered_bytes > UNCOUNTED_BYTES:
            self._hub.memory.count(self)
        return await ack

    def end(self) -> None:
        """End the connection; waiting requests get an empty answer."""
        if self._ended:
            return
        self._ended = True
        self._expiry.cancel()
        self._answer_poll(None)
        for ack in self._acks:
            _settle(ack, None)
        self._acks.clear()
        self._places.release()
        self._events.clear()
        self._unsent_bytes = 0
        self._hub.memory.forget(self)
        self._forget()
        # Not immediately: the hub may be in the middle of writing to all of a stream's outboxes.
        self._loop.call_soon(self._connection.close)

    def _answer_poll(self, event: bytes | None) -> None:
        poll, self._poll = self._poll, None
        if poll is not None:
            _settle(poll, event)

    # Callbacks of the connection and the hub

    name = "longpoll"

    @property
    def is_open(self) -> bool:
        return not self._ended

    @property
    def unsent_bytes(self) -> int:
        return self._unsent_bytes

    def write(self, batch: Batch) -> None:
        if self._ended:
            return
        for event in batch.events:
            if self._poll is not None and not self._poll.done():
                self._answer_poll(event)
            else:
                self._keep(event)
        if self._unsent_bytes > self._limits.max_unsent_bytes:
            self._connection.drop_slow_subscriber()
        elif self._unsent_bytes > UNCOUNTED_BYTES:
            self._hub.memory.count(self)

    @property
    def buffered_bytes(self) -> int:
        return self._unsent_bytes + self._connection.queued_bytes

    @property
    def subscription_count(self) -> int:
        return self._connection.subscription_count

    def shed(self) -> None:
        self.end()

    def _keep(self, event: bytes) -> None:
        self._events.append(event)
        self._unsent_bytes += len(event)

    def write_ack(self, event: bytes) -> None:
        if self._acks:
            _settle(self._acks.popleft(), event)
            self._places.release()

    def drained(self) -> None:
        if self.counted_bytes:
            self._hub.memory.count(self)

    def close(self, _code: int, _reason: str) -> None:
        self.end()


def _settle(future: asyncio.Future[bytes | None], event: bytes | None) -> None:
    if not future.done():
        future.set_result(event)
