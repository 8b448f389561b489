"""How requests reaches the one server of a publisher."""

from __future__ import annotations

import functools
from typing import Any

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import ConnectionPool
from urllib3.poolmanager import PoolManager


class _InOnePiece:
    """Has a connection send a request's head and body together.

    http.client gives each to the network by itself: two packets, with TLS two records, and a server that is
    woken twice, which costs it a fifth of its time for a publish.
    """

    _pieces: list[bytes] | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        pieces: list[bytes] = []
        self._pieces = pieces
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._pieces = None
        if pieces:
            self.send(b"".join(pieces))

    def send(self, data: bytes) -> None:
        if self._pieces is not None:
            self._pieces.append(data)
        else:
            super().send(data)  # type: ignore[misc]


class _PoolOfThem:
    """Has a pool open such connections."""

    @property
    def ConnectionCls(self) -> type:  # noqa: N802 - urllib3's name
        # Looked up each time: what records requests for tests puts a class of its own there for a while.
        return _mixed(_InOnePiece, super().ConnectionCls)  # type: ignore[misc]


@functools.lru_cache
def _mixed(mixin: type, kind: type) -> type:
    return kind if issubclass(kind, mixin) else type(kind.__name__, (mixin, kind), {})


def _with_our_pools(manager: PoolManager) -> PoolManager:
    pools = {scheme: _mixed(_PoolOfThem, kind) for scheme, kind in manager.pool_classes_by_scheme.items()}
    manager.pool_classes_by_scheme = pools
    return manager


class Adapter(HTTPAdapter):
    """An adapter for one server and one set of proxies, so that neither is looked up for each request."""

    _pool: ConnectionPool | None = None

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _with_our_pools(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:
        return _with_our_pools(super().proxy_manager_for(*args, **kwargs))

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> ConnectionPool:
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool

    def get_connection(self, *args: Any, **kwargs: Any) -> ConnectionPool:
        # requests before 2.32 calls this method instead.
        if self._pool is None:
            self._pool = super().get_connection(*args, **kwargs)
        return self._pool

    def request_url(self, request: PreparedRequest, proxies: Any) -> str:
        # Without proxies there is nothing to decide, which takes three parsings of the URL.
        return super().request_url(request, proxies) if proxies else request.path_url

    def close(self) -> None:
        super().close()
        # urllib3 leaves this to the garbage collection; whoever keeps an error keeps the pool, too.
        if self._pool is not None:
            self._pool.close()
