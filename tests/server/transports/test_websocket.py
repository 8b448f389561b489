"""The WebSocket over real sockets: section 4 of the protocol."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from tambur import Tambur
from tambur.server import App, Config, Limits, Server, in_background
from tests.support.app import API_KEY, APP, APP_ID, SECRET, publisher, subscriber

from ...support.clock import clocked
from ...support.wire import MIN_BUFFER, SUBSCRIBE_PATH, TIMEOUT_S, Socket, ask, handshake, read_all

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def test_the_first_frame_is_the_subscriber_id(server: Server) -> None:
    with Socket(server) as one, Socket(server) as other:
        assert UUID.fullmatch(one.subscriber_id)
        assert one.greeting == f"id:{one.subscriber_id}"
        assert one.subscriber_id != other.subscriber_id


def test_commands_and_their_acks(server: Server, tambur: Tambur, stream: str) -> None:
    with Socket(server) as one:
        auth = tambur.generate_auth_token(stream, one.subscriber_id)
        presence = tambur.generate_presence_token(stream, "u", one.subscriber_id)
        direct = tambur.generate_direct_token(stream, "u", one.subscriber_id)
        for handle, (expected, *command) in enumerate(
            [
                ("not_subscribed", "unsubscribe", stream),
                ("ok", "subscribe", stream),
                ("already_subscribed", "subscribe", stream),
                ("invalid_stream", "subscribe", "private"),
                ("invalid_token", "set_mode", "auth", stream, "x"),
                ("ok", "set_mode", "auth", stream, auth),
                ("mode_already_enabled", "set_mode", "auth", stream, auth),
                ("ok", "set_mode", "presence", stream, "u", presence),
                ("mode_not_enabled", "direct", stream, "v", "x"),
                ("ok", "set_mode", "direct", stream, "u", direct),
                ("ok", "direct", stream, "nobody", "x"),
                ("invalid_user_id", "direct", stream, "a:b", "x"),
                ("message_too_large", "direct", stream, "v", "x" * 65537),
                ("ok", "unset_mode", "direct", stream, "u"),
                ("mode_not_enabled", "unset_mode", "direct", stream),
                ("ok", "unset_mode", "auth", stream),
                ("ok", "unsubscribe", stream),
                ("not_subscribed", "unset_mode", "presence", stream),
            ],
            1,
        ):
            word, *rest = command
            assert one.command(word, handle, *rest) == ["ack", handle, expected], command


def test_messages_of_every_kind(server: Server, tambur: Tambur, stream: str) -> None:
    with Socket(server) as alice, Socket(server) as bob:
        for handle, one in ((1, alice), (2, bob)):
            assert one.command("subscribe", handle, stream)[2] == "ok"
        token = tambur.generate_auth_token(stream, alice.subscriber_id)
        alice.command("set_mode", 2, "auth", stream, token)
        tambur.publish(stream, "to all 🥁")
        tambur.publish(f"auth:{stream}", "to alice")
        tambur.publish(f"private:{bob.subscriber_id}", "to bob")
        assert alice.json() == ["msg", stream, "public", "to all 🥁"]
        assert alice.json() == ["msg", stream, "auth", "to alice"]
        assert bob.json() == ["msg", stream, "public", "to all 🥁"]
        assert bob.json() == ["msg", "private", "private", "to bob"]


def test_presence_and_direct_between_connections(server: Server, tambur: Tambur, stream: str) -> None:
    with Socket(server) as alice, Socket(server) as bob:
        for one, user in ((alice, "alice"), (bob, "bob")):
            one.command("subscribe", 1, stream)
            presence = tambur.generate_presence_token(stream, user, one.subscriber_id)
            direct = tambur.generate_direct_token(stream, user, one.subscriber_id)
            one.send("set_mode", 2, "presence", stream, user, presence)
            one.send("set_mode", 3, "direct", stream, user, direct)
        assert [alice.json() for _ in range(3)] == [
            ["ack", 2, "ok"],
            ["ack", 3, "ok"],
            ["msg", stream, "presence", ["bob", "up"]],
        ]
        assert [bob.json() for _ in range(3)] == [
            ["msg", stream, "presence", ["alice", "up"]],
            ["ack", 2, "ok"],
            ["ack", 3, "ok"],
        ]
        alice.send("direct", 4, stream, "bob", "hi")
        assert bob.json() == ["msg", stream, "direct", ["alice", "hi"]]
        # A reset is a lost connection like any other.
        bob.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        bob.connection.close()
        assert alice.json() == ["ack", 4, "ok"]
        assert alice.json() == ["msg", stream, "presence", ["bob", "down"]]


def test_a_text_may_come_in_fragments(server: Server, stream: str) -> None:
    with Socket(server) as one:
        one.protocol.send_text(b'["subscribe", 1,', fin=False)
        one.protocol.send_ping(b"between")
        one.protocol.send_continuation(f'"{stream}'.encode(), fin=False)
        one.protocol.send_continuation(b'"]', fin=True)
        one.flush()
        assert one.frame().opcode is Opcode.PONG
        assert one.json() == ["ack", 1, "ok"]


def test_a_frame_may_come_byte_by_byte(server: Server, stream: str) -> None:
    with Socket(server) as one:
        one.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for handle in (1, 2):
            one.protocol.send_text(f'["subscribe", {handle}, "{stream}"]'.encode())
        for byte in b"".join(one.protocol.data_to_send()):
            one.connection.sendall(bytes([byte]))
        assert one.json() == ["ack", 1, "ok"]
        assert one.json() == ["ack", 2, "already_subscribed"]


def test_many_commands_at_once_are_answered_in_their_order(server: Server, stream: str) -> None:
    with Socket(server) as one:
        for handle in range(1, 501):
            one.protocol.send_text(f'["subscribe", {handle}, "{stream}-{handle}"]'.encode())
        one.flush()
        assert [one.json() for _ in range(500)] == [["ack", handle, "ok"] for handle in range(1, 501)]


def test_an_invalid_command_is_answered_and_the_tenth_in_a_row_closes_the_connection(
    server: Server, stream: str
) -> None:
    with Socket(server) as one:
        for _ in range(9):
            one.send_text(b"x")
            assert one.json() == ["ack", 0, "not JSON"]
        assert one.command("subscribe", 1, stream) == ["ack", 1, "ok"]
        for _ in range(10):
            one.send_text(b"[]")
        assert one.close_code() == 1008


def closed_by(server: Server, frame: Frame, *, mask: bool = True) -> int:
    with Socket(server) as one:
        one.connection.sendall(frame.serialize(mask=mask))
        return one.close_code()


def test_a_breach_of_the_websocket_protocol_closes_the_connection(server: Server) -> None:
    assert closed_by(server, Frame(Opcode.BINARY, b"x")) == 1003
    assert closed_by(server, Frame(Opcode.TEXT, b"\xff")) == 1007
    assert closed_by(server, Frame(Opcode.TEXT, b"[]"), mask=False) == 1002
    assert closed_by(server, Frame(Opcode.CONT, b"[]")) == 1002
    assert closed_by(server, Frame(Opcode.TEXT, b"x" * (Limits().max_frame_bytes + 1))) == 1009


def test_fragments_are_measured_together(server: Server) -> None:
    with Socket(server) as one:
        half = b"x" * (Limits().max_frame_bytes // 2 + 1)
        one.protocol.send_text(half, fin=False)
        one.protocol.send_continuation(half, fin=True)
        one.flush()
        assert one.close_code() == 1009


def test_a_client_may_say_goodbye(server: Server) -> None:
    with Socket(server) as one:
        one.protocol.send_close(1000, "bye")
        one.flush()
        assert one.close_code() == 1000
        assert one.connection.recv(1) == b""


def test_no_compression_is_agreed_on(server: Server) -> None:
    answer = ask(server, handshake(SUBSCRIBE_PATH, "Sec-WebSocket-Extensions: permessage-deflate"))
    assert answer.status == 101
    assert "sec-websocket-extensions" not in answer.headers


REFUSED_HANDSHAKES = [
    (handshake("/other/app"), 404),
    (handshake(f"/{API_KEY}/other"), 404),
    (handshake(f"/{API_KEY}"), 404),
    (handshake(f"{SUBSCRIBE_PATH}/"), 404),
    (handshake(f"/app/{APP_ID}/stream/x"), 404),
    (handshake("/%FF/%FF"), 404),
    (handshake().replace(b"Version: 13", b"Version: 8"), 400),
    (handshake().replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
    (handshake().replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"\x80"), 400),
    (handshake(SUBSCRIBE_PATH, *(f"X-{i}: y" for i in range(200))), 431),
]


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED_HANDSHAKES)
def test_a_handshake_that_cannot_be_is_refused(server: Server, request_bytes: bytes, status: int) -> None:
    answer = ask(server, request_bytes)
    assert answer.status == status
    assert answer.headers["connection"] == "close"


def test_a_percent_encoded_path_is_the_same(server: Server) -> None:
    encoded = "".join(f"%{ord(c):02x}" for c in API_KEY)
    assert ask(server, handshake(f"/{encoded}/{APP_ID}?query")).status == 101


def test_only_allowed_origins_may_subscribe() -> None:
    app = App(API_KEY, APP_ID, (SECRET,), allowed_origins=("https://www.example.com",))
    with in_background(Config(apps=(app,), port=0)) as server:
        refused = ask(server, handshake(SUBSCRIBE_PATH, "Origin: https://evil.example"))
        assert (refused.status, refused.body) == (
            403,
            b"pages of 'https://evil.example' may not subscribe to this app\n",
        )
        two = ask(
            server,
            handshake(SUBSCRIBE_PATH, "Origin: https://www.example.com", "Origin: https://evil.example"),
        )
        assert two.status == 403
        assert ask(server, handshake(SUBSCRIBE_PATH, "Origin: https://www.example.com")).status == 101
        assert ask(server, handshake()).status == 101


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_only_a_get_is_upgraded(server: Server, method: str) -> None:
    answer = ask(server, handshake(method=method).replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"))
    assert answer.status == 405


@pytest.mark.parametrize("length", ["Content-Length: 5", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_a_request_with_a_body_may_ask_for_no_upgrade(server: Server, protocol: bytes, length: str) -> None:
    request = handshake(f"/app/{APP_ID}/stream/x", length, method="POST").replace(b"websocket", protocol)
    answer = ask(server, request + b"5\r\nhello\r\n0\r\n\r\n")
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert b"Upgrade" in answer.body


def test_another_upgrade_is_left_alone(server: Server) -> None:
    request = handshake(f"{SUBSCRIBE_PATH}?instance=1&callback=f").replace(b"websocket", b"h2c")
    answer = ask(server, request)
    assert answer.status == 200
    assert answer.body.startswith(b"/**/f(1, ")


def limited(**limits: Any) -> Config:
    return Config(apps=(APP,), port=0, limits=Limits(**limits))


def test_a_connection_that_answers_pings_stays_and_a_silent_one_goes() -> None:
    with clocked(limited(ping_interval_s=100, ping_timeout_s=350)) as running:
        with Socket(running.server) as awake, Socket(running.server) as silent:
            for _ in range(10):
                running.skip(100)
                assert awake.frame().opcode is Opcode.PING
            data = read_all(silent.connection)
            assert data.count(Frame(Opcode.PING, b"").serialize(mask=False)) == 3
            assert awake.command("subscribe", 1, "s") == ["ack", 1, "ok"]


def test_a_subscriber_that_never_reads_is_cut_off_and_nobody_waits(
    stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tambur.server.transports.websocket.CLOSE_TIMEOUT_S", 0.01)  # it answers no close
    message, count = "x" * 60_000, 160
    with in_background(limited(max_unsent_bytes=256 * 1024)) as server, publisher(server) as tambur:
        server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIN_BUFFER)  # of its connections
        with (
            Socket(server, receive_buffer=MIN_BUFFER) as lazy,
            subscriber(server, stream) as healthy,
            subscriber(server, "who") as watcher,
        ):
            watcher.enable_presence("who", "watcher", tambur.generate_presence_token)
            token = tambur.generate_presence_token("who", "lazy", lazy.subscriber_id)
            lazy.command("subscribe", 1, "who")
            lazy.send("set_mode", 2, "presence", "who", "lazy", token)
            lazy.send("subscribe", 3, stream)
            assert watcher.receive(60) == ("who", "presence", "up", "lazy")
            for number in range(count):
                tambur.publish(stream, f"{number} {message}")
                assert healthy.receive(60).text == f"{number} {message}"
            assert watcher.receive(60) == ("who", "presence", "down", "lazy")


def test_a_subscriber_that_reads_too_slowly_is_closed_with_the_reason(
    stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The close frame waits behind the messages, however long the test takes to read them.
    monkeypatch.setattr("tambur.server.transports.websocket.CLOSE_TIMEOUT_S", TIMEOUT_S)
    with in_background(limited(max_unsent_bytes=1)) as server, publisher(server) as tambur:
        server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIN_BUFFER)  # of its connections
        with Socket(server) as one:
            one.command("subscribe", 1, stream)
            # More than the kernel takes at once, so that a rest is unsent; read only afterwards.
            messages = ["x" * 65536] * 100
            for message in messages:
                tambur.publish(stream, message)
            assert one.close_code() == 4008


def test_too_many_streams_are_refused(stream: str) -> None:
    with in_background(limited(max_streams_per_subscriber=2)) as server, Socket(server) as one:
        assert one.command("subscribe", 1, f"{stream}1")[2] == "ok"
        assert one.command("subscribe", 2, f"{stream}2")[2] == "ok"
        assert one.command("subscribe", 3, f"{stream}3")[2] == "too_many_streams"
        assert one.command("unsubscribe", 4, f"{stream}1")[2] == "ok"
        assert one.command("subscribe", 5, f"{stream}3")[2] == "ok"


def test_no_message_waits_until_the_one_before_is_acknowledged(server: Server) -> None:
    assert server._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_handshake_with_a_body_is_refused(server: Server) -> None:
    for header in ("Content-Length: 5", "Transfer-Encoding: chunked"):
        assert ask(server, handshake(SUBSCRIBE_PATH, header) + b"0\r\n\r\n").status == 400


def test_a_client_that_sends_pings_and_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tambur.server.transports.websocket.CLOSE_TIMEOUT_S", 0.01)  # it answers no close
    ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True) * 500
    limits = limited(max_unsent_bytes=1, max_commands_per_s=1_000_000)
    with in_background(limits) as server:
        server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIN_BUFFER)  # of its connections
        with Socket(server, receive_buffer=MIN_BUFFER) as one:

            def ping_for_ever() -> None:
                while True:
                    one.connection.sendall(ping)

            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                ping_for_ever()


def test_empty_fragments_cost_nothing(server: Server, stream: str) -> None:
    text = f'["subscribe", 1, "{stream}"]'.encode()
    frames = [Frame(Opcode.TEXT, text[:5], fin=False)]
    frames += [Frame(Opcode.CONT, b"", fin=False)] * 1000
    frames += [Frame(Opcode.CONT, text[5:])]
    with Socket(server) as one:
        one.connection.sendall(b"".join(frame.serialize(mask=True) for frame in frames))
        assert one.json() == ["ack", 1, "ok"]


def test_more_commands_than_are_allowed_wait_for_their_turn(stream: str) -> None:
    with (
        in_background(limited(max_commands_per_s=100)) as server,
        Socket(server) as one,
        Socket(server) as other,
    ):
        started = time.monotonic()
        for handle in range(1, 121):
            one.send("unsubscribe", handle, stream)
        assert other.command("subscribe", 1, stream) == ["ack", 1, "ok"]
        assert [one.json()[1] for _ in range(120)] == list(range(1, 121))
        # A second's worth is answered at once, the other twenty in a fifth of a second.
        assert time.monotonic() - started > 0.15


def test_a_connection_may_be_closed_while_its_commands_wait(stream: str) -> None:
    with (
        clocked(limited(max_commands_per_s=0.01, ping_interval_s=1000, ping_timeout_s=2000)) as running,
        publisher(running.server) as tambur,
        Socket(running.server) as watcher,
        Socket(running.server) as one,
    ):
        for member, user in ((watcher, "watcher"), (one, "one")):
            token = tambur.generate_presence_token(stream, user, member.subscriber_id)
            member.send("subscribe", 1, stream)
            member.send("set_mode", 2, "presence", stream, user, token)
            for _ in range(2):
                running.skip(100)
        assert [watcher.json() for _ in range(3)] == [
            ["ack", 1, "ok"],
            ["ack", 2, "ok"],
            ["msg", stream, "presence", ["one", "up"]],
        ]
        one.send("unsubscribe", 3, stream)
        one.connection.close()
        running.skip(100)
        assert watcher.json() == ["msg", stream, "presence", ["one", "down"]]
