"""How a server listens, and how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from tambur import ConfigurationError
from tambur.server import Config, Server, in_background
from tambur.server.listeners import listen
from tests.support.app import API_KEY, APP, APP_ID, SECRET

from ..support.ports import free_port
from ..support.wire import TIMEOUT_S, Socket, connect, handshake, read_answer, signed

# Nothing but the shutdown's own timeout ends what its clients hold open.
SERVE = f"""
from tambur.server import App, Config, Limits, serve
limits = Limits(request_timeout_s=3600, ping_interval_s=3600, ping_timeout_s=7200, shutdown_timeout_s=0.2)
serve(Config(apps=(App({API_KEY!r}, {APP_ID!r}, ({SECRET!r},)),), port=0, limits=limits))
"""


class Process:
    """A server in its own process; :mod:`tests.support.wire` needs only its URL."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.url = line.removeprefix("Tambur is listening on ").strip()
        assert line == f"Tambur is listening on {self.url}\n"

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully(number: signal.Signals) -> None:
    process = Process()
    assert isinstance(process.process, subprocess.Popen)
    server: Server = process  # type: ignore[assignment]
    with (
        process.process,
        Socket(server) as subscriber,
        Socket(server) as lazy,
        connect(server) as idle,
        connect(server) as half,
        connect(server) as new,
    ):
        idle.sendall(signed(server, "test", "x"))
        assert read_answer(idle).status == 204
        half.sendall(signed(server, "test", "x")[:-10])
        new.sendall(handshake()[:-10])
        lazy.command("subscribe", 1, "test")
        assert process.end(number) == 0
        assert subscriber.close_code() == 1001
        with pytest.raises(ConnectionRefusedError):
            connect(server)


def test_a_port_in_use_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            Server(Config(apps=(APP,), port=port))
    said = f"cannot listen on 127.0.0.1, port {port}: Address already in use"
    assert str(caught.value) == f"{said}; stop the other program, or choose another port"


def test_a_write_does_not_wait_for_the_acknowledgement_of_the_last_one() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "256.1.1.1", "x" * 300, "203.0.113.1"])
def test_an_address_that_is_not_ours_is_said_so(host: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen on"):
        Server(Config(apps=(APP,), port=0, host=host))


def test_a_server_may_be_stopped_twice_and_after_its_end() -> None:
    with in_background(Config(apps=(APP,), port=0)) as server, Socket(server) as one:
        server.stop()
        assert one.close_code() == 1001
    server.stop()


def test_a_port_is_free_again_afterwards() -> None:
    config = Config(apps=(APP,), port=(port := free_port()))
    with in_background(config) as server, Socket(server) as one:
        assert one.subscriber_id
    with in_background(config) as server:
        assert server.url == f"http://127.0.0.1:{port}"


def test_it_listens_on_ipv6() -> None:
    with in_background(Config(apps=(APP,), port=0, host="::1")) as server:
        assert server.url.startswith("http://[::1]:")
