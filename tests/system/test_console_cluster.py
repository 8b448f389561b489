"""The console's page while nodes, users and subscribers come and go."""

from __future__ import annotations

import os
import re
import socket
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tambur import RejectedError, Tambur
from tambur.server import Server

from ..support.app import API_KEY, APP_ID, publisher, subscriber
from ..support.browser import press, wait
from ..support.console import console
from ..support.console_page import card, complaints, follow, rows, show
from ..support.redis_server import RedisServer


def node_of(server: Server) -> str:
    return f"{socket.gethostname()}:{urlsplit(server.url).port}, process {os.getpid()}"


def test_a_console_shows_all_nodes_of_the_cluster(
    driver: Chrome, redis_server: RedisServer, stream: str
) -> None:
    broker = redis_server.url(8)
    with (
        console(broker=broker) as server,
        console(broker=broker) as other,
        publisher(other) as tambur,
        subscriber(server, stream),
        subscriber(other, stream),
        subscriber(other, stream),
    ):
        follow(driver, server, stream, nodes=2)
        tambur.publish(stream, "x")
        with Tambur(API_KEY, APP_ID, "wrong", other.url) as stranger, pytest.raises(RejectedError):
            stranger.publish(stream, "x")
        written = rf"this node: 1 in [0-9.]+ ms{re.escape(node_of(other))}: 2 in [0-9.]+ ms"

        def is_complete(driver: Chrome) -> bool:
            """Each node reports when it has written, and the one that accepted it when the broker has answered."""
            found = rows(driver, "trace")
            return (
                bool(found)
                and re.fullmatch(written, found[0][4]) is not None
                and all(step in found[0][7] for step in ("check", "broker", "wait", "write"))
            )

        wait(driver, is_complete)
        ((_, *row, _),) = rows(driver, "trace")
        assert [*row[:3], *row[4:]] == ["public", "x", node_of(other), "3", "0"]
        show(driver, server.console_url)
        wait(driver, lambda d: d.find_element(By.ID, "now-nodes").text == "on 2 nodes")
        wait(driver, lambda d: card(d, "Connections").find_element(By.CLASS_NAME, "figure").text == "3")
        wait(driver, lambda d: [row[4] for row in rows(d, "nodes")] == ["1", "2"])
        assert [row[0] for row in rows(driver, "nodes")] == [f"{node_of(server)} (this one)", node_of(other)]
        show(driver, server.console_url, "refused")
        wait(
            driver, lambda d: [(row[4], row[6]) for row in rows(d, "refusals")] == [(stream, node_of(other))]
        )
        assert complaints(driver) == []


def test_rows_keep_the_focus_while_others_come_and_go(driver: Chrome, stream: str) -> None:
    name_of_focused = "return document.activeElement.ariaLabel ?? document.activeElement.textContent"
    with (
        console() as watched,
        publisher(watched) as tambur,
        subscriber(watched, stream) as one,
        subscriber(watched, stream) as two,
    ):
        two.enable_presence(stream, "bob", tambur.generate_presence_token)
        follow(driver, watched, stream)
        wait(driver, lambda d: d.find_elements(By.CSS_SELECTOR, "#users button"))
        driver.execute_script("document.querySelector('#users button').focus()")
        one.enable_presence(stream, "alice", tambur.generate_presence_token)
        wait(driver, lambda d: len(d.find_elements(By.CSS_SELECTOR, "#users li")) == 2)
        assert driver.execute_script(name_of_focused) == "Disconnect bob"
        # The user with the focus leaves.
        two.close()
        wait(driver, lambda d: len(d.find_elements(By.CSS_SELECTOR, "#users li")) == 1)
        assert driver.execute_script(name_of_focused) == "Disconnect alice"
        # The button becomes the ID that it showed.
        wait(driver, lambda d: len(rows(d, "subscribers")) == 1)
        driver.execute_script("document.querySelector('#subscribers button').focus()")
        press(driver, Keys.ENTER)
        wait(driver, lambda d: d.execute_script(name_of_focused) == one.subscriber_id)
        driver.execute_script("document.querySelector('#users button').focus()")
        one.close()
        wait(driver, lambda d: not d.find_elements(By.CSS_SELECTOR, "#users li"))
        assert driver.execute_script("return document.activeElement.id") == "users-title"
        # A link that is hidden by what it opens passes the focus to the heading.
        driver.execute_script("document.querySelector('a.back').focus()")
        press(driver, Keys.ENTER)
        wait(driver, lambda d: d.execute_script("return document.activeElement.id") == "streams-title")
