"""The console's own listener, in the event loop of the server."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from typing import Any, cast

import uvicorn
from starlette.routing import Router
from uvicorn.server import ServerState

from ...loopback import is_loopback
from ..acceptor import Acceptor
from ..listeners import listen, listener_url, load_tls
from ..logs import line
from ..memory import Memory
from ..transports.http_protocol import BoundedHttpProtocol
from ..turnstile import Turnstile
from .access import Access
from .live import Stopping
from .pages import Pages
from .parts import Parts
from .password import parse_hash
from .samples import Sampler
from .streams import Streams

MAX_CONNECTIONS = 64
"""How many connections the console serves at once."""

END_S = 0.5
"""Seconds that viewers' requests may take to end when the server stops."""

logger = logging.getLogger("tambur.server")


class Console:
    """Listens from construction on, and answers once it is started.

    Parameters:
        parts: the parts of the server.
        read_buffer: what connections are read into.

    Raises:
        ConfigurationError: if it cannot listen.
    """

    def __init__(self, parts: Parts, read_buffer: memoryview) -> None:
        config = parts.config
        assert config.console_port is not None
        self._watch = parts.watch
        self._sampler = Sampler(parts.hub, parts.webhooks, self._watch)
        parts.nodes.feeds = {"samples": self._sampler.samples, "refusals": self._watch.refusals}
        self._stopping = Stopping()
        self._pages = Pages(parts, self._sampler, self._stopping)
        streams = Streams(parts, self._stopping)
        hashed = None if config.console_password is None else parse_hash(config.console_password)
        is_local = is_loopback(config.console_host)
        access = Access(
            Router([*self._pages.routes, *streams.routes], redirect_slashes=False),
            is_local=is_local,
            password=hashed,
        )
        self._pages.token = access.token
        self._tls = None if is_local else load_tls(config)
        limits = dataclasses.replace(config.limits, max_connections=MAX_CONNECTIONS)
        self._limits = limits
        self._uvicorn_config = uvicorn.Config(
            access,
            http=cast(
                Any, functools.partial(BoundedHttpProtocol, limits, Memory(), Turnstile(1), read_buffer)
            ),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )
        self._state = ServerState()
        self._acceptor: Acceptor | None = None
        self._socket = listen(config.console_host, config.console_port, setting="console_port")
        self.url = listener_url(self._socket, has_tls=self._tls is not None)
        """``http://HOST:PORT`` or ``https://HOST:PORT``."""

    def start(self) -> None:
        """Begin to answer and to observe. Call this in the event loop of the hub."""
        self._watch.start()
        self._uvicorn_config.load()
        protocol = functools.partial(
            cast(Any, self._uvicorn_config.http_protocol_class),
            config=self._uvicorn_config,
            server_state=self._state,
            app_state={},
        )
        self._acceptor = Acceptor(
            self._socket, protocol, self._state.connections, tls=self._tls, limits=self._limits
        )
        self._sampler.start()
        logger.info(line("console is ready", url=self.url))

    async def stop(self) -> None:
        """Stop answering. Viewers see that they lost the server."""
        self._sampler.stop()
        self._stopping.set()
        if self._acceptor is not None:
            await self._acceptor.close()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=END_S)
        for connection in list(self._state.connections):
            connection.shutdown()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
