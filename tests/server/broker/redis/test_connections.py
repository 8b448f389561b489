"""How a node reaches Redis: with a password, by TLS, through Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tambur.server.broker import BrokerUnavailableError, Published
from tambur.server.broker.factory import from_url
from tests.support.broker import APP, DELIVERED, REPLAYED, RecordingBackend, claim, nobody_asks, public
from tests.support.ports import free_port
from tests.support.redis_nodes import shard
from tests.support.redis_server import TIMEOUT_S, RedisServer


@contextmanager
def server(directory: Path, *options: str, **more: Any) -> Iterator[RedisServer]:
    directory.mkdir(exist_ok=True)
    running = RedisServer(directory, *options, **more)
    try:
        yield running
    finally:
        running.end()


async def publish(node: RecordingBackend, number: int) -> Published:
    """Publish as soon as the broker can."""
    while True:
        try:
            return await node.publish(public("s", str(number)), claim(str(number)))
        except BrokerUnavailableError:
            await asyncio.sleep(0.02)


def test_a_node_without_redis_stops_even_if_a_cancellation_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.12, ``asyncio.wait_for`` loses one if the connection is refused at the same moment."""

    async def scenario() -> None:
        node = RecordingBackend(
            from_url(f"redis://127.0.0.1:{free_port()}", max_claims=10, node_timeout_s=30)
        )
        await node.backend.start(node.deliver, nobody_asks)
        connecting = asyncio.Event()

        async def open_link(_: object) -> None:
            connecting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ConnectionRefusedError from None

        monkeypatch.setattr(shard(node), "_open", open_link)
        await connecting.wait()
        await asyncio.wait_for(node.backend.close(), 60)

    asyncio.run(scenario())


def deliver(url: str) -> bool:
    """Whether a broker of that URL works."""

    async def whole() -> bool:
        node = RecordingBackend(from_url(url, max_claims=10, node_timeout_s=30))
        await node.backend.start(node.deliver, nobody_asks)
        try:
            await node.broker.subscribe(APP, "s")
            assert await node.publish(public("s", "x"), claim("1")) == DELIVERED
            await node.settle()
        except BrokerUnavailableError:
            return False
        finally:
            await node.backend.close()
        return node.delivered == [public("s", "x")]

    return asyncio.run(whole())


def test_user_password_and_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    user = ("--user", "node", "on", ">hunter3", "~*", "&*", "+@all")
    with server(tmp_path, "--requirepass", "hunter2/@", *user) as redis:
        host = f"127.0.0.1:{redis.port}"
        assert deliver(f"redis://:hunter2%2F%40@{host}/1")
        assert deliver(f"redis://node:hunter3@{host}/2")
        for wrong in (f"redis://{host}", f"redis://:hunter4@{host}", f"redis://node:hunter4@{host}"):
            assert not deliver(wrong)
        assert "Redis cannot be reached" in caplog.text
        assert "hunter" not in caplog.text


def test_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority, key, chain = (tmp_path / name for name in ("ca.pem", "key.pem", "chain.pem"))
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(authority)
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    with server(
        tmp_path,
        *("--tls-cert-file", str(chain), "--tls-key-file", str(key), "--tls-ca-cert-file", str(authority)),
        port_option="--tls-port",
    ) as redis:
        host = f"127.0.0.1:{redis.port}"
        own = f"ssl_ca_certs={authority}&ssl_certfile={chain}&ssl_keyfile={key}"
        assert deliver(f"rediss://{host}?{own}")
        assert not deliver(f"rediss://{host}?ssl_ca_certs={authority}")  # Redis asks for a certificate, too
        assert not deliver(f"rediss://{host}")
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


class TlsRecorder:
    """A server with a certificate for one host that keeps what clients send once they trust it."""

    def __init__(self, authority: trustme.CA, host: str) -> None:
        self.received = b""
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(host).configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    with self._context.wrap_socket(connection, server_side=True) as secure:
                        self.received += secure.recv(65536)
                except OSError:
                    continue  # the client refused the certificate

    def end(self) -> bytes:
        """Stop, and return all that was received."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        return self.received


@pytest.mark.parametrize(("host", "is_trusted"), [("127.0.0.1", True), ("redis.example", False)])
def test_the_password_goes_to_a_server_with_a_certificate_for_its_host_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str, is_trusted: bool
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    redis = TlsRecorder(authority, host)
    try:
        assert not deliver(f"rediss://:hunter2@127.0.0.1:{redis.port}?ssl_ca_certs={tmp_path / 'ca.pem'}")
    finally:
        received = redis.end()
    assert (b"hunter2" in received) is is_trusted
    assert (received == b"") is not is_trusted
    assert ("CERTIFICATE_VERIFY_FAILED" in caplog.text) is not is_trusted


def test_sentinels_say_where_redis_is(tmp_path: Path) -> None:
    with server(tmp_path / "first", "--repl-diskless-sync-delay", "0") as first:
        follow = ("--replicaof", f"127.0.0.1 {first.port}")
        # It takes no Redis for dead that is only slow: the test demands the failover.
        configuration = (
            f"sentinel monitor main 127.0.0.1 {first.port} 1\n"
            f"sentinel down-after-milliseconds main {1000 * TIMEOUT_S}\n"
        )

        def replicate() -> None:
            while first.cli("WAIT", "1", "1000") != "1":
                pass

        def fail_over(sentinel: RedisServer) -> None:
            first.end()
            while True:
                with contextlib.suppress(AssertionError):  # it does not know the replica well enough yet
                    sentinel.cli("SENTINEL", "FAILOVER", "main", database=None)
                    return

        async def scenario(node: RecordingBackend, second: RedisServer, sentinel: RedisServer) -> None:
            await node.backend.start(node.deliver, nobody_asks)
            await node.broker.subscribe(APP, "s")
            assert await publish(node, 1) == DELIVERED
            await node.presence.join(APP, "s", "alice", "a")
            replicate()
            fail_over(sentinel)
            assert await publish(node, 2) == DELIVERED
            assert await publish(node, 1) == REPLAYED
            present = await node.presence.join(APP, "s", "bob", "b")
            assert set(present.user_ids) == {"alice", "bob"}
            assert second.cli("ROLE").startswith("master")
            await node.backend.close()

        with server(tmp_path / "second", *follow) as second:
            replicate()
            with server(tmp_path / "sentinel", "--sentinel", configuration=configuration) as sentinel:
                # One of the Sentinels is not there, which is what there are several for.
                url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main"
                node = RecordingBackend(from_url(url, max_claims=10, node_timeout_s=30))
                asyncio.run(scenario(node, second, sentinel))


def test_without_a_package_the_mistake_says_what_to_install() -> None:
    code = """
import sys
from tambur import cli

for package in ("hiredis", "redis"):
    sys.modules[package] = None
    assert cli.main(["serve", "--port", "0", "--broker", "redis://h"]) == 1
    del sys.modules[package]
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.splitlines() == [
        f"tambur: the broker redis:// needs the package {package}, which is not installed; "
        "pip install 'tambur[redis]>=1'"
        for package in ("hiredis", "redis")
    ]
