"""The chat with Flask, and the page that it has in common with the chat with Django."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver.common.by import By

from tests.support.browser import phone

from .chat import ChatContract
from .site import FLASK_COMMANDS, Site, Window, running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running("flask_chat", tmp_path_factory.mktemp("flask"), FLASK_COMMANDS, "--port", "0") as site:
        yield site


class TestFlaskChat(ChatContract):
    pass


def test_changing_the_room_loads_no_page_and_loses_nothing(alice: Window, bob: Window) -> None:
    alice.wait_for_people("alice (you)", "bob")
    alice.driver.execute_script("window.page = 'the same'")
    alice.find("[name=text]").send_keys("a draft")
    alice.choose("@bob")
    alice.follow("garden")
    alice.wait_for_people("alice (you)")
    assert alice.driver.title == "garden · Tambur chat"
    assert alice.find("[name=to]").get_property("value") == "everybody"
    bob.wait_for_people("bob (you)")
    bob.say("Is nobody here?")
    alice.wait_until(lambda: alice.link("lobby") == "lobby 1 new")
    assert alice.messages() == []
    bob.follow("garden")
    alice.wait_for_people("alice (you)", "bob")
    bob.say("There you are")
    found = ("bob", "everybody", "There you are")
    for window in (alice, bob):
        window.wait_for(found)
    alice.driver.back()
    alice.wait_for(("bob", "everybody", "Is nobody here?"))
    alice.wait_for_people("alice (you)")
    assert alice.link("lobby") == "lobby"
    assert alice.driver.current_url.endswith("/rooms/lobby")
    assert alice.find("[name=text]").get_property("value") == "a draft"
    assert alice.driver.execute_script("return window.page") == "the same"
    bob.wait_for(found)
    bob.wait_for_people("bob (you)")


def test_the_users_own_messages_look_different(alice: Window, bob: Window) -> None:
    alice.say("From me")
    for window in (alice, bob):
        window.wait_for(("alice", "everybody", "From me"))
    script = "return getComputedStyle(document.querySelector('#messages li')).backgroundColor"
    assert alice.driver.execute_script(script) != bob.driver.execute_script(script)


def test_a_direct_message_to_a_user_who_has_left_reaches_nobody(alice: Window, bob: Window) -> None:
    alice.wait_for_people("alice (you)", "bob")
    alice.choose("@bob")
    bob.enter("garden")
    alice.wait_for_people("alice (you)")
    alice.say("Still there?")
    alice.wait_until(lambda: alice.notice() == "bob is not here any more. It was not sent.")
    assert alice.messages() == []
    assert alice.find("[name=text]").get_property("value") == "Still there?"


def test_a_message_is_text(alice: Window, bob: Window) -> None:
    markup = "<img src=x onerror=alert(1)> & <b>bold</b>"
    alice.wait_for_people("alice (you)", "bob")
    alice.say(markup)
    for window in (alice, bob):
        window.wait_for(("alice", "everybody", markup))
    alice.choose("@bob")
    alice.say(markup)
    for window in (alice, bob):
        window.wait_for(("alice", "everybody", markup), ("alice", "direct", markup))
    assert bob.driver.execute_script("return document.images.length") == 0


def test_all_is_as_before_after_the_server_was_away(site: Site, alice: Window, bob: Window) -> None:
    alice.wait_for_people("alice (you)", "bob")
    site.tambur.stop()
    try:
        for window in (alice, bob):
            window.wait_for_people()
        bob.say("Where is everybody?")
        bob.wait_until(lambda: bob.notice() == "There is no connection just now. It was not sent.")
        assert site.say("bob", "lobby", "everybody", "Where is everybody?") == 503
    finally:
        site.tambur.start()
    alice.wait_for_people("alice (you)", "bob")
    bob.wait_for_people("bob (you)", "alice")
    assert bob.notice() == ""  # the one of the lost connection
    bob.find("[name=text]").clear()
    bob.say("There you are")
    alice.choose("admins")
    alice.say("It was the cable")
    there, cable = ("bob", "everybody", "There you are"), ("alice", "admins", "It was the cable")
    alice.wait_until(lambda: sorted(alice.messages()) == [cable, there])
    alice.choose("@bob")
    alice.say("Here I am")
    bob.wait_for(there, ("alice", "direct", "Here I am"))
    for window in (alice, bob):
        # The browser's own words for the attempts that failed.
        assert all("ERR_CONNECTION_REFUSED" in said for said in window.complaints())


def test_it_works_on_a_phone_and_with_a_screen_reader(alice: Window) -> None:
    with phone(alice.driver, 360, 640, scale=2):
        script = """const page = document.documentElement;
            const send = document.querySelector('#compose button').getBoundingClientRect();
            return [page.scrollWidth, page.scrollHeight, send.right <= 360, send.bottom <= 640]"""
        assert alice.driver.execute_script(script) == [360, 640, True, True]
    controls = alice.driver.find_elements(By.CSS_SELECTOR, "a, button, select, input:not([type=hidden])")
    names = [control.accessible_name for control in controls]
    assert names == ["lobby", "garden", "staff", "Log out alice", "To", "Message", "Send"]


def test_there_are_a_light_and_a_dark_page(alice: Window) -> None:
    script = "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
    brightest = {}
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        alice.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        brightest[scheme] = max(alice.driver.execute_script(script))
    alice.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert brightest["dark"] < 64
    assert brightest["light"] > 192
