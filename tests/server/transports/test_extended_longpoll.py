"""Extended long polling over real sockets: section 7 of the protocol."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tambur import Tambur
from tambur.server import App, Config, Limits, Server, in_background
from tambur.server.connection import MAX_MALFORMED_COMMANDS
from tambur.server.transports import polled_connection
from tests.support.app import API_KEY, APP, APP_ID, SECRET, publisher, subscriber

from ...support.clock import clocked, settle
from ...support.extended import Client
from ...support.extended_polling import ExtendedPoller, content, post
from ...support.polling import Poller, request
from ...support.wire import TIMEOUT_S, ask, connect, read_answer

ORIGIN = "https://www.example.com"
GRACE_S = 500
"""More time after a broken poll than any test takes, in seconds."""


def limited(**limits: Any) -> Config:
    return Config(apps=(APP,), port=0, limits=Limits(**limits))


# Frames and commands


def test_the_opening_answer_has_the_greeting_and_the_acks(server: Server, stream: str) -> None:
    answer = content(ask(server, post({"send": [["hello", 1, {}], ["subscribe", 2, stream]]})))
    greeting, hello, subscribed = answer["frames"]
    assert answer["n"] == 3
    assert greeting == f"id:{hello[3]['id']}"
    assert hello[:3] == ["ack", 1, "ok"]
    assert set(hello[3]) == {"id", "session", "resumed", "position", "complete", "heartbeat_s"}
    assert subscribed[:3] == ["ack", 2, "ok"]
    assert subscribed[3]["complete"] is True
    # It names the connection, and tells nothing of the subscriber but its node.
    assert hello[3]["id"] not in answer["poll"]
    assert len(answer["poll"]) >= 32


def test_a_poll_waits_for_messages_with_positions(server: Server, tambur: Tambur, stream: str) -> None:
    poller = ExtendedPoller(server)
    assert poller.ask("subscribe", stream)["replayed"] == 0
    with poller.waiting_poll() as poll:
        tambur.publish(stream, "é\u2028")
        (message,) = poller.take(content(read_answer(poll)))
    assert message[:4] == ["msg", stream, "public", "é\u2028"]
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", message[4])


def test_frames_that_are_not_confirmed_are_sent_again(server: Server, tambur: Tambur) -> None:
    poller = ExtendedPoller(server)
    private = f"private:{poller.subscriber_id}"  # the messages of a stream may wait for each other
    tambur.publish(private, "1")
    lost = content(ask(server, poller.request()))
    tambur.publish(private, "2")
    again = content(ask(server, poller.request()))
    assert [frame[3] for frame in lost["frames"]] == ["1"]
    assert [frame[3] for frame in again["frames"]] == ["1", "2"]
    assert (lost["n"], again["n"]) == (poller.n + 1, poller.n + 2)
    poller.take(lost)
    tambur.publish(private, "3")
    assert [frame[3] for frame in poller.poll()] == ["2", "3"]


def test_a_command_that_is_sent_again_is_done_once(server: Server, tambur: Tambur, stream: str) -> None:
    poller = ExtendedPoller(server)
    sent = poller.request([["subscribe", 2, stream]])
    lost = content(ask(server, sent))
    again = content(ask(server, sent))
    assert again == lost
    assert lost["frames"][0][:3] == ["ack", 2, "ok"]
    poller.take(again)
    # Lower handles are not above the last one taken.
    assert poller.send(["unsubscribe", 1, stream], ["unsubscribe", 3, stream]) == [["ack", 3, "ok"]]


def test_a_late_request_is_answered_without_frames_and_does_not_end_a_newer_poll(
    server: Server, tambur: Tambur, stream: str
) -> None:
    poller = ExtendedPoller(server)
    late = poller.request()
    poller.ask("subscribe", stream)
    with poller.waiting_poll() as poll:
        answer = content(ask(server, late))
        assert (answer["n"], answer["frames"]) == (2, [])
        tambur.publish(stream, "x")
        assert content(read_answer(poll))["frames"][0][3] == "x"


def test_of_two_requests_the_newer_is_served(server: Server, tambur: Tambur, stream: str) -> None:
    poller = ExtendedPoller(server)
    with poller.waiting_poll() as older, connect(server) as newer:
        newer.sendall(poller.request([["subscribe", 2, stream]]))
        assert content(read_answer(older))["frames"] == []
        poller.take(content(read_answer(newer)))
    assert poller.ack(2)["complete"] is True
    tambur.publish(stream, "x")
    assert poller.next()[3] == "x"


def test_malformed_commands_are_answered_as_over_a_websocket(server: Server, stream: str) -> None:
    poller = ExtendedPoller(server)
    assert poller.send("x") == [["ack", 0, "a command must be a JSON array"]]
    assert poller.ask("subscribe", stream)["complete"] is True
    frames = poller.send(*[["x", i] for i in range(100, 100 + MAX_MALFORMED_COMMANDS)])
    reason = f"{MAX_MALFORMED_COMMANDS} malformed commands in a row"
    assert frames[:-1] == [["ack", 0, "unknown command"]] * MAX_MALFORMED_COMMANDS
    assert frames[-1] == ["close", 1008, reason]


def test_a_connection_that_is_not_extended_may_poll_too(server: Server, tambur: Tambur, stream: str) -> None:
    poller = ExtendedPoller(server, plain=True)
    assert poller.ask("subscribe", stream) == "ok"
    tambur.publish(stream, "x")
    assert poller.next() == ["msg", stream, "public", "x"]
    assert poller.ask("hello", {}) == "invalid_hello"


def test_a_large_replay_arrives_in_parts(stream: str) -> None:
    with in_background(limited(max_unsent_bytes=300_000)) as server, publisher(server) as tambur:
        first = ExtendedPoller(server)
        since = first.ask("subscribe", stream)["position"]
        texts = [f"{i} {'x' * 20_000}" for i in range(30)]
        for text in texts:
            tambur.publish(stream, text)
            first.poll()
        second = ExtendedPoller(server)
        assert second.ask("subscribe", stream, {"since": since})["replayed"] == len(texts)
        assert [frame[3] for frame in second.frames] == texts


# Sessions


def test_a_session_continues_between_polling_and_a_websocket(
    server: Server, tambur: Tambur, stream: str
) -> None:
    poller = ExtendedPoller(server)
    since = poller.ask("subscribe", stream)["position"]
    with Client(server, session=poller.hello["session"]) as socket:
        assert socket.hello["resumed"] is True
        assert socket.hello["id"] == poller.subscriber_id
        assert poller.next()[:2] == ["close", 4009]
        tambur.publish(stream, "x")
        session = socket.hello["session"]
    back = ExtendedPoller(server, hello={"session": session})
    assert back.hello["resumed"] is True
    assert back.ask("subscribe", stream, {"since": since})["replayed"] == 1
    assert back.next()[3] == "x"
    tambur.publish(f"private:{poller.subscriber_id}", "y")
    assert back.next()[:4] == ["msg", "private", "private", "y"]


def test_a_get_cannot_extend(server: Server) -> None:
    assert Poller(server).command("hello", {}) == "invalid_hello"  # type: ignore[arg-type]


# Ends


@pytest.mark.parametrize(("code", "lingers"), [(1000, False), (1005, False), (4000, True), (1001, True)])
def test_a_client_closes(stream: str, code: int, lingers: bool) -> None:
    with (
        clocked(limited(presence_linger_s=500, ping_interval_s=1e4, ping_timeout_s=1e5)) as running,
        publisher(running.server) as tambur,
        subscriber(running.server, stream) as other,
    ):
        other.enable_presence(stream, "other", tambur.generate_presence_token)
        poller = ExtendedPoller(running.server)
        token = tambur.generate_presence_token(stream, "poller", poller.subscriber_id)
        poller.send(["subscribe", 2, stream, {"presence": ["poller", token]}])
        assert other.receive(TIMEOUT_S).text == "up"
        # The commands beside a goodbye are done first.
        assert poller.send(["subscribe", 3, "s"], close=code)[0][:3] == ["ack", 3, "ok"]
        assert ask(running.server, poller.request()).status == 404
        if lingers:
            tambur.publish(stream, "x")
            assert other.receive(TIMEOUT_S).text == "x"
            running.skip(501)
        assert other.receive(TIMEOUT_S) == (stream, "presence", "down", "poller")


def test_a_goodbye_whose_client_is_gone_ends_the_connection(server: Server) -> None:
    poller = ExtendedPoller(server)
    with poller.waiting_poll() as poll, connect(server) as goodbye:
        goodbye.sendall(poller.request(close=4000))
        goodbye.close()
        assert content(read_answer(poll))["frames"] == []
    assert ask(server, poller.request()).status == 404


def test_a_shutdown_ends_with_a_frame(stream: str) -> None:
    with in_background(limited()) as server:
        poll = ExtendedPoller(server).waiting_poll()
    with poll:
        assert content(read_answer(poll))["frames"] == [["close", 1001, "the server is shutting down"]]


def test_a_client_that_polls_too_slowly_is_closed(stream: str) -> None:
    with in_background(limited(max_unsent_bytes=1000)) as server, publisher(server) as tambur:
        slow, other = ExtendedPoller(server), ExtendedPoller(server)
        for poller in (slow, other):
            poller.ask("subscribe", stream)
        for _ in range(30):
            tambur.publish(stream, "x" * 50)
            assert other.next()[3] == "x" * 50
        (last,) = content(ask(server, slow.request()))["frames"]
        assert last == ["close", 4008, "too much is unsent"]


def test_a_connection_is_gone_some_time_after_its_last_poll(
    stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polled_connection, "BROKEN_POLL_GRACE_S", GRACE_S)
    with clocked(
        limited(ping_interval_s=100, ping_timeout_s=1000, heartbeat_s=100, session_ttl_s=86400)
    ) as running:
        poller = ExtendedPoller(running.server)
        # Polling keeps it alive, however long. The answer without frames is the heartbeat.
        for _ in range(15):
            with connect(running.server) as poll:
                poll.sendall(poller.request())
                running.skip(101)
                assert poller.take(content(read_answer(poll))) == []
        poller.waiting_poll().close()
        running.skip(GRACE_S / 2)
        with poller.waiting_poll():
            running.skip(GRACE_S + 1)
            assert poller.ask("subscribe", stream)["complete"] is True
        running.skip(GRACE_S + 1)
        assert poller.ask("unsubscribe", stream) == "ok"
        poller.waiting_poll().close()
        running.skip(GRACE_S + 1)
        assert ask(running.server, poller.request()).status == 404
        other = ExtendedPoller(running.server)
        running.skip(1001)
        assert ask(running.server, other.request()).status == 404


def test_the_last_frames_are_kept_for_a_while(stream: str) -> None:
    with clocked(limited()) as running:
        poller = ExtendedPoller(running.server)
        with Client(running.server, session=poller.hello["session"]) as taker:
            assert taker.hello["resumed"] is True
        for _ in range(2):
            (frame,) = content(ask(running.server, poller.request()))["frames"]
            assert frame[:2] == ["close", 4009]
        running.skip(polled_connection.CLOSED_GRACE_S + 1)
        assert ask(running.server, poller.request()).status == 404


# Limits and refusals


def test_too_many_waiting_commands_are_refused_and_none_is_taken(stream: str) -> None:
    with clocked(limited(max_commands_per_s=0.001)) as running:
        poller = ExtendedPoller(running.server, plain=True)
        commands = [["subscribe", i, f"{stream}{i}"] for i in range(1, 1002)]
        with connect(running.server) as first, connect(running.server) as second:
            first.sendall(poller.request(commands[:600]))
            settle(running.server)
            refused = ask(running.server, poller.request(commands[600:]))
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert refused.headers["access-control-allow-origin"] == "*"
            second.sendall(poller.request(commands[:1000]))
            settle(running.server)
            assert ask(running.server, poller.request(commands[1000:])).status == 429
            running.skip(16)
            assert content(read_answer(second))["frames"] == []


def test_no_more_subscribers_poll_than_are_allowed() -> None:
    with in_background(limited(max_long_polling_subscribers=2)) as server:
        first, _ = ExtendedPoller(server), Poller(server)
        for opening in (post({}), request()):
            refused = ask(server, opening)
            assert (refused.status, refused.headers["retry-after"]) == (503, "10")
        first.send(close=1000)
        ExtendedPoller(server)


@pytest.mark.parametrize("secret", ["", "x", "0" * 40, "\ud800" * 40, "é" * 40])
def test_an_unknown_secret_is_404(server: Server, secret: str) -> None:
    answer = ask(server, post({"poll": secret, "n": 0}))
    assert answer.status == 404
    assert answer.headers["access-control-allow-origin"] == "*"


def test_an_id_or_another_apps_secret_names_no_connection() -> None:
    other = App(API_KEY, "other", (SECRET,))
    with in_background(Config(apps=(APP, other), port=0)) as server:
        poller = ExtendedPoller(server)
        assert ask(server, post({"poll": poller.subscriber_id, "n": 0})).status == 404
        assert ask(server, post({"poll": poller.secret, "n": 0}, app_id="other")).status == 404
        assert ask(server, request(f"/{poller.secret}")).status == 404
        assert ask(server, request(f"/{poller.subscriber_id}")).status == 404


@pytest.mark.parametrize(
    ("body", "rule"),
    [(b"{", b"the body must be a JSON object\n"), (b'{"n":1}', b"n must be 0 in the request that opens ")],
)
def test_a_malformed_body_is_400_with_the_rule(server: Server, body: bytes, rule: bytes) -> None:
    answer = ask(server, post(body))
    assert answer.status == 400
    assert answer.body.startswith(rule)
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["access-control-allow-origin"] == "*"


def test_an_n_that_no_answer_had_is_400(server: Server) -> None:
    poller = ExtendedPoller(server)
    answer = ask(server, post({"poll": poller.secret, "n": poller.n + 1}))
    assert (answer.status, answer.body) == (400, b"n must not be above the n of the last answer\n")


def test_a_body_over_the_limit_is_413() -> None:
    with in_background(limited(max_message_bytes=1000)) as server:
        largest = b'{"":"' + b"x" * (3 * 1000 + 64 * 1024 - 7) + b'"}'
        assert ask(server, post(largest)).status == 200
        assert ask(server, post(largest + b" ")).status == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_a_connection_opens_with_a_post_alone(server: Server, method: str) -> None:
    with connect(server) as connection:
        connection.sendall(post({}, method=method))
        assert connection.recv(100).split()[1] in (b"400", b"405")


def test_an_app_without_long_polling_is_404() -> None:
    app = App(API_KEY, APP_ID, (SECRET,), long_polling=False)
    with in_background(Config(apps=(app,), port=0)) as server:
        answer = ask(server, post({}))
        assert (answer.status, answer.headers["tambur-refused"]) == (404, "no_long_polling")
        assert ask(server, post({}, app_id="unknown")).headers["tambur-refused"] == "unknown_app"


# Origins


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    app = App(API_KEY, APP_ID, (SECRET,), allowed_origins=(ORIGIN,))
    with in_background(Config(apps=(app,), port=0)) as running:
        yield running


@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
@pytest.mark.parametrize("headers", [["Origin: https://evil.example"], [f"Origin: {ORIGIN}", "Origin: null"]])
def test_a_page_of_another_origin_is_refused(strict: Server, method: str, headers: list[str]) -> None:
    answer = ask(strict, post({}, *headers, method=method))
    assert (answer.status, answer.headers["tambur-refused"]) == (403, "origin_not_allowed")


def test_a_page_of_an_allowed_origin_reads_every_answer(strict: Server) -> None:
    allowed = {"access-control-allow-origin": ORIGIN, "vary": "Origin"}
    for body, status in (({}, 200), (b"{", 400), ({"poll": "x", "n": 0}, 404)):
        answer = ask(strict, post(body, f"Origin: {ORIGIN}"))
        assert answer.status == status
        assert allowed.items() <= answer.headers.items()


def test_a_client_without_an_origin_is_a_program_as_over_a_websocket(strict: Server) -> None:
    answer = ask(strict, post({}))
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


def test_a_browser_may_ask_for_permission(server: Server, strict: Server) -> None:
    for asked, origin in ((server, "*"), (strict, ORIGIN)):
        answer = ask(asked, post(b"", f"Origin: {ORIGIN}", method="OPTIONS"))
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["access-control-allow-methods"] == "POST"
        assert answer.headers["access-control-allow-headers"] == "Content-Type"


def test_no_secret_is_shown(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    poller = ExtendedPoller(server)
    poller.send(["subscribe", 2, ""], "malformed")
    assert poller.secret is not None
    assert poller.secret not in caplog.text
