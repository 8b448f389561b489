"""Positions and replay over real WebSockets: section 7 of the protocol."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tambur import Tambur
from tambur.server import Config, Limits, Server, in_background

from ..support.app import API_KEY, APP, APP_ID, SECRET
from ..support.extended import KEPT_APP, OTHER_APP, Client
from ..support.wire import Socket

POSITION = re.compile(r"[A-Za-z0-9._-]{1,64}")


@pytest.fixture(scope="module", params=["memory", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    limits = Limits(max_replay_bytes=1000, presence_linger_s=0.01)
    broker = "memory://"
    if request.param == "redis":
        broker = request.getfixturevalue("redis_server").url(database=3)
    config = Config(apps=(APP, OTHER_APP, KEPT_APP), port=0, limits=limits, broker=broker)
    with in_background(config) as running:
        yield running


def test_a_plain_connection_receives_the_same_as_before(server: Server, tambur: Tambur, stream: str) -> None:
    with Client(server) as extended, Socket(server) as plain:
        assert plain.command("subscribe", 1, stream) == ["ack", 1, "ok"]
        extended.ask("subscribe", stream)
        tambur.publish(stream, "hi")
        assert plain.text() == f'["msg","{stream}","public","hi"]'
        assert extended.json()[:4] == ["msg", stream, "public", "hi"]
        tambur.publish(f"private:{plain.subscriber_id}", "you")
        assert plain.text() == '["msg","private","private","you"]'
        assert plain.command("subscribe", 2, "x", {}) == [
            "ack", 0, 'the form must be ["subscribe", HANDLE, STREAM]'
        ]  # fmt: skip


def test_every_message_carries_a_position(server: Server, tambur: Tambur, stream: str) -> None:
    with Client(server) as client, Client(server) as other:
        auth = tambur.generate_auth_token(stream, client.subscriber_id)
        direct = tambur.generate_direct_token(stream, "alice", client.subscriber_id)
        client.ask("subscribe", stream, {"auth": auth, "direct": ["alice", direct]})
        direct = tambur.generate_direct_token(stream, "bob", other.subscriber_id)
        other.ask("subscribe", stream, {"direct": ["bob", direct]})
        tambur.publish(stream, "public")
        tambur.publish(f"auth:{stream}", "auth")
        assert [m[3] for m in (client.json(), client.json())] == ["public", "auth"]
        other.send("direct", 99, stream, "alice", "direct")
        message = client.json()
        assert message[2:4] == ["direct", ["bob", "direct"]]
        assert POSITION.fullmatch(message[4])
        tambur.publish(f"private:{client.subscriber_id}", "private")
        message = client.json()
        assert message[:4] == ["msg", "private", "private", "private"]
        assert POSITION.fullmatch(message[4])


def test_missed_messages_are_replayed_in_order_before_new_ones(
    server: Server, tambur: Tambur, stream: str
) -> None:
    with Client(server) as lost:
        subscribed = lost.ask("subscribe", stream)
        assert POSITION.fullmatch(subscribed["position"])
        assert subscribed == {
            "position": subscribed["position"], "complete": True, "replayed": 0, "present": 0
        }  # fmt: skip
        tambur.publish(stream, "received")
        received = lost.json()
    for i in range(3):
        tambur.publish(stream, f"missed {i}")
    tambur.publish(f"auth:{stream}", "not for everybody")
    with Client(server) as back:
        answer = back.ask("subscribe", stream, {"since": received[4]})
        assert answer["complete"] is True
        assert answer["replayed"] == 3
        assert back.bodies == ["missed 0", "missed 1", "missed 2"]
        assert [message[:3] for message in back.replayed] == [["msg", stream, "public"]] * 3
        tambur.publish(stream, "new")
        assert back.json()[3] == "new"
    with Client(server) as again:
        assert again.ask("subscribe", stream, {"since": answer["position"]})["complete"] is True
        assert again.bodies == ["new"]
        assert again.ask("unsubscribe", stream) == "ok"
        assert again.ask("subscribe", stream, {"since": subscribed["position"]})["replayed"] == 5
        assert again.bodies == ["received", "missed 0", "missed 1", "missed 2", "new"]


def test_auth_messages_are_replayed_to_those_that_may_see_them(
    server: Server, tambur: Tambur, stream: str
) -> None:
    with Client(server) as client:
        since = client.ask("subscribe", stream)["position"]
    tambur.publish(stream, "1")
    tambur.publish(f"auth:{stream}", "2")
    tambur.publish(stream, "3")
    with Client(server) as client:
        auth = tambur.generate_auth_token(stream, client.subscriber_id)
        assert client.ask("subscribe", stream, {"since": since, "auth": "wrong"}) == "invalid_token"
        assert client.ask("subscribe", stream, {"since": since, "auth": auth})["replayed"] == 3
        assert client.bodies == ["1", "2", "3"]
        assert client.ask("set_mode", "auth", stream, auth) == "mode_already_enabled"


def test_an_excluded_subscriber_receives_a_message_neither_live_nor_replayed(
    server: Server, tambur: Tambur, stream: str
) -> None:
    with Client(server) as one, Client(server) as other:
        since = [client.ask("subscribe", stream)["position"] for client in (one, other)]
        tambur.publish(stream, "live", exclude=one.subscriber_id)
        tambur.publish(stream, "to both")
        assert one.json()[3] == "to both"
        assert [other.json()[3] for _ in range(2)] == ["live", "to both"]
    tambur.publish(stream, "missed", exclude=one.subscriber_id)
    for secret in ("for the other", "for one"):
        exclude = one.subscriber_id if secret == "for the other" else other.subscriber_id
        tambur.publish(f"private:{one.subscriber_id}", secret, exclude=exclude)
    with Client(server, session=one.hello["session"], since=one.hello["position"]) as back:
        assert (back.hello["resumed"], back.hello["complete"]) == (True, True)
        assert back.bodies == ["for one"]
        assert back.ask("subscribe", stream, {"since": since[0]})["complete"] is True
        assert back.bodies == ["to both"]
    with Client(server) as third:
        third.ask("subscribe", stream, {"since": since[1]})
        assert third.bodies == ["live", "to both", "missed"]


@pytest.mark.parametrize("position", ["", "x", "A" * 22, "A" * 64, "\ud800", "\N{SNOWMAN}" * 22])
def test_a_position_from_elsewhere_is_not_complete_and_replays_nothing(
    server: Server, tambur: Tambur, stream: str, position: str
) -> None:
    tambur.publish(stream, "hi")
    with Client(server) as client:
        answer = client.ask("subscribe", stream, {"since": position})
        assert answer["complete"] is False
        assert answer["replayed"] == 0
        tambur.publish(stream, "live")
        assert client.json()[3] == "live"


def test_a_position_of_another_stream_or_app_is_not_complete(server: Server, stream: str) -> None:
    with Client(server) as client, Client(server, app_id="other") as other:
        position = client.ask("subscribe", f"{stream}-1")["position"]
        assert client.ask("subscribe", f"{stream}-2", {"since": position})["complete"] is False
        assert other.ask("subscribe", f"{stream}-1", {"since": position})["complete"] is False


def test_options_of_a_subscribe_are_checked(server: Server, stream: str) -> None:
    with Client(server) as client:
        wrong: list[Any] = [None, [], {"last": -1}, {"last": 1, "since": "x"}, {"presence": ["a:b", "t"]}]
        for options in wrong:
            assert client.ask("subscribe", stream, options) == "invalid_options"
        assert client.ask("subscribe", stream, {"last": 5, "more": 1})["replayed"] == 0
        assert client.ask("subscribe", stream, []) == "already_subscribed"


def test_the_newest_messages_are_replayed_where_the_configuration_allows_it(
    server: Server, stream: str
) -> None:
    room = f"room-{stream}"
    with Tambur(API_KEY, "kept", SECRET, server.url) as tambur, Client(server, app_id="kept") as client:
        for name in (room, stream):
            for i in range(5):
                tambur.publish(name, str(i))
        assert client.ask("subscribe", room, {"last": 2})["replayed"] == 2
        assert client.bodies == ["3", "4"]
        tambur.publish(room, "5")
        assert client.json()[3] == "5"
        assert client.ask("subscribe", stream, {"last": 2})["replayed"] == 0
    with Client(server, app_id="kept") as client:
        assert client.ask("subscribe", room, {"last": 1000})["replayed"] == 3
        assert client.bodies == ["3", "4", "5"]


def test_the_newest_messages_fill_max_replay_bytes_at_most(server: Server, stream: str) -> None:
    room = f"room-{stream}"
    with Tambur(API_KEY, "kept", SECRET, server.url) as tambur, Client(server, app_id="kept") as client:
        for text in ("a" * 300, "b" * 300, "c" * 300):
            tambur.publish(room, text)
        assert client.ask("subscribe", room, {"last": 3})["replayed"] == 2
        assert [body[0] for body in client.bodies] == ["b", "c"]


def test_a_trimmed_message_makes_it_incomplete(server: Server, stream: str) -> None:
    room = f"room-{stream}"
    with Tambur(API_KEY, "kept", SECRET, server.url) as tambur, Client(server, app_id="kept") as client:
        first = client.ask("subscribe", room)["position"]
        for i in range(4):
            tambur.publish(room, str(i))
        positions = [client.json()[4] for _ in range(4)]
    for since, missed in ((first, None), (positions[0], ["1", "2", "3"]), (positions[3], [])):
        with Client(server, app_id="kept") as client:
            assert client.ask("subscribe", room, {"since": since})["complete"] is (missed is not None)
            assert client.bodies == (missed or [])


def test_a_stream_that_keeps_nothing_is_incomplete_after_a_publish(server: Server) -> None:
    with Tambur(API_KEY, "kept", SECRET, server.url) as tambur, Client(server, app_id="kept") as client:
        since = client.ask("subscribe", "none")["position"]
        with Client(server, app_id="kept") as other:
            assert other.ask("subscribe", "none", {"since": since})["complete"] is True
        tambur.publish("none", "x")
        with Client(server, app_id="kept") as other:
            assert other.ask("subscribe", "none", {"since": since})["complete"] is False


def test_presence_is_enabled_in_the_same_step(server: Server, tambur: Tambur, stream: str) -> None:
    def options(client: Client, user: str) -> dict[str, Any]:
        return {"presence": [user, tambur.generate_presence_token(stream, user, client.subscriber_id)]}

    with Client(server) as alice, Client(server) as bob:
        assert alice.ask("subscribe", stream, options(alice, "alice"))["present"] == 0
        answer = bob.ask("subscribe", stream, {**options(bob, "bob"), "since": "x"})
        assert answer["present"] == 1
        assert bob.replayed == [["msg", stream, "presence", ["alice", "up"]]]
        assert alice.json() == ["msg", stream, "presence", ["bob", "up"]]
        bob.connection.close()
        assert alice.json() == ["msg", stream, "presence", ["bob", "down"]]


def test_a_replay_that_is_larger_than_what_may_be_unsent_is_read_at_any_speed(stream: str) -> None:
    limits = Limits(max_unsent_bytes=200_000)
    with in_background(Config(apps=(APP,), port=0, limits=limits)) as server, contextlib.ExitStack() as stack:
        tambur = stack.enter_context(Tambur(API_KEY, APP_ID, SECRET, server.url))
        first = stack.enter_context(Client(server))
        since = first.ask("subscribe", stream)["position"]
        first.connection.close()
        for i in range(100):
            tambur.publish(stream, f"{i} " + "x" * 20_000)
        slow = stack.enter_context(Socket(server, receive_buffer=4096))
        slow.send("hello", 1, {})
        assert slow.json()[2] == "ok"
        slow.send("subscribe", 2, stream, {"since": since})
        other = stack.enter_context(Client(server))
        other.ask("subscribe", stream)
        tambur.publish(stream, "100 ")
        assert other.json()[3] == "100 "  # while the slow one has read nothing
        received: list[Any] = []
        while (array := slow.json())[0] != "ack":
            received.append(array)
        assert array[3]["complete"] is True
        assert array[3]["replayed"] == len(received)
        while len(received) < 101:
            received.append(slow.json())
        assert [int(message[3].split()[0]) for message in received] == list(range(101))


def test_nothing_is_twice_or_left_out_where_replay_and_live_meet(
    server: Server, tambur: Tambur, stream: str
) -> None:
    """Publishes go on while clients come back again and again from the same position."""
    with Client(server) as client:
        since = client.ask("subscribe", stream)["position"]
    published = 0
    for _ in range(20):
        with Client(server) as back:
            back.send("subscribe", 50, stream, {"since": since})
            for _ in range(5):
                tambur.publish(stream, str(published))
                published += 1
            seen: list[int] = []
            while not seen or seen[-1] != published - 1:
                array = back.json()
                if array[0] == "msg":
                    seen.append(int(array[3]))
            assert seen == list(range(published))
