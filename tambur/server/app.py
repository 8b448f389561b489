"""The composition root: makes the parts of a server, starts them and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from typing import Any, cast

import uvicorn
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from .acceptor import Acceptor
from .api import health, static
from .api.batch import BatchHandler
from .api.publish import PublishHandler
from .api.queries import QueryHandler
from .api.routes import make_app
from .apps import Apps
from .broker import Backend
from .broker.factory import from_url
from .cluster import QUESTION, Cluster
from .config import Config, Limits
from .console.listener import Console
from .console.nodes import Nodes
from .console.parts import Parts
from .console.reports import Reports
from .console.watch import Watch
from .disconnects import Disconnects
from .extended_hub import ExtendedHub
from .listeners import allow_open_files, listen, listener_url, load_tls, reserve_port
from .queries import Queries
from .transports import balancer
from .transports.handshake import Handshakes
from .transports.http_protocol import BoundedHttpProtocol
from .transports.longpoll import LongPolls
from .transports.reading import limit_tls_buffers, make_read_buffer
from .transports.websocket import Context, WebSocket
from .webhooks.delivery import Webhooks
from .workers import run_workers

KEEP_ALIVE_S = 65
"""Seconds that a connection may be idle between two requests."""

WORKER_END_S = 1.7
"""Seconds that a worker may take to end, beyond ``shutdown_timeout_s``."""

_END_CHECK_S = 0.01
"""Seconds between two looks at the connections that are still open when the server ends."""


class Server:
    """Binds on construction, and serves after :meth:`run`.

    Parameters:
        config: the apps, limits and addresses.
        routes: further routes, such as those of the demo.
        shares_port: whether other processes listen on the same port. The kernel distributes connections.

    Raises:
        ConfigurationError: if the host and port, the certificate or the broker cannot be used.
    """

    def __init__(
        self, config: Config, routes: Sequence[BaseRoute] = (), *, shares_port: bool = False
    ) -> None:
        tls = load_tls(config)
        self._backend = _make_backend(config)
        self._hub = ExtendedHub(
            self._backend, coalesce_window_s=config.coalesce_window_ms / 1000, limits=config.limits
        )
        self._webhooks = Webhooks(config.apps, self._backend.webhooks)
        self._long_polls = LongPolls(config, self._hub, self._backend.calls)
        self._cluster = Cluster(self._backend.calls)
        self._disconnects = Disconnects(self._backend, self._hub, self._cluster)
        self._queries = Queries(self._backend, self._hub, self._cluster)
        read_buffer = make_read_buffer()
        handshakes = Handshakes(Apps(config.apps), config.public_hosts, self._hub.counts)
        context = Context(config, handshakes, self._hub, read_buffer)
        uvicorn_config = uvicorn.Config(
            self._make_app(config, routes),
            http=_protocol(
                functools.partial(
                    BoundedHttpProtocol, config.limits, self._hub.memory, self._hub.handshakes, read_buffer
                )
            ),
            ws=_protocol(functools.partial(WebSocket, context)),
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            ssl_context_factory=(lambda *_: tls) if tls is not None else None,
        )
        self._uvicorn = _Uvicorn(
            uvicorn_config,
            before=self._start,
            stopping=self._stop,
            after=self._end,
            limits=config.limits,
        )
        connections = self._uvicorn.server_state.connections
        self._hub.memory.limit(
            config.limits.max_held_bytes, lambda: [*cast(Any, connections), *self._long_polls.holders]
        )
        self._socket = listen(config.host, config.port, shares_port=shares_port)
        self.url = listener_url(self._socket, has_tls=tls is not None)
        """``http://HOST:PORT`` or ``https://HOST:PORT``, with the real port if the config says 0."""
        # Consoles of other nodes ask this node, also if it has none.
        nodes = Nodes(self._backend, self._cluster, self._socket.getsockname()[1])
        watch = Watch(self._hub.counts)
        reports = Reports(nodes, self._cluster, watch)
        self._console: Console | None = None
        if config.console_port is not None:
            try:
                parts = Parts(
                    config,
                    self._hub,
                    self._backend,
                    self._webhooks,
                    self._queries,
                    self._disconnects,
                    nodes,
                    watch,
                    reports,
                )
                self._console = Console(parts, read_buffer)
            except BaseException:
                self._socket.close()
                raise
        self.console_url = None if self._console is None else self._console.url
        """The URL of the console; ``None`` without one."""

    def _make_app(self, config: Config, routes: Sequence[BaseRoute]) -> ASGIApp:
        counts = self._hub.counts
        publish = PublishHandler(config, self._backend.broker, counts=counts)
        query = QueryHandler(config, self._backend.broker, self._queries, self._disconnects, counts=counts)
        batch = BatchHandler(config, self._backend.broker, counts=counts)
        return make_app(
            {"stream": publish.answer, "batch": batch.answer, **query.answers},
            [
                *routes,
                *static.make_routes(),
                *self._long_polls.routes,
                health.make_route(self._backend),
                balancer.make_route(config, counts),
            ],
            config.public_hosts,
            counts,
        )

    async def _start(self) -> None:
        hub = self._hub
        await self._backend.start(
            hub.deliver,
            self._answer,
            hub.miss,
            hub.move,
            hub.read_logs,
            revoked=self._disconnects.catch_up,
        )
        self._webhooks.start()
        if self._console is not None:
            self._console.start()

    async def _answer(self, question: bytes) -> bytes:
        """Answer another node."""
        if question.startswith(QUESTION):
            return await self._cluster.answer(question)
        return await self._long_polls.answer(question)

    def _stop(self) -> None:
        self._webhooks.stop()
        self._long_polls.shutdown()

    async def _end(self) -> None:
        if self._console is not None:
            await self._console.stop()
        await self._webhooks.close()
        await self._backend.close()

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM, SIGINT or :meth:`stop`, then close all connections.

        Parameters:
            on_ready: called once the server answers requests.
        """
        self._uvicorn.on_ready = on_ready
        try:
            self._uvicorn.run(sockets=[self._socket])
        finally:
            self._socket.close()
            if self._console is not None:
                self._console.close()

    def stop(self) -> None:
        """Make :meth:`run` return. Any thread may call it."""
        self._uvicorn.stop()


@contextlib.contextmanager
def in_background(config: Config, routes: Sequence[BaseRoute] = ()) -> Iterator[Server]:
    """Run a server in a thread, for tests, demonstrations and notebooks.

    Parameters:
        config: as for :class:`Server`.
        routes: as for :class:`Server`.

    Raises:
        ConfigurationError: as :class:`Server` does.
    """
    server = Server(config, routes)
    ready = threading.Event()

    def run() -> None:
        try:
            server.run(ready.set)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="tambur-server")
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def run(config: Config, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, in as many processes as the config says.

    Parameters:
        on_ready: called with ``http://HOST:PORT`` once the server answers requests.

    Raises:
        ConfigurationError: as :class:`Server` does, or if processes cannot share a port on this system.
    """
    config = allow_open_files(config)
    if config.tls_cert is not None:
        limit_tls_buffers()
    if config.workers == 1:
        server = Server(config)
        server.run(lambda: on_ready(server.url))
        return
    # Checked here, so that an error appears once and not once for each worker.
    _make_backend(config)
    load_tls(config)
    with reserve_port(config.host, config.port) as reserved:
        shared = dataclasses.replace(config, port=reserved.getsockname()[1])
        _check_console(config)

        def work(number: int, ready: Callable[[], None]) -> None:
            # Each worker has its own console.
            port = config.console_port and config.console_port + number
            Server(dataclasses.replace(shared, workers=1, console_port=port), shares_port=True).run(ready)

        run_workers(
            config.workers,
            work,
            on_ready=lambda: on_ready(listener_url(reserved, has_tls=config.tls_cert is not None)),
            end_timeout_s=config.limits.shutdown_timeout_s + WORKER_END_S,
        )


class _Uvicorn(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        *,
        before: Callable[[], Awaitable[None]],
        stopping: Callable[[], None],
        after: Callable[[], Awaitable[None]],
        limits: Limits,
    ) -> None:
        super().__init__(config)
        self._before = before
        self._stopping = stopping
        self._after = after
        self._limits = limits
        self._acceptors: list[Acceptor] = []
        self._serving: asyncio.Task[None] | None = None
        self.on_ready: Callable[[], None] = lambda: None

    def stop(self) -> None:
        """End :meth:`main_loop`. Any thread may call it."""
        self.should_exit = True
        if self._serving is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._serving.get_loop().call_soon_threadsafe(self._serving.cancel)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._before()
        await super().startup([])
        config = self.config
        protocol = functools.partial(
            _protocol(config.http_protocol_class),
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for listener in sockets or ():
            acceptor = Acceptor(
                listener, protocol, self.server_state.connections, tls=config.ssl, limits=self._limits
            )
            self._acceptors.append(acceptor)
        self.on_ready()

    async def main_loop(self) -> None:
        # uvicorn's own checks ten times a second whether it should exit. stop() ends this one immediately.
        self._serving = asyncio.get_running_loop().create_task(super().main_loop())
        await asyncio.wait([self._serving])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn's own takes at least a tenth of a second.
        for acceptor in self._acceptors:
            await acceptor.close()
        for listener in sockets or ():
            listener.close()
        self._stopping()
        open_connections, tasks = self.server_state.connections, self.server_state.tasks
        for connection in list(open_connections):
            connection.shutdown()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._limits.shutdown_timeout_s
        while (open_connections or tasks) and loop.time() < ends_at and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(_END_CHECK_S)
        for task in tasks:
            task.cancel()
        await self._after()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        # uvicorn's own method raises the signal again at the end, which kills the process. A server that
        # stops on a signal has not failed.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _protocol(factory: Callable[..., Any]) -> Any:
    # uvicorn's annotations want a class, but its code only calls it.
    return cast(Any, factory)


def _check_console(config: Config) -> None:
    """Check that every worker can listen for its console."""
    if config.console_port:  # 0 picks free ones
        for number in range(config.workers):
            listen(config.console_host, config.console_port + number, setting="console_port").close()


def _make_backend(config: Config) -> Backend:
    return from_url(
        config.broker,
        max_claims=config.limits.max_claims,
        node_timeout_s=config.node_timeout_s,
        apps=config.apps,
        limits=config.limits,
    )
