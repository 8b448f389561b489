"""The cost of refused requests, in processor time, beside a plain refused publish.

With ``pytest -s`` each test prints how many microseconds its request took, and how many a plain one.
"""

from __future__ import annotations

import itertools
import os
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.extended_polling import post
from tests.support.node_process import NodeProcess
from tests.support.wire import SUBSCRIBE_PATH, Answer, connect, handshake, read_all

from ..support.app import API_KEY, APP_ID

MAX_TIMES = 8
"""How many times the processor time of a plain refused publish any refused request may take.

A batch may take as many times more as it is larger.
"""

PLAIN_BYTES = 190_000
ROUNDS = 3
REQUESTS = 4

TARGET = f"/app/{APP_ID}/stream/s"
_numbers = itertools.count()


class Serving(NodeProcess):
    def cpu_s(self) -> float:
        """The processor time that the process has had, in seconds."""
        pid = self.process.pid
        return time.clock_gettime(~pid << 3 | 2)  # the result of the C library's clock_getcpuclockid


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    node = Serving(tmp_path_factory.mktemp("serving"), "memory://")
    yield node
    node.process.terminate()
    node.process.communicate()


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: h", *headers, "", ""]).encode("latin-1") + body


def form(message: bytes, extra: bytes = b"") -> bytes:
    """The body of a publish that is right in all but its signature."""
    return (
        b"api_version=1.0&oauth_consumer_key=%s&oauth_nonce=%d&oauth_signature_method=HMAC-SHA1&oauth_timestamp=%d"
        b"&oauth_version=1.0&oauth_signature=x&message=%s%s"
    ) % (API_KEY.encode(), next(_numbers), time.time(), message, extra)


def publish(message: bytes, extra: bytes = b"", path: str = TARGET, *more: str) -> bytes:
    body = form(message, extra)
    headers = [*more, "Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
    return request(f"POST {path}", *headers, body=body)


def repeated(pattern: bytes, size: int = PLAIN_BYTES) -> bytes:
    return pattern * (size // len(pattern))


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    headers = ["Content-Type: application/x-www-form-urlencoded", "Transfer-Encoding: chunked"]
    return request(f"POST {TARGET}", *headers, body=chunks + b"0\r\n\r\n")


PLAIN = publish(repeated(b"x"))
BATCH_BYTES = 1024 * 1024 - 512
JAPANESE = "日本語".encode()
UPGRADE = "Upgrade: websocket"
CLOSE = (
    "Connection: close"  # the server takes several turns, and drops its answer if the client ends its side
)

REQUESTS_BY_NAME = {
    # Publishes whose body takes time to decode, or to encode again.
    **{
        f"message of {name}": publish(repeated(pattern))
        for name, pattern in {
            "bare %": b"%",
            "a bare % after each letter": b"a%",
            "% and a digit": b"%a",
            "%41": b"%41",
            "%00": b"%00",
            "spaces": b"+",
            "=": b"=",
            "raw Japanese": JAPANESE,
            "encoded Japanese": quote(JAPANESE).encode(),
        }.items()
    },
    "every byte": publish(b"x", b"&x=" + repeated(bytes(set(range(256)) - set(b"&")))),
    "64 parameters": publish(b"x", b"".join(b"&%d=%s" % (i, repeated(b"%", 3400)) for i in range(55))),
    "debug": publish(repeated(b"%"), path=f"{TARGET}?debug=true"),
    "debug with &": publish(repeated(b"%26"), path=f"{TARGET}?debug=true"),
    # Batches, which may be five times as large as a publish.
    **{
        f"batch of {name}": publish(
            b"x", b"&messages=" + repeated(pattern, BATCH_BYTES), f"/app/{APP_ID}/batch", CLOSE
        )
        for name, pattern in {
            "letters": b"x",
            "bare %": b"%",
            "%00": b"%00",
            "spaces": b"+",
            "[],": b"[],",
            "[": b"[",
            "raw Japanese": JAPANESE,
        }.items()
    },
    # Bodies of the wrong size or in small pieces.
    "body over the limit": publish(repeated(b"x", 1_600_000)),
    "chunks of a byte": chunked(form(repeated(b"x")), 1),
    "chunks of 16 bytes": chunked(form(repeated(b"x")), 16),
    "chunks of 128 bytes": chunked(form(repeated(b"x")), 128),
    "chunks of a byte over the limit": chunked(repeated(b"x", 1_600_000), 1),
    # Polls with the largest body, or with as much syntax as is allowed.
    **{
        f"poll of {name}": post(b'{"poll":"x","n":0,"send":[[' + repeated(pattern, size) + b"0]]}")
        for name, pattern, size in [
            ("numbers", b"1,", 200_000),
            ("commands", b"],[", 200_000),
            ("escapes", b'"\\u0001\\u0001\\u0001",', 200_000),
            ("quotes", b'"","', 200_000),
            ("allowed numbers", b"1e500,", 63_000),
            ("allowed members", b'{"ab":0.1},', 80_000),
            ("allowed commands", b"],[", 63_000),
        ]
    },
    # Paths, hosts, queries and headers.
    "path of %": publish(b"x", path=f"/app/{APP_ID}/stream/{'%' * 8000}"),
    "app of %41": publish(b"x", path=f"/app/{'%41' * 2600}/stream/x"),
    "query of a publish": publish(b"x", path=f"{TARGET}?{'%&' * 3900}"),
    "host of colons": PLAIN.replace(b"Host: h", b"Host: [v1." + b":" * 8000),
    "query of the balancer": request(f"GET {SUBSCRIBE_PATH}?{'%&' * 3900}"),
    "callback of %": request(f"GET {SUBSCRIBE_PATH}?callback={'%' * 7900}"),
    "query of a poll": request(f"GET /comet{SUBSCRIBE_PATH}?{'%&' * 3900}"),
    "many headers": request("GET /none", *[f"X{i}: {'y' * 100}" for i in range(120)]),
    "long Connection": handshake("/a/none", "Connection: " + "a," * 3900),
    "long Connection without upgrade": request("GET /none", "Connection: " + "a," * 3900, UPGRADE),
    "long extensions": handshake("/a/none", "Sec-WebSocket-Extensions: " + "a;b=c," * 1300),
}


def talk(server: Serving, data: bytes) -> int:
    """Send a request, and read as much of the answer as there is; return the status, 0 for none."""
    with connect(server) as connection:
        try:
            connection.sendall(data)
            if CLOSE.encode() not in data:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server closed the connection before the end of the body
        answer = read_all(connection)
    return Answer(answer).status if answer else 0


def cpu_s(server: Serving, data: bytes) -> float:
    before = server.cpu_s()
    for _ in range(REQUESTS):
        assert talk(server, data) in {0, 400, 401, 404, 408, 413, 431}
    return (server.cpu_s() - before) / REQUESTS


@pytest.mark.parametrize("name", REQUESTS_BY_NAME)
def test_no_refused_request_costs_much_more_than_a_plain_one(serving: Serving, name: str) -> None:
    data = REQUESTS_BY_NAME[name]
    talk(serving, PLAIN), talk(serving, data)  # the first of a kind takes longer
    rounds = [(cpu_s(serving, data), cpu_s(serving, PLAIN)) for _ in range(ROUNDS)]
    times = statistics.median(found / plain for found, plain in rounds)
    us, plain_us = (1e6 * statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"\n| {name} | {us:,.0f} | {plain_us:,.0f} | {times:.1f} |")  # noqa: T201
    assert times <= MAX_TIMES * (len(data) / len(PLAIN) if name.startswith("batch") else 1)
    assert "Traceback" not in serving.log


def test_the_clock_of_the_process_is_the_right_one(serving: Serving) -> None:
    ticks = Path(f"/proc/{serving.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()[11:13]
    from_proc_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    assert from_proc_s == pytest.approx(serving.cpu_s(), abs=0.1)
