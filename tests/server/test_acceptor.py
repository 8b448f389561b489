"""Connections count from the moment they are accepted, with and without TLS."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tambur.server import Config, Limits, in_background
from tambur.server.listeners import FILES_BESIDES
from tests.support.app import API_KEY, APP, APP_ID, SECRET

from ..support.certificate import Certificate
from ..support.wire import Answer, Listening, connect, read_all, wait_until_served

TIMEOUT_S = 60
NEVER_S = 600.0
"""A timeout that no test reaches, in seconds."""

HEALTH = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(autouse=True)
def trusted(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in certificate.trusting.items():
        monkeypatch.setenv(name, value)


def connect_in_silence(server: Listening) -> socket.socket:
    """Connect, without the handshake that a server with TLS waits for."""
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), TIMEOUT_S)


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_one_connection_too_many_is_answered_503() -> None:
    limits = Limits(max_connections=2, request_timeout_s=NEVER_S)
    with in_background(Config(apps=(APP,), port=0, limits=limits)) as server:
        with connect(server), connect(server), connect(server) as refused:
            answer = Answer(read_all(refused))
        assert answer.status == 503
        assert answer.body == b"Service Unavailable: 2 connections are open already\n"
        wait_until_served(server)


def test_connections_that_shake_no_hands_count_too(certificate: Certificate) -> None:
    limits = Limits(max_connections=3, request_timeout_s=NEVER_S)
    config = Config(apps=(APP,), port=0, tls_cert=certificate.both, limits=limits)
    with in_background(config) as server, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect_in_silence(server)) for _ in range(3)]
        assert is_closed(stack.enter_context(connect_in_silence(server)))
        silent[0].close()
        wait_until_served(server)


def test_a_handshake_that_fails_makes_room(certificate: Certificate) -> None:
    limits = Limits(max_connections=1, request_timeout_s=NEVER_S)
    config = Config(apps=(APP,), port=0, tls_cert=certificate.both, limits=limits)
    with in_background(config) as server:
        for _ in range(5):
            # The server resets this one if it still counts the one before.
            with connect_in_silence(server) as one, contextlib.suppress(ConnectionError):
                one.sendall(HEALTH)  # no TLS: the server closes
                while one.recv(100):
                    pass
        wait_until_served(server)


def test_a_server_stops_while_clients_shake_hands(certificate: Certificate) -> None:
    limits = Limits(request_timeout_s=NEVER_S)
    config = Config(apps=(APP,), port=0, tls_cert=certificate.both, limits=limits)
    with contextlib.ExitStack() as stack:
        with in_background(config) as server:
            silent = [stack.enter_context(connect_in_silence(server)) for _ in range(5)]
            wait_until_served(server)
        assert all(is_closed(one) for one in silent)


class Serving:
    """A server in a process that may open few files, and does not know it."""

    def __init__(self, files: int, log: Path) -> None:
        code = (
            "from tambur.server import App, Config, Server, acceptor\n"
            "acceptor.PAUSE_S = 0.02\n"
            f"server = Server(Config(apps=(App({API_KEY!r}, {APP_ID!r}, ({SECRET!r},)),), port=0))\n"
            "server.run(lambda: print(server.url, flush=True))\n"
        )
        command = ["bash", "-ec", f'ulimit -n {files}; exec "$@"', "bash", sys.executable, "-c", code]
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def __enter__(self) -> Serving:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.terminate()


def test_without_file_descriptors_accepting_pauses_and_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Serving(FILES_BESIDES, log) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(2 * FILES_BESIDES):
                stack.enter_context(connect_in_silence(server))
            deadline = time.monotonic() + TIMEOUT_S
            while "cannot accept connections" not in log.read_text("utf-8"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        wait_until_served(server)
    said = log.read_text("utf-8")
    assert f"cannot accept connections reason={os.strerror(24)!r}".replace("'", '"') in said
    assert "Traceback" not in said
