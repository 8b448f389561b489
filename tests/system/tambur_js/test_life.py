"""Life in a browser: it goes offline, its tabs sleep, are duplicated, and are left for another page."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from tambur.server import Limits
from tests.support.app import subscriber
from tests.support.browser import TIMEOUT_S, Browser
from tests.support.firefox import Firefox

from .line import IN_CHROMIUM, LIMITS, LOST, RESUMED, STREAM, Line, joined
from .page import VISITS

NO_TIMERS = """
    // From now on, only events of the browser can wake the page.
    clearTimeout(setTimeout(() => {}));
    for (let id = setTimeout(() => {}); id > 0; id--) clearTimeout(id);
    window.setTimeout = () => 0;
"""
CLOCK = """
    // Only move(), in milliseconds, lets long times pass. Each reading of the clock counts.
    const { now } = Date;
    const [later, clear] = [setTimeout, clearTimeout];
    const alarms = new Map();
    let moved = 0;
    let last = 0;
    window.readings = 0;
    Date.now = () => { readings += 1; return now() + moved; };
    window.setTimeout = (act, ms) => {
      if (!(ms > 100_000)) return later(act, ms);
      alarms.set(--last, { act, at: now() + moved + ms });
      return last;
    };
    window.clearTimeout = (id) => alarms.delete(id) || clear(id);
    window.move = (ms) => {
      moved += ms;
      for (const [id, { act, at }] of [...alarms]) if (at <= now() + moved && alarms.delete(id)) act();
    };
"""
HEARTBEAT_S = 600
RARE_HEARTBEATS = f"""
    hear = (data) => data.replace(/("heartbeat_s": ?)[0-9.]+/, (_, name) => name + {HEARTBEAT_S});
"""
FREEZE_FOR_AN_HOUR = """
    const now = Date.now;
    document.addEventListener("freeze", () => { Date.now = () => now() + 3_600_000; });
"""


@pytest.fixture
def line(driver: Browser, transport: str) -> Iterator[Line]:
    """Users of a lost connection stay present for longer than a test takes."""
    limits = dataclasses.replace(LIMITS, presence_linger_s=300.0)
    with joined(driver, transport, limits=limits) as made:
        yield made


def set_network(line: Line, is_online: bool) -> None:
    """Take the browser offline, or online again. Firefox has no switch for it, and gets the event."""
    if isinstance(line.page.driver, Firefox):
        line.page.run(f"dispatchEvent(new Event('{'online' if is_online else 'offline'}'))")
        return
    assert isinstance(line.page.driver, Chrome)
    conditions = {"offline": not is_online, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    line.page.driver.execute_cdp_cmd("Network.enable", {})
    line.page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)


def test_a_dead_network_is_noticed_by_the_missing_heartbeat(driver: Browser, transport: str) -> None:
    limits = Limits(heartbeat_s=HEARTBEAT_S, presence_linger_s=300.0)
    with joined(driver, transport, limits=limits, before=CLOCK) as line:
        line.proxy.delay(3600)
        line.tambur.publish(STREAM, "missed")
        line.page.run("move(1.3 * 1000 * arguments[0])", HEARTBEAT_S)
        assert line.log() == []
        line.page.run("move(0.3 * 1000 * arguments[0])", HEARTBEAT_S)
        line.proxy.delay(0)
        line.wait_until_resumed()
        assert line.log() == [LOST, [STREAM, "onmessage", "missed"], RESUMED]


@IN_CHROMIUM
def test_a_quiet_connection_with_heartbeats_is_not_lost(driver: Browser, transport: str) -> None:
    """Each heartbeat keeps it for the time that the page allows for silence."""
    limits = Limits(heartbeat_s=0.3)
    with joined(driver, transport, limits=limits, before=CLOCK + RARE_HEARTBEATS) as line:
        for _ in range(4):
            readings = line.page.run("return readings")
            line.page.wait(f"readings > {readings}")
            line.page.run("move(1000 * arguments[0])", HEARTBEAT_S)
        line.tambur.publish(STREAM, "heard")
        line.page.wait("me.log.length")
        assert line.log() == [[STREAM, "onmessage", "heard"]]


def test_offline_is_noticed_immediately_and_online_connects_immediately(line: Line) -> None:
    line.enable("auth")
    line.log()
    line.page.run(NO_TIMERS)
    try:
        set_network(line, False)
        line.page.wait("me.state === 'waiting'")
        line.tambur.publish(f"auth:{STREAM}", "missed")
    finally:
        set_network(line, True)
    line.wait_until_resumed()
    assert line.log() == [LOST, [STREAM, "onauth", "missed"], RESUMED]


@IN_CHROMIUM
@pytest.mark.parametrize("event", ["pageshow", "resume"])
def test_a_page_that_wakes_connects_immediately(line: Line, event: str) -> None:
    line.page.run(NO_TIMERS)
    line.cut()
    line.proxy.refuse(False)
    target = "window" if event == "pageshow" else "document"
    line.page.run(f"{target}.dispatchEvent(new Event('{event}'))")
    line.wait_until_resumed()
    assert line.log() == [LOST, RESUMED]


@contextlib.contextmanager
def frozen(driver: Browser) -> Iterator[None]:
    """Freeze a tab, and have it wake hidden."""
    assert isinstance(driver, Chrome)
    for state in ("frozen", "active"):
        driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": state})
    assert driver.execute_script("return document.hidden") is True
    try:
        yield
    finally:
        # The tab would stay hidden.
        tab, address = driver.current_window_handle, driver.current_url
        driver.switch_to.new_window("tab")
        another = driver.current_window_handle
        driver.switch_to.window(tab)
        driver.close()
        driver.switch_to.window(another)
        driver.get(address)


@IN_CHROMIUM
def test_a_frozen_tab_checks_its_connection_when_it_wakes(line: Line) -> None:
    """Its connection may be dead without a word: the clock says that it was frozen for an hour."""
    line.page.run(FREEZE_FOR_AN_HOUR)
    with frozen(line.page.driver):
        line.wait_until_resumed()
        assert line.log() == [LOST, RESUMED]


@IN_CHROMIUM
def test_a_hidden_tab_connects_immediately_when_the_user_looks_at_it(line: Line) -> None:
    driver = line.page.driver
    with frozen(driver):
        line.page.run(NO_TIMERS)
        line.cut()
        line.log()
        line.proxy.refuse(False)
        assert isinstance(driver, Chrome)
        driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
        line.wait_until_resumed()
        assert line.log() == [RESUMED]


@IN_CHROMIUM
def test_a_page_that_was_awake_keeps_its_connection(line: Line) -> None:
    line.page.run(
        "dispatchEvent(new Event('pageshow')); document.dispatchEvent(new Event('visibilitychange'))"
    )
    line.tambur.publish(STREAM, "heard")
    line.page.wait("me.log.length")
    assert line.log() == [[STREAM, "onmessage", "heard"]]


@IN_CHROMIUM
def test_a_page_that_was_left_misses_nothing_when_the_user_goes_back(line: Line) -> None:
    for _ in range(VISITS):
        line.page.run("me.get_stream('room').onmissed = () => me.log.push('missed')")
        line.page.leave(f"{line.server.url}/tambur.js")
        line.tambur.publish(STREAM, "missed")
        line.tambur.publish(f"private:{line.id}", "for alice")
        if line.page.go_back():
            break
        line.join()  # on a page that was loaded anew
    line.wait_until_resumed()
    assert line.log() == [["private", "onmessage", "for alice"], [STREAM, "onmessage", "missed"], RESUMED]
    assert line.page.run("return me.subscriber_id") == line.id


def test_a_user_who_follows_a_link_stays_present_and_one_who_leaves_does_not(line: Line) -> None:
    with subscriber(line.server, STREAM) as bob:
        bob.enable_presence(STREAM, "bob", line.tambur.generate_presence_token)
        line.enable("presence")
        assert bob.receive(TIMEOUT_S)[1:4] == ("presence", "up", "alice")
        line.follow_link()
        line.enable("presence")
        line.page.run("me.close()")
        assert bob.receive(TIMEOUT_S)[1:4] == ("presence", "down", "alice")


@IN_CHROMIUM
def test_a_second_tab_has_a_session_of_its_own(line: Line) -> None:
    """A browser copies the address and the sessionStorage of a tab that the user duplicates."""
    line.page.run(
        """
        window.tab = document.createElement("iframe");
        tab.src = location.href;
        tab.onload = () => {
          const { api_key, app_id } = me;
          tab.contentWindow.connect("me", ["room"], { api_key, app_id, host: arguments[0] });
        };
        document.body.append(tab);
        """,
        f"127.0.0.1:{line.proxy.port}",
    )
    other = "tab.contentWindow?.eval('window.me && me.get_stream(\"room\").active && me.subscriber_id')"
    assert line.page.wait(other) != line.id
    line.cut()
    line.tambur.publish(STREAM, "missed")
    line.mend()
    missed = "me.log.some(([stream, event, text]) => text === `missed`) && me.log"
    assert [STREAM, "onmessage", "missed"] in line.page.wait(f"{other} && tab.contentWindow.eval({missed!r})")
    assert line.log() == [LOST, [STREAM, "onmessage", "missed"], RESUMED]
