"""Deliver the queued events to their endpoints: section 10 of the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from ...protocol.webhooks import JOINED, LEFT, decode_secret, make_headers
from ...webhooks import encode, make_event
from ..broker import BrokerUnavailableError
from ..broker.webhooks import QueuedEvent, Taken, WebhookQueues, queue_name
from ..config import App
from ..logs import line
from .client import RequestFailedError, load_tls, post
from .settings import Webhook

MAX_REQUESTS = 4
"""Requests of this process that wait for one endpoint at the same time."""

MIN_BACKOFF_S = 1.0
MAX_BACKOFF_S = 300.0
"""Seconds until an event is sent again. It is half the event's age, between these two."""

LOOK_S = 5.0
"""Seconds after which a queue is looked at, for events that another node has queued or taken."""

UNAVAILABLE_S = 1.0
"""Seconds to wait while the broker cannot be reached."""

logger = logging.getLogger("tambur.server")

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[int]]


class EndpointState(NamedTuple):
    """The state of an endpoint for the metrics.

    Attributes:
        app_id: the app.
        origin: the scheme and the host of the endpoint. The rest of its URL may be secret.
        queue: the name of its queue, which tells it from others of the app.
        waiting: how many events wait, in the whole cluster.
        oldest_s: the age of the oldest one, in seconds.
        succeeded, failed: requests of this process.
        dropped: events that this process found to be dropped.
    """

    app_id: str
    origin: str
    queue: str
    waiting: int
    oldest_s: float
    succeeded: int
    failed: int
    dropped: int


class Webhooks:
    """The endpoints of all apps.

    Parameters:
        apps: the apps.
        queues: where their events wait.
        send: sends one request, and returns the status of the answer.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        apps: Iterable[App],
        queues: WebhookQueues,
        *,
        send: Post = post,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queues = queues
        self._endpoints = {
            queue_name(app.key, webhook.url): _Endpoint(app, webhook, queues, send, clock)
            for app in apps
            for webhook in app.webhooks
        }

    def start(self) -> None:
        """Begin to deliver, in tasks of the running event loop."""
        for endpoint in self._endpoints.values():
            endpoint.start()
        self._queues.wake = self._wake

    def stop(self) -> None:
        """Take no more events: the server stops, and other nodes may send them."""
        self._queues.wake = lambda _: None
        for endpoint in self._endpoints.values():
            endpoint.stop()

    async def close(self) -> None:
        """End the requests that still wait. Their events go back into the queues."""
        self.stop()
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints.values()))

    def states(self) -> list[EndpointState]:
        """The state of each endpoint."""
        return [endpoint.state() for endpoint in self._endpoints.values()]

    def _wake(self, queues: Collection[str]) -> None:
        for queue in queues:
            self._endpoints[queue].wake()


class _Endpoint:
    """One endpoint, with the requests to it. It waits for no other."""

    def __init__(
        self, app: App, webhook: Webhook, queues: WebhookQueues, send: Post, clock: Callable[[], float]
    ) -> None:
        self._app_id = app.app_id
        self._url = webhook.url
        self._key = decode_secret(webhook.secret)
        self._queue = queue_name(app.key, webhook.url)
        self._queues = queues
        self._send = send
        self._clock = clock
        parts = urlsplit(webhook.url)
        if parts.scheme == "https":
            load_tls()  # it takes some 20 ms, which nothing waits for yet
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._awake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._requests: dict[asyncio.Task[None], QueuedEvent] = {}
        # The request with the newest event of each user of a stream.
        self._newest: dict[tuple[object, ...], asyncio.Task[None]] = {}
        self._taken = Taken((), None, 0, 0.0, 0)
        self._succeeded = self._failed = self._dropped = 0
        self._is_failing = False
        self._is_stopped = False

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        self._is_stopped = True
        self._awake.set()
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        ended = dict(self._requests)
        for task in ended:
            task.cancel()
        tasks = [*ended, *filter(None, [self._task])]
        await asyncio.gather(*tasks, return_exceptions=True)
        for event in ended.values():
            with contextlib.suppress(BrokerUnavailableError):
                await self._queues.retry(self._queue, event.version, 0)

    def wake(self) -> None:
        self._awake.set()

    def state(self) -> EndpointState:
        counts = self._succeeded, self._failed, self._dropped
        taken = self._taken
        return EndpointState(self._app_id, self._origin, self._queue, taken.waiting, taken.oldest_s, *counts)

    async def _run(self) -> None:
        # Python before 3.12 may lose a cancellation of wait_for.
        while not self._is_stopped:
            try:
                wait_s = await self._take()
            except BrokerUnavailableError:
                wait_s = UNAVAILABLE_S
            except Exception:
                logger.exception(
                    line("webhooks failed, trying again", app=self._app_id, endpoint=self._origin)
                )
                wait_s = LOOK_S
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._awake.wait(), wait_s)
            self._awake.clear()

    async def _take(self) -> float:
        """Send what is due. Returns in how many seconds to look again."""
        free = MAX_REQUESTS - len(self._requests)
        self._taken = taken = await self._queues.take(self._queue, free)
        if taken.dropped:
            self._dropped += taken.dropped
            facts = {"app": self._app_id, "endpoint": self._origin, "events": taken.dropped}
            logger.error(line("webhook events dropped, too many or too old", **facts))
        for event in taken.events:
            # Events of one user leave one after another, since they would overtake each other.
            before = self._newest.get(event[2:])
            request = asyncio.get_running_loop().create_task(self._deliver(event, before))
            self._newest[event[2:]] = request
            self._requests[request] = event
            request.add_done_callback(self._end_request)
        if free == 0 or taken.next_s is None:
            return LOOK_S  # a request that ends wakes this up, and so does an event
        return min(LOOK_S, taken.next_s)

    def _end_request(self, request: asyncio.Task[None]) -> None:
        event = self._requests.pop(request)
        # When the server stops, a newer one may have ended before.
        if self._newest.get(event[2:]) is request:
            del self._newest[event[2:]]
        self._awake.set()

    async def _deliver(self, queued: QueuedEvent, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        version, is_up, app, stream, user_id = queued
        event = make_event(JOINED if is_up else LEFT, app.app_id, stream, user_id, version)
        body, now = encode(event), self._clock()
        try:
            status = await self._send(self._url, make_headers(self._key, event.id, int(now), body), body)
            reason = "" if 200 <= status < 300 else f"status {status}"
        except RequestFailedError as error:
            reason = str(error)
        except Exception:
            logger.exception(line("webhook failed", app=self._app_id, endpoint=self._origin))
            reason = "internal error"
        self._log(reason)
        # Without the broker, the lease ends and the event is sent again.
        with contextlib.suppress(BrokerUnavailableError):
            if not reason:
                self._succeeded += 1
                await self._queues.finish(self._queue, version)
            else:
                self._failed += 1
                age_s = now - version / 1_000_000
                delay_s = min(MAX_BACKOFF_S, max(MIN_BACKOFF_S, age_s / 2))
                await self._queues.retry(self._queue, version, delay_s)

    def _log(self, reason: str) -> None:
        """Log the first failure after a success, and the first success after a failure."""
        if bool(reason) != self._is_failing:
            self._is_failing = bool(reason)
            facts = {"app": self._app_id, "endpoint": self._origin, "reason": reason or None}
            if reason:
                logger.warning(line("webhook not accepted, trying again", **facts))
            else:
                logger.warning(line("webhooks are accepted again", **facts))
