"""Publishing over real sockets, and what else the routes answer."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time

import pytest

from tambur import MessageTooLargeError, RateLimitedError, RejectedError, Tambur, UnauthorizedError
from tambur.server import App, Config, Limits, Server, in_background
from tambur.server.api.auth import MAX_SHOWN_CHARACTERS
from tambur.server.transports.http_protocol import MAX_PIPELINED_REQUESTS
from tests.support.app import API_KEY, APP, APP_ID, SECRET, subscriber

from ...support.wire import (
    SUBSCRIBE_PATH,
    TIMEOUT_S,
    Answer,
    ask,
    connect,
    handshake,
    read_all,
    read_answer,
    signed,
)


def test_success_is_204_and_empty(server: Server, stream: str) -> None:
    with connect(server) as connection, subscriber(server, stream) as receiver:
        connection.sendall(signed(server, stream, "é"))
        answer = read_answer(connection)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "transfer-encoding" not in answer.headers
        assert "tambur-replayed" not in answer.headers
        assert receiver.receive(60).text == "é"
        connection.sendall(signed(server, stream, "again, on the same connection"))
        assert read_answer(connection).status == 204


def test_a_replay_is_said_to_be_one(server: Server, stream: str) -> None:
    request = signed(server, stream, "x")
    with subscriber(server, stream) as receiver:
        assert ask(server, request).status == 204
        again = ask(server, request)
        assert (again.status, again.headers["tambur-replayed"]) == (204, "true")
        ask(server, signed(server, stream, "fence"))
        assert [receiver.receive(60).text for _ in range(2)] == ["x", "fence"]


@pytest.mark.parametrize("prefix", ["", "auth:"])
def test_a_debugging_publisher_receives_the_number_of_listening_nodes(
    server: Server, stream: str, prefix: str
) -> None:
    line = f"POST /app/{APP_ID}/stream/{prefix}{stream}?debug=true HTTP/1.1"
    nobody = ask(server, signed(server, f"{prefix}{stream}", "x", line=line))
    assert (nobody.status, nobody.headers["tambur-nodes"]) == (204, "0")
    with subscriber(server, stream):
        request = signed(server, f"{prefix}{stream}", "y", line=line)
        assert ask(server, request).headers["tambur-nodes"] == "1"
        again = ask(server, request)
        assert (again.headers["tambur-replayed"], again.headers["tambur-nodes"]) == ("true", "1")
        assert "tambur-nodes" not in ask(server, request.replace(b"?debug=true", b"")).headers


@pytest.mark.parametrize("destination", ["private:alice", "Auth:news", "direct:news:alice"])
def test_a_destination_that_means_something_else_is_accepted_and_nobody_listens(
    server: Server, destination: str
) -> None:
    line = f"POST /app/{APP_ID}/stream/{destination}?debug=true HTTP/1.1"
    with subscriber(server, "news") as receiver:
        answer = ask(server, signed(server, destination, "x", line=line))
        assert (answer.status, answer.headers["tambur-nodes"]) == (204, "0")
        ask(server, signed(server, "news", "fence"))
        assert receiver.receive(60).text == "fence"


def test_a_private_message_is_listened_to_by_the_node_that_made_the_id(server: Server) -> None:
    with subscriber(server) as receiver:
        destination = f"private:{receiver.subscriber_id}"
        line = f"POST /app/{APP_ID}/stream/{destination}?debug=true HTTP/1.1"
        assert ask(server, signed(server, destination, "x", line=line)).headers["tambur-nodes"] == "1"


def test_requests_in_a_row_are_answered_in_a_row(server: Server, stream: str) -> None:
    with connect(server) as connection, subscriber(server, stream) as receiver:
        connection.sendall(b"".join(signed(server, stream, str(i)) for i in range(5)))
        assert [read_answer(connection).status for _ in range(5)] == [204] * 5
        assert [receiver.receive(60).text for _ in range(5)] == list("01234")


@pytest.mark.parametrize("debug", [False, True])
def test_a_refusal_says_why_and_on_request_shows_the_base_string(
    server: Server, stream: str, debug: bool
) -> None:
    query = "?debug=true" if debug else ""
    request = signed(server, stream, "x", line=f"POST /app/{APP_ID}/stream/{stream}{query} HTTP/1.1")
    assert ask(server, request).status == 204, "the query is not signed"
    answer = ask(server, request.replace(b"message=x", b"message=y"))
    assert answer.status == 401
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["www-authenticate"] == "OAuth"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    reason, *shown = answer.body.decode().splitlines()
    assert reason.startswith("wrong signature")
    assert bool(shown) is debug
    if debug:
        assert "%26message%3Dy" in shown
        base_string = "".join(shown[2:])
        assert base_string.startswith("POST&http%3A%2F%2F127.0.0.1")
        assert "oauth_signature%3D" not in base_string
        assert SECRET not in answer.body.decode().replace(APP_ID, "")


REFUSED = [
    (b"POST /app/other/stream/x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 404),
    (b"POST /elsewhere HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 404),
    (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    (b"GET /a/b HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    (f"POST /app/{APP_ID}/stream/x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".encode(), 400),
    (f"POST /app/{APP_ID}/stream/x HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode(), 400),
    (b"nonsense\r\n\r\n", 400),
]


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED)
def test_malformed_requests_are_refused_before_they_are_read(
    server: Server, request_bytes: bytes, status: int
) -> None:
    assert ask(server, request_bytes).status == status


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_publishing_needs_a_post(server: Server, method: str) -> None:
    answer = ask(server, f"{method} /app/{APP_ID}/stream/x HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("line", ["POST http://{host}{path} HTTP/1.1", "POST {path} HTTP/1.0"])
def test_other_forms_of_a_request_line(server: Server, stream: str, line: str) -> None:
    host, path = server.url.removeprefix("http://"), f"/app/{APP_ID}/stream/{stream}"
    assert ask(server, signed(server, stream, "x", line=line.format(host=host, path=path))).status == 204


def test_a_body_in_chunks(server: Server, stream: str) -> None:
    head, _, body = signed(
        server, stream, "x", headers={"Content-Length": None, "Transfer-Encoding": "chunked"}
    ).partition(b"\r\n\r\n")
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    assert ask(server, head + b"\r\n\r\n" + chunks).status == 204


def test_a_publisher_that_waits_for_100_continue(server: Server, stream: str) -> None:
    head, _, body = signed(server, stream, "x", headers={"Expect": "100-continue"}).partition(b"\r\n\r\n")
    with connect(server) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert read_answer(connection).status == 100
        connection.sendall(body)
        assert read_answer(connection).status == 204


def test_the_limits_of_message_and_body(server: Server, tambur: Tambur, stream: str) -> None:
    limits = Limits()
    assert tambur.publish(stream, "é" * (limits.max_message_bytes // 2))
    with pytest.raises(MessageTooLargeError, match="65537 bytes, at most 65536"):
        tambur.publish(stream, "x" * (limits.max_message_bytes + 1))
    # Longer than any body may be, and read to its end all the same, so that the publisher gets to read why.
    with pytest.raises(MessageTooLargeError, match="the body has more than"):
        tambur.publish(stream, "x" * (limits.max_body_bytes + 1))


def test_a_body_without_end_is_cut_off(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(
            f"POST /app/{APP_ID}/stream/x HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n".encode()
        )
        sent = 0
        try:
            while sent < 2**30:
                sent += connection.send(b"x" * 65536)
        except (ConnectionResetError, BrokenPipeError):
            pass
        assert sent < 64 * 2**20


def test_a_publisher_that_breaks_off_harms_nobody(server: Server, tambur: Tambur, stream: str) -> None:
    with subscriber(server, stream) as receiver:
        for _ in range(10):
            with connect(server) as connection:
                connection.sendall(signed(server, stream, "never")[:-20])
        tambur.publish(stream, "still there")
        assert receiver.receive(60).text == "still there"


def test_a_rate_limit_is_answered_with_when_to_come_back(stream: str) -> None:
    app = App(API_KEY, APP_ID, (SECRET,), max_publishes_per_s=0.001)
    with (
        in_background(Config(apps=(app,), port=0)) as server,
        Tambur(API_KEY, APP_ID, SECRET, server.url) as tambur,
    ):
        tambur.publish(stream, "x")
        with pytest.raises(RateLimitedError, match=r"more than 0.001 publishes/s") as caught:
            tambur.publish(stream, "y")
        assert caught.value.retry_after is not None
        assert 900 < caught.value.retry_after <= 1000
        assert not caught.value.may_have_been_delivered


def test_a_wrong_secret_is_said_so(server: Server, stream: str) -> None:
    with Tambur(API_KEY, APP_ID, "wrong", server.url) as tambur:
        with pytest.raises(UnauthorizedError, match="wrong signature; is the secret right"):
            tambur.publish(stream, "x")


def test_only_public_hosts_are_answered(stream: str) -> None:
    with in_background(Config(apps=(APP,), port=0, public_hosts=("push.example:8080",))) as server:
        refused: list[Answer] = [
            ask(server, signed(server, stream, "x")),
            ask(server, f"GET {SUBSCRIBE_PATH}?instance=1&callback=f HTTP/1.1\r\nHost: h\r\n\r\n".encode()),
            ask(server, handshake()),
        ]
        for answer in refused:
            assert answer.status == 421
            assert b"is not among this server's public_hosts" in answer.body
        assert ask(server, handshake(host="Push.Example:8080")).status == 101
        with Tambur(API_KEY, APP_ID, SECRET, "push.example:8080") as tambur:
            prepared = tambur.build_request(stream, "x", int(time.time()), "n")
        head = f"POST {prepared.path_url} HTTP/1.1\r\nHost: push.example:8080\r\n"
        head += "Content-Type: application/x-www-form-urlencoded\r\n"
        request = f"{head}Content-Length: {len(prepared.body or '')}\r\n\r\n{prepared.body!s}"
        assert ask(server, request.encode()).status == 204


def test_keys_and_apps_of_one_server_do_not_meet(stream: str) -> None:
    apps = (App("k", "a", ("s1",)), App("k", "b", ("s2",)), App("l", "a", ("s3",)))
    with in_background(Config(apps=apps, port=0)) as server:
        publishers = [Tambur(app.api_key, app.app_id, app.secrets[0], server.url) for app in apps]
        from tambur.subscriber import Subscriber  # noqa: PLC0415

        receivers = [Subscriber(app.api_key, app.app_id, server.url) for app in apps]
        for receiver in receivers:
            receiver.subscribe(stream)
        for i, tambur in enumerate(publishers):
            tambur.publish(stream, f"for {i}")
            for other in receivers:
                tambur.publish(f"private:{other.subscriber_id}", f"private from {i}")
            tambur.publish(stream, f"fence {i}")
        for i, receiver in enumerate(receivers):
            assert {receiver.receive(60).text for _ in range(3)} == {
                f"for {i}",
                f"private from {i}",
                f"fence {i}",
            }
            receiver.close()
            publishers[i].close()


def test_many_publishers_at_once_lose_nothing(server: Server, stream: str) -> None:
    with subscriber(server, stream) as receiver:

        def run(number: int) -> None:
            with Tambur(API_KEY, APP_ID, SECRET, server.url) as tambur:
                for i in range(25):
                    tambur.publish(stream, f"{number} {i}")

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        received = [receiver.receive(60).text for _ in range(200)]
        for thread in threads:
            thread.join()
    for number in range(8):
        assert [t for t in received if t.startswith(f"{number} ")] == [f"{number} {i}" for i in range(25)]


def test_no_error_of_a_request_shows_in_full(server: Server, tambur: Tambur) -> None:
    with pytest.raises(RejectedError) as caught:
        tambur.publish("x", "y" * 10**6)
    assert len(caught.value.reason) < 2100
    assert not re.search("y{100}", str(caught.value))


def test_a_closed_answer_ends_its_connection(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert Answer(read_all(connection)).status == 404


def test_of_two_hosts_the_first_one_is_signed(server: Server, stream: str) -> None:
    request = signed(server, stream, "x")
    assert ask(server, request.replace(b"\r\n\r\n", b"\r\nHost: other\r\n\r\n", 1)).status == 204
    assert ask(server, request.replace(b"\r\nHost", b"\r\nHost: other\r\nHost", 1)).status == 401


@pytest.mark.parametrize("host", ["h/app/a/stream/auth:x?", "h?", "u@h", "h h", "", "h#"])
def test_a_host_that_holds_more_than_a_host_moves_no_signature_to_another_stream(
    server: Server, stream: str, host: str
) -> None:
    """The URL that is signed is made of the Host and the path, and must not be made to look like another."""
    with Tambur(API_KEY, APP_ID, SECRET, "h") as tambur:
        prepared = tambur.build_request("auth:x", "secret", int(time.time()), "nonce")
    assert isinstance(prepared.body, str)
    request = (
        f"POST /app/{APP_ID}/stream/{stream} HTTP/1.1\r\nHost: {host.replace('/app/a/', f'/app/{APP_ID}/')}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(prepared.body)}\r\n\r\n{prepared.body}"
    )
    with subscriber(server, stream) as receiver:
        answer = ask(server, request.encode())
        assert answer.status == 400
        ask(server, signed(server, stream, "fence"))
        assert receiver.receive(60).text == "fence"


def test_a_client_with_an_unread_answer_is_not_upgraded() -> None:
    with (
        in_background(Config(apps=(APP,), port=0)) as server,
        contextlib.closing(socket.socket()) as connection,
    ):
        # Together the answers are more than the kernel keeps, with so little room on both sides.
        server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(TIMEOUT_S)
        connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        line = f"POST /app/{APP_ID}/stream/s?debug=true HTTP/1.1"
        refused = [
            signed(server, "s", "x" * MAX_SHOWN_CHARACTERS, line=line).replace(b"message=x", b"message=y")
            for _ in range(MAX_PIPELINED_REQUESTS)
        ]
        connection.sendall(b"".join(refused))
        assert connection.recv(1, socket.MSG_PEEK)
        connection.sendall(handshake(f"{SUBSCRIBE_PATH}?instance=1&callback=f"))
        assert [read_answer(connection).status for _ in refused] == [401] * len(refused)
        assert read_answer(connection).status == 200


def test_more_parameters_than_anybody_needs_are_refused_unread(server: Server) -> None:
    body = "a&" * 100_000
    head = f"POST /app/{APP_ID}/stream/x HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    answer = ask(server, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    assert (answer.status, answer.body) == (400, b"the body has more than 64 parameters\n")


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT", "DELETE"])
def test_every_answer_to_a_publish_may_be_read_by_any_page(server: Server, method: str) -> None:
    answer = ask(server, f"{method} /app/{APP_ID}/stream/x HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/key/app/", "/comet", "/app", "/"])
def test_nothing_is_redirected(server: Server, path: str) -> None:
    assert ask(server, f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()).status in (404, 405)
