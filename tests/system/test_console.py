"""The console in a real browser."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import Chrome
from selenium.webdriver.common.alert import Alert
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tambur import RejectedError, SubscriberClosedError, Tambur
from tambur.server import App, Config, Server, in_background
from tambur.subscriber import Subscriber

from ..support import documentation
from ..support.app import API_KEY, APP, APP_ID, publisher, subscriber
from ..support.browser import TIMEOUT_S, page, phone, press, wait
from ..support.console import FAST_HASH, PASSWORD, console
from ..support.console_page import card, complaints, follow, rows, show, wait_live
from ..support.ports import free_ports

OTHER = App(API_KEY, "<i>other", ("another secret",))
WIDTH = 360
PANELS = ("now", "streams", "refused")
AUTH_ROW = ["auth", "Hello, admins", "this node", "1", "0", "0"]
POST_AND_REPORT = """
const [url, mode, report] = arguments;
fetch(url, { method: "POST", mode, body: JSON.stringify({ app: "x", stream: "s", message: "from another site" }) })
  .then((answer) => report(answer.type), (error) => report(error.name));
"""


@pytest.fixture(scope="module")
def watched() -> Iterator[Server]:
    """A server with a console, and an app whose name is markup."""
    with console(apps=(APP, OTHER)) as server:
        yield server


@pytest.fixture
def tambur(watched: Server) -> Iterator[Tambur]:
    """A publisher for the watched server."""
    with publisher(watched) as made:
        yield made


def refuse(server: Server, stream: str) -> None:
    with Tambur(API_KEY, APP_ID, "wrong secret", server.url) as stranger, pytest.raises(RejectedError):
        stranger.publish(stream, "x")


def test_now_shows_figures_with_a_line_each(
    driver: Chrome, watched: Server, tambur: Tambur, stream: str
) -> None:
    show(driver, watched.console_url)
    with subscriber(watched, stream, f"{stream}-2"), subscriber(watched, stream):
        for title, figure in (("Connections", "2"), ("Subscriptions", "3")):
            wait(driver, lambda d: card(d, title).find_element(By.CLASS_NAME, "figure").text == figure)  # noqa: B023
        tambur.publish(stream, "x")
        figures = card(driver, "Broker latency").find_element(By.CLASS_NAME, "figure")
        wait(driver, lambda _: "p99" in figures.text and "–" not in figures.text)
        plot = card(driver, "Connections").find_element(By.CLASS_NAME, "plot")
        assert plot.accessible_name.startswith("Connections: 2")
        assert "in the last 10 minutes" in plot.accessible_name
        canvas = plot.find_element(By.TAG_NAME, "canvas")
        is_drawn = "return new Set(arguments[0].getContext('2d').getImageData(0, 0, 200, 90).data).size > 2"
        assert driver.execute_script(is_drawn, canvas)
    wait(driver, lambda d: card(d, "Connections").find_element(By.CLASS_NAME, "figure").text == "0")
    wait(driver, lambda d: [row[4] for row in rows(d, "nodes")] == ["0"])
    ((node, health, _, age, *_),) = rows(driver, "nodes")
    assert f":{urlsplit(watched.url).port}, process" in node
    assert health == "ok"
    assert re.fullmatch("less than a minute|[0-9]+ minutes?", age)
    assert driver.find_element(By.ID, "now-nodes").text == "on the only node"
    assert complaints(driver) == []


def test_refused_shows_each_refusal_and_filters(driver: Chrome, watched: Server, stream: str) -> None:
    markup = f"<img src=x onerror=alert(1)>{stream}"
    show(driver, watched.console_url, "refused")
    refuse(watched, markup)
    refuse(watched, stream)
    with Tambur(API_KEY, OTHER.app_id, "wrong", watched.url) as stranger, pytest.raises(RejectedError):
        stranger.publish(f"{stream}-2", "x")
    wait(driver, lambda d: len([row for row in rows(d, "refusals") if stream in row[4]]) == 3)
    other, plain, marked = rows(driver, "refusals")[:3]
    assert plain[1:5] == ["publish refused", APP_ID, "401", stream]
    assert plain[5].startswith("wrong signature; is the secret right")
    assert (other[2], marked[4]) == ("<i>other", markup)
    assert driver.find_elements(By.CSS_SELECTOR, "main img, main i") == []
    driver.find_element(By.ID, "refused-text").send_keys("ONERROR")
    assert [row[4] for row in rows(driver, "refusals")] == [markup]
    assert driver.find_element(By.ID, "refused-shown").text.startswith("1 of ")
    driver.find_element(By.ID, "refused-text").clear()
    Select(driver.find_element(By.ID, "refused-app")).select_by_value("<i>other")
    assert {row[2] for row in rows(driver, "refusals")} == {"<i>other"}
    assert complaints(driver) == []


def test_a_stream_is_found_followed_and_published_into(
    driver: Chrome, watched: Server, tambur: Tambur, stream: str
) -> None:
    name = f"{stream} <b>/?&#</b>"
    with subscriber(watched, name) as one, subscriber(watched, name), subscriber(watched, f"{stream}-2"):
        one.enable_presence(name, "<u>alice</u>", tambur.generate_presence_token)
        show(driver, watched.console_url, "streams")
        driver.find_element(By.ID, "streams-prefix").send_keys(f"{stream} ")
        wait(driver, lambda d: rows(d, "streams-rows") == [[name, "2", "1", "0"]])
        driver.find_element(By.CSS_SELECTOR, "#streams-rows a").click()
        wait(driver, lambda d: d.find_element(By.ID, "stream-state").text == "following")
        tambur.publish(name, "<s>to all</s>")
        wait(driver, lambda d: [row[2] for row in rows(d, "trace")] == ["<s>to all</s>"])
        Select(driver.find_element(By.ID, "publish-kind")).select_by_visible_text("auth")
        driver.find_element(By.ID, "publish-message").send_keys("to few", Keys.ENTER)
        wait(driver, lambda d: len(rows(d, "trace")) == 2 and "write" in rows(d, "trace")[0][7])
        few, everybody = rows(driver, "trace")
        assert few[1:7] == ["auth", "to few", "this node", "1", "0", "0"]
        assert everybody[1:7] == ["public", "<s>to all</s>", "this node", "1", "2", "0"]
        assert all(step in everybody[7] for step in ("check", "broker", "wait", "write"))
        assert one.receive(TIMEOUT_S).text == "<s>to all</s>"
        wait(driver, lambda d: d.find_element(By.ID, "publish-answer").text == "published")
        wait(driver, lambda d: d.find_element(By.CSS_SELECTOR, "#users li").text.startswith("<u>alice</u>"))
        wait(driver, lambda d: d.find_element(By.ID, "users-count").text == "1; kept messages: 2")
    assert driver.find_elements(By.CSS_SELECTOR, "main b, main s, main u") == []
    assert complaints(driver) == []


def asked(driver: Chrome) -> Alert:
    """The question that the page asks."""

    def look(_: Chrome) -> Alert | None:
        with contextlib.suppress(NoAlertPresentException):
            return driver.switch_to.alert
        return None

    found = wait(driver, look)
    assert found is not None
    return found


def wait_closed(closed: Subscriber) -> int | None:
    with pytest.raises(SubscriberClosedError) as caught:
        closed.receive(TIMEOUT_S)
    return caught.value.code


def test_a_user_and_a_subscriber_are_disconnected(
    driver: Chrome, watched: Server, tambur: Tambur, stream: str
) -> None:
    with subscriber(watched, stream) as one, subscriber(watched, stream) as two:
        one.enable_presence(stream, "alice", tambur.generate_presence_token)
        follow(driver, watched, stream)
        wait(driver, lambda d: ["Show", "no", "alice", "–", "0 B", "Disconnect"] in rows(d, "subscribers"))
        button = wait(driver, lambda d: d.find_element(By.CSS_SELECTOR, "#users button"))
        assert button.accessible_name == "Disconnect alice"
        button.click()
        asked(driver).dismiss()
        button.click()
        asked(driver).accept()
        assert wait_closed(one) == 4003
        wait(driver, lambda d: d.find_element(By.ID, "disconnect-answer").text == "1 disconnected")
        wait(driver, lambda d: d.find_elements(By.CSS_SELECTOR, "#users li") == [])
        remaining = ["Show", "no", "–", "–", "0 B", "Disconnect"]
        wait(driver, lambda d: rows(d, "subscribers") == [remaining])
        driver.find_element(By.XPATH, "//button[.='Show']").click()
        wait(driver, lambda d: rows(d, "subscribers") == [[two.subscriber_id, *remaining[1:]]])
        driver.find_element(By.CSS_SELECTOR, "#subscribers button").click()
        asked(driver).accept()
        assert wait_closed(two) == 4003


def test_an_error_of_the_server_is_shown(driver: Chrome, watched: Server, stream: str) -> None:
    follow(driver, watched, stream)
    driver.find_element(By.ID, "disconnect-id").send_keys("a:b", Keys.ENTER)
    asked(driver).accept()
    wait(driver, lambda d: "subscriber" in d.find_element(By.ID, "disconnect-answer").text)


def test_a_console_that_lost_its_server_says_so_and_comes_back(driver: Chrome, stream: str) -> None:
    first = free_ports(2)
    config = Config((APP,), port=first, console_port=first + 1)
    with in_background(config) as server:
        follow(driver, server, stream)
    wait(driver, lambda d: d.find_element(By.ID, "link").text.startswith("The server does not answer"))
    wait(driver, lambda d: d.find_element(By.ID, "stream-state").text == "not following; trying again")
    with in_background(config) as server, publisher(server) as tambur:
        wait_live(driver)
        wait(driver, lambda d: d.find_element(By.ID, "stream-state").text == "following")
        tambur.publish(stream, "again")
        wait(driver, lambda d: [row[2] for row in rows(d, "trace")] == ["again"])
        # The page has the token of the new process.
        driver.find_element(By.ID, "publish-message").send_keys("from the page", Keys.ENTER)
        wait(driver, lambda d: len(rows(d, "trace")) == 2)


def test_the_password_opens_the_console(driver: Chrome) -> None:
    with console(console_host="0.0.0.0", console_insecure=True, console_password=FAST_HASH) as server:
        port = urlsplit(server.console_url or "").port
        driver.get(f"http://any:wrong@127.0.0.1:{port}/")
        assert driver.find_elements(By.TAG_NAME, "main") == []
        driver.get(f"http://any:{quote(PASSWORD)}@127.0.0.1:{port}/")
        wait_live(driver)
        with subscriber(server, "news"):
            driver.find_element(By.LINK_TEXT, "Streams").click()
            wait(driver, lambda d: "news" in [row[0] for row in rows(d, "streams-rows")])


def test_another_site_can_neither_open_nor_change_the_console(driver: Chrome, watched: Server) -> None:
    console_url = watched.console_url
    with page("<title>Another site</title>") as other_site:
        driver.get(other_site)
        for mode in ("cors", "no-cors"):
            outcome = driver.execute_async_script(POST_AND_REPORT, f"{console_url}/publish", mode)
            assert outcome == "TypeError"
        driver.execute_script(
            "const frame = document.createElement('iframe'); frame.src = arguments[0];"
            "frame.onload = () => { window.loaded = true; }; document.body.append(frame);",
            console_url,
        )
        wait(driver, lambda d: d.execute_script("return window.loaded"))
        driver.switch_to.frame(0)
        assert driver.find_elements(By.TAG_NAME, "main") == []
        driver.switch_to.default_content()
    driver.get(f"http://rebound.localhost:{urlsplit(console_url or '').port}/")
    assert "the console answers loopback hosts only" in driver.find_element(By.TAG_NAME, "body").text
    assert driver.find_elements(By.TAG_NAME, "main") == []


def test_the_page_on_missing_messages_shows_log_and_console_side_by_side(
    driver: Chrome, caplog: pytest.LogCaptureFixture
) -> None:
    text = documentation.text("find-out-why.md")
    documented = re.findall(r"^(?:DEBUG|INFO) tambur.server: .*", text, re.MULTILINE)
    shop = App(API_KEY, "shop", ("secret",))
    with console(apps=(shop,)) as server, Tambur(API_KEY, "shop", "secret", server.url) as tambur:
        show(driver, server.console_url, "streams")
        driver.find_element(By.ID, "streams-prefix").send_keys("news")
        driver.find_element(By.XPATH, "//button[.='Open this name']").click()
        wait(driver, lambda d: d.find_element(By.ID, "stream-state").text == "following")
        with Subscriber(API_KEY, "shop", server.url) as one, caplog.at_level(logging.DEBUG, "tambur.server"):
            one.subscribe("news")
            tambur.publish("auth:news", "Hello, admins")
            tambur.publish("nwes", "Hello")
            with Tambur(API_KEY, "shop", "wrong", server.url) as stranger, pytest.raises(RejectedError):
                stranger.publish("news", "x")
        wait(driver, lambda d: [row[1:7] for row in rows(d, "trace")] == [AUTH_ROW])
        wait(driver, lambda d: d.find_element(By.ID, "refused-count").text == "1")
    host = server.url.removeprefix("http://")
    logged = [
        f"{record.levelname} {record.name}: {record.getMessage()}".replace(host, "127.0.0.1:8080")
        for record in caplog.records
        if record.getMessage().startswith("publi")
    ]
    assert logged == documented


def test_the_console_works_with_only_the_keyboard(driver: Chrome, watched: Server, stream: str) -> None:
    with subscriber(watched, stream):
        show(driver, watched.console_url)
        names = []
        for panel, wanted in (("Streams", stream), ("Refused", "Text")):
            for _ in range(40):
                press(driver, Keys.TAB)
                element = driver.switch_to.active_element
                if element.tag_name == "body":
                    continue  # after the last one
                assert driver.execute_script("return arguments[0].matches(':focus-visible')", element)
                names.append(element.accessible_name)
                if names[-1].startswith(panel):
                    press(driver, Keys.ENTER)
                    if panel == "Streams":
                        wait(driver, lambda d: stream in [row[0] for row in rows(d, "streams-rows")])
                if names[-1] == wanted:
                    break
            assert names[-1] == wanted
        assert all(names), names


def test_each_panel_fits_a_phone_and_follows_the_color_scheme(
    driver: Chrome, watched: Server, stream: str
) -> None:
    for _ in range(3):
        refuse(watched, stream + "x" * 150)
    with contextlib.ExitStack() as afterwards:
        afterwards.callback(driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"features": []})
        afterwards.enter_context(phone(driver, WIDTH, 740))
        afterwards.enter_context(subscriber(watched, stream + "x" * 150))
        for panel in PANELS:
            show(driver, watched.console_url, panel)
            table = {"now": "nodes", "streams": "streams-rows", "refused": "refusals"}[panel]
            wait(driver, lambda d: rows(d, table))  # noqa: B023
            assert driver.execute_script("return document.documentElement.scrollWidth") == WIDTH
            heading = driver.find_element(By.CSS_SELECTOR, f"#{panel} h2")
            top = driver.execute_script("return arguments[0].getBoundingClientRect().top", heading)
            header = driver.find_element(By.TAG_NAME, "header").size["height"]
            assert top >= header  # which is sticky
        follow(driver, watched, stream + "x" * 150)
        assert driver.execute_script("return document.documentElement.scrollWidth") == WIDTH
        backgrounds = set()
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            body = driver.find_element(By.TAG_NAME, "body")
            backgrounds.add(body.value_of_css_property("background-color"))
        assert len(backgrounds) == 2
