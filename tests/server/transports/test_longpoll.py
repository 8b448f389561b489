"""Long polling over real sockets: section 6 of the protocol."""

from __future__ import annotations

import json
import select
import socket
import threading
from typing import Any
from urllib.parse import quote

import pytest

from tambur import Tambur
from tambur.server import App, Config, Limits, Server, in_background
from tambur.server.connection import MAX_QUEUED_COMMANDS
from tambur.server.transports import longpoll
from tambur.subscriber import Subscriber
from tests.support.app import API_KEY, APP, APP_ID, SECRET, publisher, subscriber

from ...support.clock import clocked, settle
from ...support.polling import Poller, request, value
from ...support.wire import SUBSCRIBE_PATH, TIMEOUT_S, Socket, ask, connect, handshake, read_answer

GRACE_S = 500
"""More time after a broken poll than any test takes, in seconds."""


def present_poller(server: Server, tambur: Tambur, other: Subscriber, stream: str) -> Poller:
    """A client that polls and is present with another one; each has received the other's name."""
    poller = Poller(server)
    poller.command("subscribe", stream)
    token = tambur.generate_presence_token(stream, "poller", poller.subscriber_id)
    other.enable_presence(stream, "other", tambur.generate_presence_token)
    assert poller.command("set_mode", "presence", stream, "poller", token) == "ok"
    assert poller.poll() == ["msg", stream, "presence", ["other", "up"]]
    assert other.receive(TIMEOUT_S) == (stream, "presence", "up", "poller")
    return poller


def test_a_command_is_answered_like_over_a_websocket(server: Server, tambur: Tambur, stream: str) -> None:
    poller = Poller(server)
    auth = tambur.generate_auth_token(stream, poller.subscriber_id)
    presence = tambur.generate_presence_token(stream, "u", poller.subscriber_id)
    assert poller.command("set_mode", "auth", stream, auth) == "not_subscribed"
    assert poller.command("subscribe", stream) == "ok"
    assert poller.command("subscribe", stream) == "already_subscribed"
    assert poller.command("set_mode", "auth", stream, auth) == "ok"
    assert poller.command("set_mode", "presence", stream, "u", presence) == "ok"
    assert poller.command("direct", stream, "u", "x") == "mode_not_enabled"
    assert poller.send("nonsense") == ["ack", 0, "not JSON"]
    assert poller.command("unset_mode", "auth", stream) == "ok"
    assert poller.command("unsubscribe", stream) == "ok"


def test_messages_wait_for_the_next_poll_in_their_order(server: Server, tambur: Tambur, stream: str) -> None:
    poller = Poller(server)
    poller.command("subscribe", stream)
    poller.command("set_mode", "auth", stream, tambur.generate_auth_token(stream, poller.subscriber_id))
    for i in range(5):
        tambur.publish(stream, f"{i} é\u2028</script>")
        tambur.publish(f"auth:{stream}", str(i))
    received = [poller.poll() for _ in range(10)]
    for i in range(5):
        assert received[2 * i : 2 * i + 2] == [
            ["msg", stream, "public", f"{i} é\u2028</script>"],
            ["msg", stream, "auth", str(i)],
        ]


def test_a_poll_waits_for_a_message(server: Server, tambur: Tambur, stream: str) -> None:
    poller = Poller(server)
    poller.command("subscribe", stream)
    with poller.waiting_poll() as poll:
        tambur.publish(f"private:{poller.subscriber_id}", "x")
        assert value(read_answer(poll)) == ["msg", "private", "private", "x"]


def test_a_handshake_behind_a_poll_that_waits_is_not_upgraded(
    server: Server, tambur: Tambur, stream: str
) -> None:
    poller = Poller(server)
    poller.command("subscribe", stream)
    with connect(server) as poll:
        poll.sendall(poller.request() + handshake(f"{SUBSCRIBE_PATH}?instance=1&callback=f"))
        tambur.publish(stream, "x")
        assert value(read_answer(poll)) == ["msg", stream, "public", "x"]
        assert read_answer(poll).status == 200


def test_presence_and_direct_between_a_poller_and_a_websocket(
    server: Server, tambur: Tambur, stream: str
) -> None:
    with subscriber(server, stream) as other:
        poller = present_poller(server, tambur, other, stream)
        other.enable_direct(stream, "other", tambur.generate_direct_token)
        token = tambur.generate_direct_token(stream, "poller", poller.subscriber_id)
        assert poller.command("set_mode", "direct", stream, "poller", token) == "ok"
        assert poller.command("direct", stream, "other", "hi") == "ok"
        assert other.receive(60) == (stream, "direct", "hi", "poller")
        other.send_direct(stream, "poller", "hello")
        assert poller.poll() == ["msg", stream, "direct", ["other", "hello"]]
        assert poller.send("fin") is None
        assert other.receive(60) == (stream, "presence", "down", "poller")
    assert ask(server, poller.request()).status == 404


def test_of_two_polls_the_newer_is_served(server: Server, tambur: Tambur, stream: str) -> None:
    poller = Poller(server)
    with poller.waiting_poll() as older, connect(server) as newer:
        newer.sendall(poller.request())
        assert value(read_answer(older)) is None
        tambur.publish(f"private:{poller.subscriber_id}", "x")
        assert value(read_answer(newer)) == ["msg", "private", "private", "x"]


def test_a_message_for_a_poll_that_was_broken_off_waits_for_the_next(
    server: Server, tambur: Tambur, stream: str
) -> None:
    poller = Poller(server)
    for i in range(10):
        poller.waiting_poll().close()
        for _ in range(5):  # each takes the server several turns of its loop, and so past the broken poll
            assert poller.send(json.dumps(["subscribe", i + 1, "private"]))[2] == "invalid_stream"
        tambur.publish(f"private:{poller.subscriber_id}", str(i))
        assert poller.poll() == ["msg", "private", "private", str(i)]


def test_only_a_get_polls(server: Server) -> None:
    poller = Poller(server)
    assert ask(server, poller.request().replace(b"GET", b"POST", 1)).status == 405
    with connect(server) as connection:
        connection.sendall(poller.request().replace(b"GET", b"HEAD", 1))
        assert connection.recv(100).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize("path", ["/", "/unknown", "/a/b", f"/{'0' * 36}"])
def test_an_unknown_connection_is_404(server: Server, path: str) -> None:
    assert ask(server, request(path)).status == 404


def test_an_unknown_app_and_a_websockets_id_are_404(server: Server) -> None:
    assert ask(server, request().replace(APP_ID.encode(), b"other")).status == 404
    with Socket(server) as one:
        assert ask(server, request(f"/{one.subscriber_id}")).status == 404


def test_an_app_may_have_no_long_polling() -> None:
    app = App(API_KEY, APP_ID, (SECRET,), long_polling=False)
    with in_background(Config(apps=(app,), port=0)) as server:
        assert ask(server, request()).status == 404
        with Socket(server) as one:
            assert one.subscriber_id


def limited(**limits: Any) -> Config:
    return Config(apps=(APP,), port=0, limits=Limits(**limits))


def test_a_poll_without_a_message_ends_empty_and_a_gone_poller_is_cleaned_up(stream: str) -> None:
    with (
        clocked(limited(ping_interval_s=100, ping_timeout_s=1000)) as running,
        publisher(running.server) as tambur,
        subscriber(running.server, stream) as other,
    ):
        poller = present_poller(running.server, tambur, other, stream)
        other.subscribe("other")

        def skip() -> None:
            running.skip(300)
            # The other subscriber has answered the server's ping, which came before the message.
            tambur.publish("other", "x")
            assert other.receive(TIMEOUT_S).text == "x"

        # Polling keeps it alive, however long.
        for _ in range(5):
            with connect(running.server) as poll:
                poll.sendall(poller.request())
                skip()
                assert value(read_answer(poll)) is None
        for _ in range(3):
            skip()
        running.skip(100)
        assert other.receive(TIMEOUT_S) == (stream, "presence", "down", "poller")
        assert ask(running.server, poller.request()).status == 404


def test_a_client_whose_poll_breaks_is_gone_soon(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longpoll, "BROKEN_POLL_GRACE_S", GRACE_S)
    with (
        clocked(limited(ping_interval_s=100, ping_timeout_s=1000)) as running,
        publisher(running.server) as tambur,
        subscriber(running.server, stream) as other,
    ):
        poller = present_poller(running.server, tambur, other, stream)
        poller.waiting_poll().close()
        running.skip(GRACE_S + 1)
        assert other.receive(60) == (stream, "presence", "down", "poller")
        assert ask(running.server, poller.request()).status == 404


def test_a_client_whose_poll_breaks_may_poll_again(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longpoll, "BROKEN_POLL_GRACE_S", GRACE_S)
    with (
        clocked(limited(ping_interval_s=1000, ping_timeout_s=10_000)) as running,
        publisher(running.server) as tambur,
    ):
        poller = Poller(running.server)
        poller.waiting_poll().close()
        running.skip(GRACE_S / 2)
        with poller.waiting_poll() as poll:
            running.skip(GRACE_S + 1)
            tambur.publish(f"private:{poller.subscriber_id}", "x")
            assert value(read_answer(poll)) == ["msg", "private", "private", "x"]
        running.skip(GRACE_S + 1)  # between two polls it may take longer
        tambur.publish(f"private:{poller.subscriber_id}", "y")
        assert poller.poll() == ["msg", "private", "private", "y"]


def test_commands_whose_requests_are_lost_do_not_pile_up(stream: str) -> None:
    s_per_command = 1000
    limits = {"max_commands_per_s": 1 / s_per_command, "ping_interval_s": 1e6, "ping_timeout_s": 1e7}
    with clocked(limited(**limits)) as running:
        poller = Poller(running.server)

        def send(handle: int) -> socket.socket:
            connection = connect(running.server)
            text = json.dumps(["subscribe", handle, f"{stream}{handle}"])
            connection.sendall(poller.request(f"&data={quote(text)}"))
            return connection

        lost = [send(handle) for handle in range(1, 101)]
        settle(running.server)
        for connection in lost:
            connection.close()
        settle(running.server)
        with send(999) as last:
            commands = 0
            while not select.select([last], [], [], 0)[0]:
                running.skip(s_per_command)
                running.clock.settle()  # by then, it has answered
                commands += 1
                assert commands <= MAX_QUEUED_COMMANDS + 2
            assert value(read_answer(last)) == ["ack", 999, "ok"]


def test_a_shutdown_answers_commands_that_wait(stream: str) -> None:
    with in_background(limited(max_commands_per_s=0.001)) as server:
        poller = Poller(server)
        waiting = [connect(server) for _ in range(2 * MAX_QUEUED_COMMANDS)]
        for connection in waiting:
            connection.sendall(poller.request("&data=x"))
        settle(server)
    for connection in waiting:
        with connection:
            assert value(read_answer(connection)) is None


def test_a_client_that_polls_too_slowly_is_dropped(stream: str) -> None:
    with in_background(limited(max_unsent_bytes=1000)) as server, publisher(server) as tambur:
        poller, other = Poller(server), Poller(server)
        for one in (poller, other):
            one.command("subscribe", stream)
        for i in range(30):
            tambur.publish(stream, "x" * 50)
            assert other.poll()[3] == "x" * 50
            if i == 5:
                assert poller.poll()[3] == "x" * 50
        assert ask(server, poller.request()).status == 404


def test_malformed_commands_end_a_poller_too(server: Server) -> None:
    poller = Poller(server)
    for _ in range(10):
        assert poller.send("x") == ["ack", 0, "not JSON"]
    assert ask(server, poller.request()).status == 404


def test_a_shutdown_answers_waiting_clients(stream: str) -> None:
    with in_background(limited()) as server:
        poll = Poller(server).waiting_poll()
    with poll:
        assert value(read_answer(poll)) is None


def test_commands_at_once_are_answered_each_to_its_own(server: Server, stream: str) -> None:
    poller = Poller(server)
    answers: dict[int, Any] = {}

    def send(handle: int) -> None:
        answers[handle] = poller.send(json.dumps(["subscribe", handle, f"{stream}{handle}"]))

    threads = [threading.Thread(target=send, args=(handle,)) for handle in range(1, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {handle: ["ack", handle, "ok"] for handle in range(1, 21)}


def test_no_more_subscribers_poll_than_are_allowed() -> None:
    with in_background(limited(max_long_polling_subscribers=2)) as server:
        first, _ = Poller(server), Poller(server)
        refused = ask(server, request())
        assert (refused.status, refused.headers["retry-after"]) == (503, "10")
        ask(server, first.request("&data=fin"))
        Poller(server)
