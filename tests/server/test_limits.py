"""Limits on the cost of one client to the others: size of headers, time of a request."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tambur import Tambur
from tambur.server import Config, Limits, Server
from tambur.server.app import KEEP_ALIVE_S
from tambur.server.transports.http_protocol import max_pieces
from tambur.server.transports.jsonp import MAX_QUERY_PARAMETERS
from tests.support.app import APP, APP_ID, publisher, subscriber

from ..support.clock import Clocked, clocked
from ..support.wire import (
    SUBSCRIBE_PATH,
    TIMEOUT_S,
    Answer,
    Socket,
    ask,
    connect,
    handshake,
    read_all,
    read_answer,
    signed,
)

REQUEST_TIMEOUT_S = KEEP_ALIVE_S / 2
MAX_HEADER_BYTES = Limits().max_header_bytes


@pytest.fixture(scope="module")
def impatient() -> Iterator[Clocked]:
    """A server that gives a request its timeout by a clock that tests move."""
    limits = Limits(
        request_timeout_s=REQUEST_TIMEOUT_S,
        ping_interval_s=100 * REQUEST_TIMEOUT_S,
        ping_timeout_s=1000 * REQUEST_TIMEOUT_S,
    )
    with clocked(Config(apps=(APP,), port=0, limits=limits)) as running:
        yield running


@pytest.fixture(autouse=True)
def everybody_else_is_served(server: Server, impatient: Clocked) -> Iterator[None]:
    """After each test, the server still serves the clients that connected before."""
    with publisher(server) as one, publisher(impatient.server) as other:
        with subscriber(server, "else") as first, subscriber(impatient.server, "else") as second:
            yield
            for tambur, receiver in ((one, first), (other, second)):
                tambur.publish("else", "x")
                assert receiver.receive(TIMEOUT_S).text == "x"


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
def test_an_unfinished_request_times_out(impatient: Clocked, start: bytes) -> None:
    with connect(impatient.server) as connection:
        connection.sendall(start)
        impatient.skip(REQUEST_TIMEOUT_S / 2)
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        connection.settimeout(TIMEOUT_S)
        impatient.skip(REQUEST_TIMEOUT_S / 2)
        assert Answer(read_all(connection)).status == 408


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nHost", b"\r\n"], ids=["half a head", "a line break"])
def test_a_second_unfinished_request_times_out_too(impatient: Clocked, start: bytes) -> None:
    with connect(impatient.server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert read_answer(connection).status == 404
        connection.sendall(start)
        impatient.skip(REQUEST_TIMEOUT_S)
        assert Answer(read_all(connection)).status == 408


def test_a_second_request_may_not_begin_with_the_first_and_never_end(impatient: Clocked) -> None:
    with connect(impatient.server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost")
        assert read_answer(connection).status == 404
        impatient.skip(REQUEST_TIMEOUT_S)
        assert Answer(read_all(connection)).status == 408


def test_a_byte_now_and_then_gains_no_time(impatient: Clocked) -> None:
    with connect(impatient.server) as connection:
        for byte in b"GET / HTTP":
            connection.sendall(bytes([byte]))
            impatient.skip(REQUEST_TIMEOUT_S / 10)
        assert Answer(read_all(connection)).status == 408


def test_a_connection_may_idle_between_requests(impatient: Clocked) -> None:
    with connect(impatient.server) as idle:
        request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
        idle.sendall(request)
        assert read_answer(idle).status == 404
        impatient.skip(REQUEST_TIMEOUT_S + 1)
        idle.sendall(request)
        assert read_answer(idle).status == 404


def test_a_subscriber_may_be_silent(impatient: Clocked) -> None:
    with Socket(impatient.server) as one:
        impatient.skip(2 * REQUEST_TIMEOUT_S)
        assert one.command("subscribe", 1, "s") == ["ack", 1, "ok"]


def test_a_long_poll_may_wait_longer(impatient: Clocked, stream: str) -> None:
    def get(query: str, path: str = "") -> bytes:
        return f"GET /comet{SUBSCRIBE_PATH}{path}?instance=1&callback=f{query} HTTP/1.1\r\nHost: h\r\n\r\n".encode()

    server = impatient.server
    subscriber_id = ask(server, get("")).body.decode().split("id:")[1].removesuffix('")')
    ask(server, get(f"&data=%5B%22subscribe%22,1,%22{stream}%22%5D", f"/{subscriber_id}"))
    with connect(server) as poll, publisher(server) as tambur:
        poll.sendall(get("", f"/{subscriber_id}"))
        impatient.skip(2 * REQUEST_TIMEOUT_S)
        tambur.publish(stream, "x")
        assert read_answer(poll).body == f'/**/f(1, ["msg","{stream}","public","x"])'.encode()


def test_a_flood_of_connections_that_say_nothing_ends(impatient: Clocked, tambur: Tambur) -> None:
    flood = [connect(impatient.server) for _ in range(200)]
    impatient.skip(REQUEST_TIMEOUT_S)
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


MAX_READS = max_pieces(Limits(), Limits().max_body_bytes)
IN_PIECES = (400, b"Bad Request: the request came in too many small pieces\n")
CHUNKED = f"POST /app/{APP_ID}/stream/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


@pytest.mark.parametrize("size", [0, Limits().max_body_bytes])
def test_a_body_in_too_many_small_chunks_is_refused(server: Server, size: int) -> None:
    """Also behind a large chunk, after which the rest of the body is discarded."""
    first = b"%x\r\n%s\r\n" % (size, b"x" * size) if size else b""
    answer = ask(server, CHUNKED + first + b"1\r\nx\r\n" * (MAX_READS + 1))
    assert (answer.status, answer.body) == IN_PIECES


def test_a_head_in_too_many_small_reads_is_refused() -> None:
    config = Config(apps=(APP,), port=0, limits=Limits(request_timeout_s=1000))
    with clocked(config) as running, connect(running.server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        assert read_answer(connection).status == 200  # so the server has accepted the connection
        for data in [b"GET / HTTP/1.1\r\nX: ", *[b"x"] * (MAX_READS + 1)]:
            connection.sendall(data)
            running.clock.skip(0)  # by then, the server has read it
        answer = Answer(read_all(connection))
    assert (answer.status, answer.body) == IN_PIECES


def test_a_large_body_may_come_in_the_smallest_segments_of_tcp(server: Server, stream: str) -> None:
    head, _, body = signed(server, stream, "é" * (Limits().max_message_bytes // 2)).partition(b"\r\n\r\n")
    head = head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
    chunks = [body[i : i + 536] for i in range(0, len(body), 536)]
    assert len(chunks) > 300
    request = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    assert ask(server, head + b"\r\n\r\n" + request + b"0\r\n\r\n").status == 204


def test_a_batch_may_come_in_more_pieces_than_other_requests(server: Server) -> None:
    most = max_pieces(Limits(), Limits().max_batch_bytes)
    assert most > MAX_READS + 1000
    pieces = b"1\r\nx\r\n" * (most - 1000)
    request = CHUNKED.replace(b"/stream/x", b"/batch") + pieces
    answer = ask(server, request + b"0\r\n\r\n")
    assert answer.body.startswith(b"the Content-Type must be")
    answer = ask(server, request + b"1\r\nx\r\n" * 1001)
    assert (answer.status, answer.body) == IN_PIECES


@pytest.mark.parametrize("path", [SUBSCRIBE_PATH, f"/comet{SUBSCRIBE_PATH}"])
def test_a_query_with_more_parameters_than_anybody_needs_is_refused(server: Server, path: str) -> None:
    query = "instance=1&callback=f" + "&x=%" * (MAX_QUERY_PARAMETERS - 2)
    assert ask(server, f"GET {path}?{query} HTTP/1.1\r\nHost: h\r\n\r\n".encode()).status == 200
    answer = ask(server, f"GET {path}?{query}&x HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert (answer.status, answer.body) == (400, b"the query has more than 64 parameters\n")
