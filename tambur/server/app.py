"""The composition root: everything of a server put together, its start and its end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from starlette.routing import BaseRoute

from ..errors import ConfigurationError
from .acceptor import Acceptor
from .api.http import make_app
from .api.publish import Publishing
from .api.static import make_routes
from .broker import Backend
from .broker.factory import from_url
from .config import Config, Limits
from .extended_hub import ExtendedHub
from .hub import Hub
from .logs import line
from .transports.http_protocol import BoundedHttpProtocol
from .transports.longpoll import LongPolls
from .transports.reading import limit_tls_buffers, make_read_buffer
from .transports.websocket import Context, WebSocket
from .workers import run_workers

if TYPE_CHECKING:
    from .metrics import Metrics

KEEP_ALIVE_S = 65
"""How long a publisher's connection may idle between two requests, in seconds."""

BACKLOG = 2048
"""How many connections may wait to be accepted."""

FILES_BESIDES = 64
"""How many files a process has open besides its connections, at most."""

WORKER_END_S = 1.7
"""How much longer than its shutdown a worker may take to end, in seconds."""

logger = logging.getLogger("tambur.server")


class Server:
    """Listens from the moment it is made, and answers once it is run.

    Parameters:
        config: what it is to be.
        routes: what it answers besides.
        shares_port: whether other processes listen on the same port, and each gets some of the connections.

    Raises:
        ConfigurationError: if it cannot listen on the config's host and port, cannot use its
            certificate, or has no such broker.
    """

    def __init__(
        self, config: Config, routes: Sequence[BaseRoute] = (), *, shares_port: bool = False
    ) -> None:
        tls = _tls(config)
        self._backend = _make_backend(config)
        self._hub = ExtendedHub(self._backend, coalesce_window_s=config.coalesce_window_ms / 1000)
        self._long_polls = LongPolls(config, self._hub, self._backend.calls)
        read_buffer = make_read_buffer()
        context = Context(config, {app.key: app for app in config.apps}, self._hub, read_buffer)
        uvicorn_config = uvicorn.Config(
            make_app(
                config,
                Publishing(config, self._backend.broker, counts=self._hub.counts),
                self._backend,
                self._hub.counts,
                [*routes, *make_routes(), *self._long_polls.routes],
            ),
            http=_protocol(functools.partial(BoundedHttpProtocol, config.limits, read_buffer)),
            ws=_protocol(functools.partial(WebSocket, context)),
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=config.limits.shutdown_timeout_s,
            ssl_context_factory=(lambda *_: tls) if tls is not None else None,
        )
        self._uvicorn = _Uvicorn(
            uvicorn_config,
            before=self._start,
            stopping=self._long_polls.shutdown,
            after=self._backend.close,
            limits=config.limits,
        )
        self._socket = _listen(config.host, config.port, shares_port=shares_port)
        self.url = _url(config, self._socket)
        """``http://HOST:PORT``, or https, with the port that was picked where the config said 0."""
        try:
            self._metrics = _metrics(config, self._hub)
        except BaseException:
            self._socket.close()
            raise

    async def _start(self) -> None:
        await self._backend.start(self._hub.deliver, self._long_polls.answer, self._hub.miss)
        if self._metrics is not None:
            self._metrics.start()

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM, SIGINT or :meth:`stop`, then close every connection.

        Parameters:
            on_ready: called once requests are answered.
        """
        self._uvicorn.on_ready = on_ready
        try:
            self._uvicorn.run(sockets=[self._socket])
        finally:
            self._socket.close()
            if self._metrics is not None:
                self._metrics.stop()

    def stop(self) -> None:
        """Have :meth:`run` return; may be called from any thread."""
        self._uvicorn.should_exit = True


@contextlib.contextmanager
def in_background(config: Config, routes: Sequence[BaseRoute] = ()) -> Iterator[Server]:
    """Run a server in a thread of its own: for tests, demonstrations and notebooks.

    Parameters:
        config: what it is to be.
        routes: what it answers besides.

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
        on_ready: called with ``http://HOST:PORT`` once requests are answered.

    Raises:
        ConfigurationError: as :class:`Server` does, or if this system cannot have several processes listen.
    """
    config = _with_open_files(config)
    if config.tls_cert is not None:
        limit_tls_buffers()
    if config.workers == 1:
        server = Server(config)
        server.run(lambda: on_ready(server.url))
        return
    # What is wrong with them is said once, and here.
    _make_backend(config)
    _tls(config)
    with _reserve(config.host, config.port) as reserved:
        shared = dataclasses.replace(config, port=reserved.getsockname()[1])

        _check_metrics(config)

        def work(number: int, ready: Callable[[], None]) -> None:
            # Each has metrics of its own.
            port = config.metrics_port and config.metrics_port + number
            Server(dataclasses.replace(shared, workers=1, metrics_port=port), shares_port=True).run(ready)

        run_workers(
            config.workers,
            work,
            on_ready=lambda: on_ready(_url(config, reserved)),
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
        self.on_ready: Callable[[], None] = lambda: None

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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for acceptor in self._acceptors:
            await acceptor.close()
        self._stopping()
        await super().shutdown(sockets)
        await self._after()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        # uvicorn's own raises the signal again at the end, and the process would die of it: a server
        # that was told to stop, and did, has not failed.
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
    # uvicorn's annotations ask for a class, its code for something to call.
    return cast(Any, factory)


def _metrics(config: Config, hub: Hub) -> Metrics | None:
    if config.metrics_port is None:
        return None
    from .metrics import Metrics  # noqa: PLC0415 - needs an extra of its own

    return Metrics(config.metrics_port, hub)


def _check_metrics(config: Config) -> None:
    """Find out whether every worker could listen for Prometheus."""
    if config.metrics_port is not None:
        from .metrics import check_port  # noqa: PLC0415 - as above

        for number in range(config.workers):
            check_port(config.metrics_port + number)


def _tls(config: Config) -> ssl.SSLContext | None:
    if config.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # The password is there for OpenSSL not to ask the terminal for one.
        context.load_cert_chain(config.tls_cert, config.tls_key, password="")
    except OSError as error:  # ssl.SSLError is one
        files = f"tls_cert {config.tls_cert!r}"
        if config.tls_key is not None:
            files += f" and tls_key {config.tls_key!r}"
        raise ConfigurationError(f"cannot use {files}: {error.strerror or error}") from None
    return context


def _with_open_files(config: Config) -> Config:
    """Have the system allow as many open files as ``max_connections`` needs, or lower that."""
    try:
        import resource  # noqa: PLC0415 - Windows has neither the module nor the limit
    except ImportError:
        return config
    limits = config.limits
    needed = limits.max_connections + FILES_BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == needed:
        return config
    max_connections = max(1, allowed - FILES_BESIDES)
    logger.warning(
        line(
            "max_connections lowered, the system allows too few open files",
            max_connections=max_connections,
            of=limits.max_connections,
            open_files_allowed=allowed,
            open_files_needed=needed,
        )
    )
    return dataclasses.replace(config, limits=dataclasses.replace(limits, max_connections=max_connections))


def _make_backend(config: Config) -> Backend:
    return from_url(
        config.broker,
        max_claims=config.limits.max_claims,
        node_timeout_s=config.node_timeout_s,
        apps=config.apps,
        limits=config.limits,
    )


def _url(config: Config, listener: socket.socket) -> str:
    scheme = "http" if config.tls_cert is None else "https"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    host = host.strip("[]")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, port)


def _listen(host: str, port: int, *, shares_port: bool = False) -> socket.socket:
    family, address = _address(host, port)
    try:
        listener = socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=shares_port)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"cannot listen on {address[0]}, port {port}: {reason}") from None
    # What it accepts inherits that. asyncio itself would only see to it if the socket named its protocol;
    # without, a small message waits up to 40 ms for the client to acknowledge the one before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _reserve(host: str, port: int) -> socket.socket:
    """Find a port that nobody listens on, and keep it for processes that share it."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigurationError("workers must be 1: on this system, processes cannot share a port")
    with _listen(host, port) as probe:  # which sharing would not have failed for
        port = probe.getsockname()[1]
    family, address = _address(host, port)
    reserved = socket.socket(family)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(address)
    return reserved
