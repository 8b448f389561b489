"""The server with its own certificate: https and wss."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.frames import Opcode

from tambur import ConfigurationError, ConnectionFailedError, Tambur
from tambur.server import Config, Limits, Server, in_background
from tambur.subscriber import Message
from tests.support.app import API_KEY, APP, APP_ID, SECRET, publisher, subscriber

from ...support.certificate import Certificate
from ...support.clock import clocked
from ...support.wire import MIN_BUFFER, TIMEOUT_S, Socket


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def trusted(files: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that makes requests and websockets trust a private certificate authority."""
    for name, value in files.trusting.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def secure(files: Certificate) -> Iterator[Server]:
    config = Config(
        apps=(APP,),
        port=0,
        tls_cert=files.cert,
        tls_key=files.key,
        limits=Limits(max_unsent_bytes=256 * 1024),
    )
    with in_background(config) as running:
        # Of its connections: the system keeps little, whatever its settings.
        running._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIN_BUFFER)
        yield running


def test_publishers_and_subscribers_connect_with_tls(secure: Server, stream: str) -> None:
    assert secure.url.startswith("https://127.0.0.1:")
    with publisher(secure) as tambur, subscriber(secure, stream) as receiver:
        assert receiver.url.startswith("wss://")
        tambur.publish(stream, "x" * 60_000)
        assert receiver.receive(60).text == "x" * 60_000


def test_without_tls_nothing_is_answered(secure: Server) -> None:
    plain = secure.url.replace("https://", "http://")
    with Tambur(API_KEY, APP_ID, SECRET, plain, max_retries=0) as tambur:
        with pytest.raises(ConnectionFailedError):
            tambur.publish("s", "x")


def test_a_subscriber_that_never_reads_is_cut_off_with_tls_too(
    secure: Server, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tambur.server.transports.websocket.CLOSE_TIMEOUT_S", 0.01)  # it answers no close
    message = "x" * 60_000
    with (
        publisher(secure) as tambur,
        Socket(secure, receive_buffer=MIN_BUFFER) as lazy,
        subscriber(secure, "who", stream) as healthy,
    ):
        token = tambur.generate_presence_token("who", "watcher", healthy.subscriber_id)
        healthy.enable_presence("who", "watcher", token)
        lazy.command("subscribe", 1, stream)
        lazy.command("subscribe", 2, "who")
        lazy.command(
            "set_mode",
            3,
            "presence",
            "who",
            "lazy",
            tambur.generate_presence_token("who", "lazy", lazy.subscriber_id),
        )
        assert healthy.receive(60)[2:] == ("up", "lazy")
        left = Message("who", "presence", "down", "lazy")
        received = set()
        for _ in range(160):
            tambur.publish(stream, message)
            received.add(healthy.receive(60))
        while left not in received:
            received.add(healthy.receive(60))


def test_a_subscriber_that_reads_too_slowly_is_closed_with_the_reason_with_tls_too(
    secure: Server, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The close frame waits behind the messages, however long the test takes to read them.
    monkeypatch.setattr("tambur.server.transports.websocket.CLOSE_TIMEOUT_S", TIMEOUT_S)
    with publisher(secure) as tambur, Socket(secure) as one:
        one.command("subscribe", 1, stream)
        # More than the kernel takes at once; read only afterwards, and then all that was for it and the reason.
        for number in range(100):
            tambur.publish(stream, f"{number} {'x' * 65000}")
        numbers = []
        while (frame := one.frame()).opcode is Opcode.TEXT:
            numbers.append(int(json.loads(bytes(frame.data))[3].partition(" ")[0]))
        assert numbers == list(range(len(numbers)))
        assert one.protocol.close_rcvd is not None
        assert one.protocol.close_rcvd.code == 4008


def test_a_handshake_that_does_not_end_keeps_nobody_up(secure: Server, stream: str) -> None:
    silent = socket.create_connection(("127.0.0.1", int(secure.url.rpartition(":")[2])))
    with silent, publisher(secure) as tambur, subscriber(secure, stream) as receiver:
        silent.sendall(b"\x16\x03\x01\x02\x00")  # the start of a ClientHello
        tambur.publish(stream, "x")
        assert receiver.receive(60).text == "x"


def test_an_unfinished_handshake_times_out(files: Certificate) -> None:
    limits = Limits(request_timeout_s=1000)
    config = Config(apps=(APP,), port=0, tls_cert=files.cert, tls_key=files.key, limits=limits)
    with clocked(config) as running:
        address = ("127.0.0.1", int(running.server.url.rpartition(":")[2]))
        with socket.create_connection(address, TIMEOUT_S) as silent:
            silent.sendall(b"\x16\x03\x01\x02\x00")
            running.skip(1000)
            assert silent.recv(1) == b""


def test_the_command_line_takes_both_files(files: Certificate, stream: str) -> None:
    """The next test has one that holds both."""
    words = ["--tls-cert", files.cert, "--tls-key", files.key]
    process = subprocess.Popen(
        [sys.executable, "-m", "tambur", "serve", "--port", "0", *words],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TAMBUR_URL": f"http://{API_KEY}:{SECRET}@elsewhere/app/{APP_ID}"},
    )
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("Tambur is listening on ").strip()
        assert url.startswith("https://")
        with Tambur(API_KEY, APP_ID, SECRET, url) as tambur:
            assert tambur.publish(stream, "x")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0


class Started(NamedTuple):
    url: str


def memory(pid: int) -> int:
    """The private memory of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def test_a_connection_with_tls_takes_less_memory_than_asyncio_by_itself(files: Certificate) -> None:
    count = 100
    code = "import sys; sys.modules['uvloop'] = None; from tambur.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--port", "0", "--tls-cert", files.both],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TAMBUR_URL": f"http://{API_KEY}:{SECRET}@elsewhere/app/{APP_ID}"},
    )
    with process, contextlib.ExitStack() as stack:
        stack.callback(process.terminate)
        assert process.stdout is not None
        server = Started(process.stdout.readline().split()[-1])
        stack.enter_context(Socket(server))
        before = memory(process.pid)
        for _ in range(count):
            stack.enter_context(Socket(server))
        assert memory(process.pid) - before < count * 64 * 1024


def test_a_certificate_that_cannot_be_used_is_named(files: Certificate, tmp_path: Path) -> None:
    def refusal(cert: str, key: str | None) -> str:
        with pytest.raises(ConfigurationError) as caught:
            Server(Config(apps=(APP,), port=0, tls_cert=cert, tls_key=key))
        return str(caught.value)

    assert refusal("/none.pem", None) == "cannot use tls_cert '/none.pem': No such file or directory"
    assert refusal(files.cert, None).startswith(f"cannot use tls_cert {files.cert!r}: ")
    assert refusal(files.cert, files.cert).startswith(
        f"cannot use tls_cert {files.cert!r} and tls_key {files.cert!r}: "
    )
    other = Certificate(tmp_path)
    assert "KEY_VALUES_MISMATCH" in refusal(files.cert, other.key).upper().replace(" ", "_")
