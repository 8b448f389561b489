"""How a node reaches Redis: with a password, by TLS, through Sentinel."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tambur.server.broker import BrokerUnavailableError, Published, from_url
from tests.support.broker import APP, DELIVERED, REPLAYED, RecordingBroker, claim, nobody_asks, public
from tests.support.redis_server import RedisServer


@contextmanager
def server(directory: Path, *options: str, **more: Any) -> Iterator[RedisServer]:
    directory.mkdir(exist_ok=True)
    running = RedisServer(directory, *options, **more)
    try:
        yield running
    finally:
        running.end()


async def publish(node: RecordingBroker, number: int) -> Published:
    """Publish as soon as the broker can."""
    while True:
        try:
            return await node.publish(public("s", str(number)), claim(str(number)))
        except BrokerUnavailableError:
            await asyncio.sleep(0.02)


def deliver(url: str) -> bool:
    """Whether a broker of that URL works."""

    async def whole() -> bool:
        node = RecordingBroker(from_url(url, max_claims=10, node_timeout_s=30))
        await node.broker.start(node.delivered.append, nobody_asks)
        try:
            await node.broker.subscribe(APP, "s")
            assert await node.publish(public("s", "x"), claim("1")) == DELIVERED
            await node.settle()
        except BrokerUnavailableError:
            return False
        finally:
            await node.broker.close()
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
        assert "Redis is away" in caplog.text
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


def test_sentinels_say_where_redis_is(tmp_path: Path) -> None:
    with server(tmp_path / "first", "--repl-diskless-sync-delay", "0") as first:
        follow = ("--replicaof", f"127.0.0.1 {first.port}")
        configuration = (
            f"sentinel monitor main 127.0.0.1 {first.port} 1\nsentinel down-after-milliseconds main 300\n"
        )

        def replicate() -> None:
            while first.cli("WAIT", "1", "1000") != "1":
                pass

        async def scenario(node: RecordingBroker, second: RedisServer) -> None:
            await node.broker.start(node.delivered.append, nobody_asks)
            await node.broker.subscribe(APP, "s")
            assert await publish(node, 1) == DELIVERED
            await node.broker.join(APP, "s", "alice", "a")
            replicate()
            first.end()
            assert await publish(node, 2) == DELIVERED
            assert await publish(node, 1) == REPLAYED
            present = await node.broker.join(APP, "s", "bob", "b")
            assert set(present.user_ids) == {"alice", "bob"}
            assert second.cli("ROLE").startswith("master")
            await node.broker.close()

        with server(tmp_path / "second", *follow) as second:
            replicate()
            with server(tmp_path / "sentinel", "--sentinel", configuration=configuration) as sentinel:
                # One of the Sentinels is not there, which is what there are several for.
                url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main"
                asyncio.run(
                    scenario(RecordingBroker(from_url(url, max_claims=10, node_timeout_s=30)), second)
                )


def test_without_the_package_the_mistake_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from tambur import cli\nsys.exit(cli.main(['serve', '--port', '0', '--broker', 'redis://h']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr == (
        "tambur: the broker redis:// needs the package redis, which is not installed; "
        "pip install 'tambur[redis]'\n"
    )
