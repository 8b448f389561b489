"""The tests of both chats. Each chat's test module inherits them and says how to start the chat.

The chats have the same page. The tests of what only the page does are in test_flask_chat.py.
"""

from __future__ import annotations

import json
import re

import pytest

from tambur.errors import CommandRefusedError
from tambur.subscriber import Message
from tests.support.app import API_KEY, SECRET, publisher
from tests.support.browser import TIMEOUT_S

from .site import Site, Window


class ChatContract:
    """Inherit it beside a fixture ``site``."""

    def test_two_users_chat(self, alice: Window, bob: Window) -> None:
        alice.say("Hello, Bob")
        bob.wait_for(("alice", "everybody", "Hello, Bob"))
        bob.say("Hello, Alice")
        for window in (alice, bob):
            window.wait_for(("alice", "everybody", "Hello, Bob"), ("bob", "everybody", "Hello, Alice"))
        alice.wait_until(lambda: alice.find("[name=text]").get_property("value") == "")

    def test_the_people_in_the_room_are_shown(self, alice: Window, bob: Window) -> None:
        alice.wait_for_people("alice (you)", "bob")
        bob.wait_for_people("bob (you)", "alice")
        bob.find("header button").click()
        alice.wait_for_people("alice (you)")
        bob.wait_until(lambda: bob.driver.current_url.endswith("/login"))
        bob.enter("lobby")
        alice.wait_for_people("alice (you)", "bob")

    def test_a_direct_message_reaches_only_its_receiver(self, site: Site, alice: Window, bob: Window) -> None:
        with site.subscriber("lobby") as carol:

            def token(stream: str, user: str, subscriber_id: str) -> str:
                answer = site.token("carol", mode="direct", stream=stream, subscriber_id=subscriber_id)
                return str(answer.json()["token"])

            def auth_token(stream: str, subscriber_id: str) -> str:
                answer = site.token("carol", mode="auth", stream=stream, subscriber_id=subscriber_id)
                return str(answer.json()["token"])

            carol.enable_auth("lobby", auth_token)
            carol.enable_direct("lobby", "carol", token)
            alice.wait_for_people("alice (you)", "bob")
            alice.choose("@bob")
            alice.say("Coffee?")
            coffee = ("alice", "direct", "Coffee?")
            bob.wait_for(coffee)
            alice.wait_for(coffee)
            alice.choose("everybody")
            alice.say("Good morning")
            for window in (alice, bob):
                window.wait_for(coffee, ("alice", "everybody", "Good morning"))
            message = {"from": "alice", "to": "everybody", "text": "Good morning"}
            received = carol.receive(TIMEOUT_S)
            assert (received.kind, json.loads(received.text)) == ("auth", message)

    def test_messages_to_the_admins_reach_only_them(self, alice: Window, bob: Window) -> None:
        alice.choose("admins")
        alice.say("Bob is new")
        note = ("alice", "admins", "Bob is new")
        alice.wait_for(note)
        bob.choose("admins")
        bob.say("A visitor is rude")
        report = ("bob", "admins", "A visitor is rude")
        alice.wait_for(note, report)
        alice.choose("everybody")
        alice.say("Be kind")
        kind = ("alice", "everybody", "Be kind")
        alice.wait_for(note, report, kind)
        bob.wait_for(report, kind)

    @pytest.mark.parametrize("room", ["lobby", "staff"])
    def test_nobody_receives_a_message_without_a_token(self, site: Site, room: str) -> None:
        """The key stands in the page, so anyone can subscribe to any stream with it."""
        streams = (room, f"{room}-admins")
        with site.subscriber(*streams) as anybody, publisher(site.tambur.server) as tambur:
            for to in ("everybody", "admins"):
                assert site.say("alice", room, to, "Psst") == 204
            for stream in streams:
                tambur.publish(stream, "the end")
                assert anybody.receive(TIMEOUT_S) == Message(stream, "public", "the end")

    def test_only_admins_receive_what_is_said_in_a_room_for_admins(self, site: Site, alice: Window) -> None:
        alice.enter("staff")
        alice.say("Psst")
        alice.wait_for(("alice", "everybody", "Psst"))
        assert site.token("bob", mode="auth", stream="staff", subscriber_id="S").status_code == 403

    @pytest.mark.parametrize(
        ("name", "asked", "status"),
        [
            (None, {"mode": "presence", "stream": "lobby"}, 403),
            (None, {"mode": "auth", "stream": "lobby"}, 403),
            ("bob", {"mode": "auth", "stream": "lobby-admins"}, 403),
            ("bob", {"mode": "presence", "stream": "lobby-admins"}, 403),
            ("bob", {"mode": "direct", "stream": "lobby-admins"}, 403),
            ("bob", {"mode": "presence", "stream": "staff"}, 403),
            ("bob", {"mode": "direct", "stream": "staff"}, 403),
            ("bob", {"mode": "auth", "stream": "staff"}, 403),
            ("alice", {"mode": "presence", "stream": "cellar"}, 403),
            ("alice", {"mode": "auth", "stream": "lobby:"}, 403),
            ("alice", {"mode": "auth", "stream": "cellar-admins"}, 403),
            ("alice", {"mode": "auth", "stream": "lobby-admins-admins"}, 403),
            ("alice", {"mode": "auth", "stream": "-admins"}, 403),
            ("bob", {"mode": "other", "stream": "lobby"}, 403),
            ("bob", {"stream": "lobby"}, 403),
            ("bob", {"mode": "presence"}, 403),
            ("bob", {"mode": "presence", "stream": "lobby", "subscriber_id": "x:S"}, 400),
            ("alice", {"mode": "auth", "stream": "lobby", "subscriber_id": "vip:S"}, 400),
            ("bob", {"mode": "direct", "stream": "lobby", "subscriber_id": ""}, 400),
            ("bob", {"mode": "auth", "stream": "lobby"}, 200),
            ("bob", {"mode": "presence", "stream": "lobby"}, 200),
            ("bob", {"mode": "direct", "stream": "lobby"}, 200),
            ("alice", {"mode": "auth", "stream": "lobby-admins"}, 200),
            ("alice", {"mode": "auth", "stream": "staff"}, 200),
        ],
    )
    def test_tokens_are_for_those_who_may(
        self, site: Site, name: str | None, asked: dict[str, str], status: int
    ) -> None:
        answer = site.token(name, **{"subscriber_id": "S", **asked})
        assert answer.status_code == status
        assert (re.search("[0-9a-f]{40}", answer.text) is not None) == (status == 200)

    def test_a_message_that_cannot_be_published_is_refused(
        self, site: Site, alice: Window, bob: Window
    ) -> None:
        for window in (alice, bob):
            window.driver.get("about:blank")  # a page would complain
        site.tambur.stop()
        try:
            assert site.say("bob", "lobby", "everybody", "Where is everybody?") == 503
        finally:
            site.tambur.start()

    def test_a_refusal_does_not_contain_markup_from_the_request(self, site: Site) -> None:
        answer = site.token("bob", mode="direct", stream="lobby", subscriber_id="<b>:")
        assert "a subscriber ID must not contain" in answer.text
        assert "<b>" not in answer.text or answer.headers["Content-Type"].startswith("text/plain")

    def test_a_token_is_for_the_user_of_the_session(self, site: Site) -> None:
        with site.subscriber("lobby") as page:
            asked = {"mode": "presence", "stream": "lobby", "subscriber_id": page.subscriber_id}
            answer = site.token("bob", user="alice", user_id="alice", username="alice", **asked)
            token = answer.json()["token"]
            with pytest.raises(CommandRefusedError, match="invalid_token"):
                page.enable_presence("lobby", "alice", token)
            page.enable_presence("lobby", "bob", token)

    @pytest.mark.parametrize(
        ("name", "room", "to", "text", "status"),
        [
            (None, "lobby", "everybody", "x", 403),
            ("bob", "staff", "everybody", "x", 403),
            ("bob", "staff", "admins", "x", 403),
            ("alice", "cellar", "everybody", "x", 403),
            ("bob", "lobby", "staff", "x", 400),
            ("bob", "lobby", "everybody", "  ", 400),
            ("bob", "lobby", "everybody", "x" * 2001, 400),
            ("bob", "garden", "everybody", "x" * 2000, 204),
        ],
    )
    def test_messages_are_from_those_who_may(
        self, site: Site, name: str | None, room: str, to: str, text: str, status: int
    ) -> None:
        assert site.say(name, room, to, text) == status

    @pytest.mark.parametrize("path", ["/rooms/lobby/messages", "/tambur-token", "/login", "/logout"])
    def test_a_form_of_another_site_does_nothing(self, site: Site, path: str) -> None:
        bob = site.client("bob").session
        form = {
            "to": "everybody", "text": "x", "mode": "presence", "stream": "lobby", "subscriber_id": "S",
            "username": "carol", "password": "tambur",
        }  # fmt: skip
        for forged in ({}, {"csrf_token": "x", "csrfmiddlewaretoken": "x"}):
            assert bob.post(site.url + path, data=form | forged, timeout=TIMEOUT_S).status_code == 403
        assert "Log out bob" in site.client("bob").get("/").text

    def test_a_visitor_is_asked_to_log_in(self, site: Site) -> None:
        for path in ("/", "/rooms/lobby", "/rooms/staff"):
            assert "Log in to the chat" in site.client(None).get(path).text
        assert site.client("bob").get("/rooms/staff").status_code == 403
        assert site.client("alice").get("/rooms/staff").status_code == 200

    @pytest.mark.parametrize(
        ("name", "password"), [("bob", "Tambur"), ("bob", ""), ("", ""), ("eve", "tambur")]
    )
    def test_a_wrong_password_lets_nobody_in(self, site: Site, name: str, password: str) -> None:
        client = site.client(None)
        assert client.log_in(name, password) == 200
        assert "Log in to the chat" in client.get("/").text

    def test_no_secret_reaches_a_page(self, site: Site) -> None:
        alice = site.client("alice")
        paths = ("/login", "/rooms/lobby", "/rooms/staff", "/static/chat.js", "/rooms/cellar", "/nothing")
        answers = [alice.get(path) for path in paths]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 403, 404]
        assert API_KEY in answers[1].text
        assert not any(SECRET in answer.text for answer in answers)
        assert not any(SECRET in line for line in site.process.said)
