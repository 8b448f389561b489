"""The page of ``tambur demo`` in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from tambur import Tambur
from tambur.server import Server

from ..support.browser import page, phone, press, wait
from ..support.demo import CREDENTIALS

POST_AND_REPORT = """
const [url, type, mode, report] = arguments;
const body = JSON.stringify({ stream: "lobby", message: "from another site" });
fetch(url, { method: "POST", headers: { "Content-Type": type }, mode, body })
  .then((answer) => report(answer.type), (error) => report(error.name));
"""
WIDTH, HEIGHT = 360, 740


def lines(driver: Chrome, element: WebElement, selector: str) -> list[str]:
    """The items of a list, without their times."""
    script = """
        return [...arguments[0].querySelectorAll(arguments[1])].map((item) =>
            [...item.childNodes].filter(({ nodeName }) => nodeName !== "TIME").map((each) => each.textContent)
              .join("").trim())
    """
    # One script reads all items, because the page may replace them at any time.
    found: list[str] = driver.execute_script(script, element, f"{selector} li")
    return found


class Panel:
    """One of the two subscribers on the page."""

    def __init__(self, driver: Chrome, user: str) -> None:
        self.driver = driver
        self.element = wait(driver, lambda d: d.find_element(By.CSS_SELECTOR, f"section[aria-label={user}]"))

    def find(self, selector: str) -> WebElement:
        return self.element.find_element(By.CSS_SELECTOR, selector)

    def lines(self, selector: str) -> list[str]:
        return lines(self.driver, self.element, selector)

    def frames(self) -> list[str]:
        """The frames on the wire. A heartbeat comes where the browser takes long."""
        return [line for line in self.lines(".wire") if "heartbeat" not in line.partition(",")[0]]

    def wait_lines(self, selector: str, *expected: str) -> None:
        wait(self.driver, lambda _: len(self.lines(selector)) >= len(expected))
        assert self.lines(selector) == list(expected)

    def mode(self, name: str) -> WebElement:
        return self.element.find_element(By.XPATH, f".//label[normalize-space()='{name}']/input")

    def enable(self, name: str) -> None:
        wait(self.driver, lambda _: self.mode(name).is_enabled())
        self.mode(name).click()
        wait(self.driver, lambda _: self.mode(name).is_selected())


@pytest.fixture
def panels(driver: Chrome, demo: Server) -> Iterator[tuple[Panel, Panel]]:
    driver.get(f"{demo.url}/")
    alice, bob = Panel(driver, "Alice"), Panel(driver, "Bob")
    for panel in (alice, bob):
        wait(driver, lambda _, panel=panel: panel.mode("auth").is_enabled())  # type: ignore[misc]
    yield alice, bob
    # Users who only leave the page stay present for a while.
    driver.execute_script("for (const { connection } of panels) connection.close()")


def publish(driver: Chrome, target: str, message: str) -> None:
    """Publish with the form of the page."""
    Select(driver.find_element(By.ID, "target")).select_by_visible_text(target)
    box = driver.find_element(By.ID, "message")
    box.clear()
    box.send_keys(message, Keys.ENTER)
    wait(driver, lambda _: sent(driver)[-1:] == [f"{target} {message}"])


def sent(driver: Chrome) -> list[str]:
    """The messages that the page shows as published."""
    return lines(driver, driver.find_element(By.ID, "publish-card"), "#sent")


def test_each_kind_of_message_appears_in_the_right_panels(
    driver: Chrome, demo: Server, panels: tuple[Panel, Panel]
) -> None:
    alice, bob = panels
    alice.enable("auth")
    for panel in panels:
        panel.enable("presence")
        panel.enable("direct")
    publish(driver, "lobby", "<i>from the page</i>")
    publish(driver, "auth:lobby", "admins")
    with Tambur(CREDENTIALS.api_key, CREDENTIALS.app_id, CREDENTIALS.secret, demo.url) as tambur:
        tambur.publish("lobby", "from Python")
    # The page shows its own message as soon as it has sent it.
    wait(driver, lambda _: "lobby · message from Python" in alice.lines(".log"))
    alice.find(".direct .text").send_keys("psst", Keys.ENTER)
    bob.wait_lines(
        ".log",
        "lobby · presence Alice is up",
        "lobby · message <i>from the page</i>",
        "lobby · message from Python",
        "lobby · direct from Alice psst",
    )
    publish(driver, "private: Alice alone", "for you")
    alice.wait_lines(
        ".log",
        "lobby · presence Bob is up",
        "lobby · message <i>from the page</i>",
        "lobby · auth admins",
        "lobby · message from Python",
        "lobby · direct to Bob psst",
        "private for you",
    )
    assert sent(driver) == ["lobby <i>from the page</i>", "auth:lobby admins", "private: Alice alone for you"]
    times = driver.execute_script(
        "return [...document.querySelectorAll('.log time')].map((one) => one.textContent)"
    )
    assert len(times) == 13
    assert all(re.search(r"\d:\d\d:\d\d", time) for time in times)
    assert alice.lines(".users") == ["Alice (you)", "Bob"]
    bob.mode("presence").click()
    wait(driver, lambda _: alice.lines(".users") == ["Alice (you)"])
    wait(driver, lambda _: bob.lines(".users") == [])


def test_the_page_shows_frames_without_tokens(driver: Chrome, panels: tuple[Panel, Panel]) -> None:
    alice, _ = panels
    alice.enable("presence")
    alice.find("summary").click()
    wait(driver, lambda _: '← ["ack",3,"ok"]' in alice.frames())
    greeting, hello, session, *others = alice.frames()
    assert greeting.startswith("← id:")
    assert hello == '→ ["hello",1,{}]'
    assert json.loads(session.removeprefix("← "))[3]["session"] == "(key)"
    assert json.loads(others.pop(1).removeprefix("← "))[:3] == ["ack", 2, "ok"]
    assert others == [
        '→ ["subscribe",2,"lobby"]',
        '→ ["set_mode",3,"presence","lobby","Alice","(token)"]',
        '← ["ack",3,"ok"]',
    ]
    # A resumed connection sends what it has.
    driver.execute_script("for (const type of ['pagehide', 'pageshow']) dispatchEvent(new Event(type))")
    wait(driver, lambda _: alice.frames()[1:2] != ['→ ["hello",1,{}]'] and len(alice.frames()) >= 5)
    shown = "\n".join(alice.frames())
    assert re.fullmatch(
        r'← id:.*\n→ \["hello",\d+,\{"session":"\(key\)","since":"[^"]+"\}\]\n'
        r'← \["ack",.*"session":"\(key\)".*\n'
        r'→ \["subscribe",\d+,"lobby",\{"since":"[^"]+","presence":\["Alice","\(token\)"\]\}\]\n'
        r'← \["ack",.*',
        shown,
    )


def test_streams_and_connections_can_be_left_and_joined(driver: Chrome, panels: tuple[Panel, Panel]) -> None:
    alice, bob = panels
    bob.find(".add input").send_keys("news", Keys.ENTER)
    wait(driver, lambda _: bob.find(".leave").text == "Leave news" and bob.find(".leave").is_enabled())
    publish(driver, "news", "one")
    bob.wait_lines(".log", "news · message one")
    bob.find(".leave").click()
    bob.enable("presence")  # the answer comes after that to the unsubscribe
    bob.find(".add input").send_keys("private", Keys.ENTER)
    bob.wait_lines(".log", "news · message one", "error private messages arrive by themselves")
    alice.find(".connect").click()
    assert alice.find(".state").text == "not connected"
    alice.find(".connect").click()
    wait(driver, lambda _: alice.mode("auth").is_enabled())
    publish(driver, "lobby", "again")
    alice.wait_lines(".log", "lobby · message again")


def test_the_page_works_with_only_the_keyboard(driver: Chrome, panels: tuple[Panel, Panel]) -> None:
    _, bob = panels
    reached = []
    for _ in range(40):
        press(driver, Keys.TAB)
        element = driver.switch_to.active_element
        reached.append(element)
        if element == bob.mode("presence"):
            break
    assert driver.execute_script("return arguments[0].matches(':focus-visible')", reached[-1])
    press(driver, Keys.SPACE)
    wait(driver, lambda _: bob.mode("presence").is_selected())
    names = [element.accessible_name for element in reached]
    assert all(names), names
    assert {"Message", "Publish", "Alice: Another stream", "Disconnect"} <= set(names)


def test_the_page_fits_a_phone(driver: Chrome, panels: tuple[Panel, Panel]) -> None:
    with phone(driver, WIDTH, HEIGHT):
        assert driver.execute_script("return document.documentElement.scrollWidth") == WIDTH
        left, right = (panel.element.rect for panel in panels)
        assert left["x"] == right["x"]
        script = """
            const [form, ...logs] = document.querySelectorAll("#publish, #subscribers .log");
            const { top, bottom } = form.getBoundingClientRect();
            return [top, bottom, ...logs.map((log) => log.getBoundingClientRect().bottom)];
        """
        # A user who publishes sees what a subscriber receives.
        top, bottom, alice, _ = driver.execute_script(script)
        assert 0 <= top < bottom < alice < HEIGHT + 1
        driver.execute_script(
            "document.querySelectorAll('#subscribers .log')[1].scrollIntoView({ block: 'end' })"
        )
        top, bottom, _, bob = driver.execute_script(script)
        assert 0 <= top < bottom < bob < HEIGHT + 1


def test_the_python_on_the_page_publishes_the_same(
    driver: Chrome, demo: Server, panels: tuple[Panel, Panel], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = driver.find_element(By.ID, "message")
    box.clear()
    box.send_keys('It\'s "quoted" \\ é')
    code = driver.find_element(By.ID, "python").text
    monkeypatch.setenv("TAMBUR_URL", f"http://{CREDENTIALS.api_key}:hunter2@{demo.url[7:]}/app/demo")
    exec(code, {})  # noqa: S102 - the test runs it on purpose
    panels[0].wait_lines(".log", 'lobby · message It\'s "quoted" \\ é')


def test_the_page_of_another_site_cannot_publish(
    driver: Chrome, demo: Server, panels: tuple[Panel, Panel]
) -> None:
    with page("<title>Another site</title>") as other_site:
        alice, _ = panels
        demo_window = driver.current_window_handle
        driver.switch_to.new_window("tab")
        try:
            driver.get(other_site)
            for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
                for mode in ("cors", "no-cors"):
                    outcome = driver.execute_async_script(
                        POST_AND_REPORT, f"{demo.url}/demo/publish", content_type, mode
                    )
                    # A page cannot read the refusal that "no-cors" gets.
                    assert outcome == ("opaque" if mode == "no-cors" else "TypeError")
        finally:
            driver.close()
            driver.switch_to.window(demo_window)
        publish(driver, "lobby", "nothing before it")
        alice.wait_lines(".log", "lobby · message nothing before it")


def test_a_rebound_host_name_does_not_get_the_page(driver: Chrome, demo: Server) -> None:
    # Browsers take every name under .localhost for this machine, as they take a rebound name.
    driver.get(f"http://rebound.localhost:{demo.url.rpartition(':')[2]}/")
    assert "the demo answers loopback hosts only" in driver.find_element(By.TAG_NAME, "body").text
    assert driver.find_elements(By.TAG_NAME, "section") == []
