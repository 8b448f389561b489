"""What one client may cost the others: size of headers, time of a request."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tambur import Tambur
from tambur.server import Config, Limits, Server, in_background
from tests.conftest import APP, APP_ID, publisher, subscriber

from ..support.wire import SUBSCRIBE_PATH, Answer, Socket, ask, connect, handshake, read_all, read_answer

TIMEOUT_S = 0.5
MAX_HEADER_BYTES = Limits().max_header_bytes


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    config = Config(apps=(APP,), port=0, limits=Limits(request_timeout_s=TIMEOUT_S))
    with in_background(config) as running:
        yield running


@pytest.fixture(autouse=True)
def everybody_else_is_served(server: Server, impatient: Server) -> Iterator[None]:
    """Whatever a test does, who was there before is served afterwards."""
    with publisher(server) as one, publisher(impatient) as other:
        with subscriber(server, "else") as first, subscriber(impatient, "else") as second:
            yield
            for tambur, receiver in ((one, first), (other, second)):
                tambur.publish("else", "x")
                assert receiver.receive(10).text == "x"


@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        (b"GET / HTTP/1.1\r\n", b"X-Header: value\r\n"),
        (b"GET / HTTP/1.1\r\nX-Endless: ", b"x" * 100),
        (b"GET / HTTP/1.1\r\nX-Endless", b"x" * 100),
        (b"GET /", b"x" * 100),
        (b"GET /?", b"x" * 100),
    ],
    ids=["headers", "value", "name", "path", "query"],
)
def test_a_head_without_end_is_cut_off(server: Server, head: bytes, chunk: bytes) -> None:
    sent = (head + chunk * MAX_HEADER_BYTES)[: MAX_HEADER_BYTES + 1]
    with connect(server) as connection:
        connection.sendall(sent)
        assert Answer(read_all(connection)).status == 431


@pytest.mark.parametrize("upgrade", [False, True])
def test_a_long_head_is_refused_even_when_it_comes_at_once(server: Server, upgrade: bool) -> None:
    start = handshake()[:-2] if upgrade else b"GET /none HTTP/1.1\r\nHost: h\r\n"
    line = b"X: " + b"y" * 995 + b"\r\n"
    fits = (MAX_HEADER_BYTES - len(start)) // len(line)
    assert ask(server, start + line * fits + b"\r\n").status == (101 if upgrade else 404)
    answer = ask(server, start + line * (fits + 1) + b"\r\n")
    assert answer.status == 431
    assert answer.body == b"Request Header Fields Too Large: at most 16384 bytes are allowed\n"


@pytest.mark.parametrize("start", [handshake()[:-2], b"GET / HTTP/1.1\r\nHost: h\r\n"])
def test_long_lines_and_many_headers_are_refused_with_the_rule(server: Server, start: bytes) -> None:
    long = ask(server, start + b"X: " + b"y" * 9000 + b"\r\n\r\n")
    assert (long.status, long.body.endswith(b"at most 8192 bytes are allowed in a line\n")) == (431, True)
    many = ask(server, start + b"X: y\r\n" * 200 + b"\r\n")
    assert (many.status, many.body.endswith(b"at most 128 headers are allowed\n")) == (431, True)


def test_each_request_of_a_connection_is_measured_by_itself(server: Server) -> None:
    head = b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * (MAX_HEADER_BYTES // 3) + b"\r\n\r\n"
    with connect(server) as connection:
        for _ in range(5):
            connection.sendall(head)
            assert read_answer(connection).status == 404
        connection.sendall(head * 5)
        assert [read_answer(connection).status for _ in range(5)] == [404] * 5


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nHost: h\r\n",
        f"POST /app/{APP_ID}/stream/x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx".encode(),
    ],
    ids=["nothing", "a byte", "half a head", "half a body"],
)
def test_a_request_that_does_not_end_is_given_up(impatient: Server, start: bytes) -> None:
    started = time.monotonic()
    with connect(impatient) as connection:
        connection.sendall(start)
        answer = Answer(read_all(connection))
    assert answer.status == 408
    # An event loop's clock stands still for a turn of the loop, and uvloop's counts milliseconds.
    assert TIMEOUT_S - 0.05 <= time.monotonic() - started < TIMEOUT_S + 5


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nHost", b"\r\n"], ids=["half a head", "a line break"])
def test_a_second_request_that_does_not_end_is_given_up_too(impatient: Server, start: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert read_answer(connection).status == 404
        connection.sendall(start)
        assert Answer(read_all(connection)).status == 408


def test_a_second_request_may_not_begin_with_the_first_and_never_end(impatient: Server) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost")
        assert read_answer(connection).status == 404
        assert Answer(read_all(connection)).status == 408


def test_a_byte_now_and_then_gains_no_time(impatient: Server) -> None:
    with connect(impatient) as connection:
        connection.settimeout(0.05)
        started = time.monotonic()
        data = b""
        while not data:
            connection.sendall(b"GET / HTTP/1.1\r\nX: y"[:1] if time.monotonic() == started else b"x")
            try:
                data = connection.recv(65536)
            except TimeoutError:
                assert time.monotonic() - started < TIMEOUT_S + 5
        assert Answer(data).status in (400, 408)


def test_a_connection_may_idle_between_requests(impatient: Server, stream: str) -> None:
    with publisher(impatient) as tambur, connect(impatient) as idle, connect(impatient) as clock:
        request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
        idle.sendall(request)
        assert read_answer(idle).status == 404
        # The server's own clock tells when more than the timeout has passed.
        assert Answer(read_all(clock)).status == 408
        idle.sendall(request)
        assert read_answer(idle).status == 404
        assert tambur.publish(stream, "x")


def test_a_subscriber_may_be_silent(impatient: Server) -> None:
    with Socket(impatient) as one, connect(impatient) as clock:
        assert Answer(read_all(clock)).status == 408
        assert one.command("subscribe", 1, "s") == ["ack", 1, "ok"]


def test_a_long_poll_may_wait_longer(impatient: Server, stream: str) -> None:
    def get(query: str, path: str = "") -> bytes:
        return f"GET /comet{SUBSCRIBE_PATH}{path}?instance=1&callback=f{query} HTTP/1.1\r\nHost: h\r\n\r\n".encode()

    subscriber_id = ask(impatient, get("")).body.decode().split("id:")[1].removesuffix('")')
    ask(impatient, get(f"&data=%5B%22subscribe%22,1,%22{stream}%22%5D", f"/{subscriber_id}"))
    with connect(impatient) as poll, connect(impatient) as clock, publisher(impatient) as tambur:
        poll.sendall(get("", f"/{subscriber_id}"))
        assert Answer(read_all(clock)).status == 408
        tambur.publish(stream, "x")
        assert read_answer(poll).body == f'/**/f(1, ["msg","{stream}","public","x"])'.encode()


def test_a_flood_of_connections_that_say_nothing_ends(impatient: Server, tambur: Tambur) -> None:
    flood = [connect(impatient) for _ in range(200)]
    for connection in flood:
        assert Answer(read_all(connection)).status == 408
        connection.close()


def test_reset_connections_leave_nothing_behind(server: Server) -> None:
    for data in (b"", b"GET", handshake(), handshake()[:-3]):
        for _ in range(20):
            connection = connect(server)
            connection.sendall(data)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
