"""The connections of a publisher: each request leaves in one piece, over a pool that is looked up once."""

from __future__ import annotations

from typing import Any

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager


class _InOnePiece(HTTPConnection):
    """Sends the head and the body of a request together.

    http.client writes each by itself. That is two packets, with TLS two records, and a server that wakes up
    twice, which costs it a fifth of its time for a publish.
    """

    _pieces: list[bytes] | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        pieces: list[bytes] = []
        self._pieces = pieces
        try:
            super().request(*args, **kwargs)
        finally:
            self._pieces = None
        if pieces:
            self.send(b"".join(pieces))

    def send(self, data: Any) -> None:
        if self._pieces is not None:
            self._pieces.append(data)
        else:
            super().send(data)


class _TlsInOnePiece(_InOnePiece, HTTPSConnection):
    pass


# Tools that record requests for tests replace ConnectionCls of urllib3's pools for a while. So the pools look
# it up for each connection, and use a replaced class as it is.


class _Pool(HTTPConnectionPool):
    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802 - urllib3's name
        kind = super().ConnectionCls
        return _InOnePiece if kind is HTTPConnection else kind


class _TlsPool(HTTPSConnectionPool):
    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802 - urllib3's name
        kind = super().ConnectionCls
        return _TlsInOnePiece if kind is HTTPSConnection else kind


# The pools of a SOCKS proxy are others, and stay.
_POOLS = {HTTPConnectionPool: _Pool, HTTPSConnectionPool: _TlsPool}


def _with_our_pools(manager: PoolManager) -> PoolManager:
    manager.pool_classes_by_scheme = {
        scheme: _POOLS.get(kind, kind) for scheme, kind in manager.pool_classes_by_scheme.items()
    }
    return manager


class Adapter(HTTPAdapter):
    """An adapter for one server and one set of proxies, so that no request looks them up."""

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
        # Without proxies there is nothing to decide, and deciding parses the URL three times.
        return super().request_url(request, proxies) if proxies else request.path_url

    def close(self) -> None:
        super().close()
        # urllib3 leaves this to garbage collection, but an error that the caller keeps keeps the pool.
        if self._pool is not None:
            self._pool.close()
