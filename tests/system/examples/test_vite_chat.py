"""The page that Vite builds, with the chat with Flask behind it: it takes `npm ci` in examples/vite_chat."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.browser import wait
from tests.support.ports import free_port

from .site import EXAMPLES, FLASK_COMMANDS, Process, Site, running

EXAMPLE = EXAMPLES / "vite_chat"
VITE = EXAMPLE / "node_modules" / ".bin" / "vite"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running("flask_chat", tmp_path_factory.mktemp("flask"), FLASK_COMMANDS, "--port", "0") as site:
        yield site


@pytest.fixture(scope="module")
def address(site: Site) -> Iterator[str]:
    """Build the page, which checks its types, and serve it."""
    built = subprocess.run(["npm", "run", "build"], cwd=EXAMPLE, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    environment = os.environ | {"FLASK_URL": site.url, "NO_COLOR": "1"}
    port = str(free_port())
    command = [str(VITE), "preview", "--host", "127.0.0.1", "--port", port, "--strictPort"]
    process = Process(EXAMPLE, command, environment)
    yield process.wait_for_url()
    process.stop()


def shown(driver: Chrome, selector: str) -> list[tuple[str, str]]:
    script = (
        "return [...document.querySelectorAll(arguments[0])].map((one) => [one.className, one.textContent])"
    )
    return [(name, text) for name, text in driver.execute_script(script, selector)]


def test_a_user_logs_in_chats_and_stays_after_the_server_was_away(
    driver: Chrome, site: Site, address: str
) -> None:
    driver.get(address)
    wait(driver, lambda _: driver.current_url == f"{address}/login")
    wait(driver, lambda d: d.find_element(By.NAME, "username")).send_keys("alice")
    driver.find_element(By.NAME, "password").send_keys("tambur", Keys.ENTER)
    wait(driver, lambda _: shown(driver, "#people") == [("", "Here now: alice (you)")])
    with site.subscriber("lobby") as carol:
        carol.enable_presence(
            "lobby",
            "carol",
            lambda stream, user, subscriber_id: site.token(
                user, mode="presence", stream=stream, subscriber_id=subscriber_id
            ).json()["token"],
        )
        wait(driver, lambda _: shown(driver, "#people") == [("", "Here now: alice (you), carol")])
    wait(driver, lambda _: shown(driver, "#people") == [("", "Here now: alice (you)")])
    assert site.say("bob", "lobby", "everybody", "<b>Hello</b>") == 204
    driver.find_element(By.NAME, "text").send_keys("Good morning", Keys.ENTER)
    messages = [("", "bob <b>Hello</b>"), ("mine", "alice Good morning")]
    wait(driver, lambda _: shown(driver, "#messages li") == messages)
    wait(driver, lambda _: driver.find_element(By.NAME, "text").get_property("value") == "")
    site.tambur.stop()
    try:
        wait(driver, lambda _: shown(driver, "#state") == [("", "Connecting…")])
    finally:
        site.tambur.start()
    wait(driver, lambda _: shown(driver, "#state") == [("", "")])
    driver.find_element(By.NAME, "text").send_keys("Back again", Keys.ENTER)
    messages.append(("mine", "alice Back again"))
    wait(driver, lambda _: shown(driver, "#messages li") == messages)


def test_the_application_describes_a_session_only_to_its_user(site: Site) -> None:
    assert site.client(None).get("/session").status_code == 401
    described = site.client("bob").get("/session").json()
    assert described["user"] == "bob"
    assert set(described) == {"user", "csrf_token", "tambur_url", "api_key", "app_id"}
