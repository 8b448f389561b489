"""The tutorial and the how-to pages: their files are written out as they stand there, and run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from operator import itemgetter
from pathlib import Path

import requests
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tambur import Tambur
from tambur.server import Config, Limits, Server, in_background

from ..support import documentation
from ..support.app import API_KEY, APP, APP_ID, SECRET, subscriber, tambur_url
from ..support.browser import page, wait, wait_for_script
from ..support.howto import environment, python, serving, write_files
from ..support.ports import free_port

TIMEOUT_S = 60


def flask(directory: Path, app: str, **variables: str) -> AbstractContextManager[str]:
    return serving(directory, "flask", "--app", app, "run", "--port", "0", **variables)


def enter(driver: Chrome, address: str, user: str) -> None:
    driver.get(address)
    driver.find_element(By.NAME, "user").send_keys(user, Keys.ENTER)
    wait(driver, lambda d: user in d.find_element(By.ID, "users").text)


def messages(driver: Chrome) -> list[str]:
    return [item.text for item in driver.find_elements(By.CSS_SELECTOR, "#messages li")]


def test_the_tutorial_ends_with_a_chat_in_two_windows(
    driver: Chrome, other_driver: Chrome, tmp_path: Path
) -> None:
    alice, bob = driver, other_driver
    write_files(tmp_path, "chat.md")
    # Users who leave the page are gone soon.
    config = Config(apps=(APP,), port=0, limits=Limits(presence_linger_s=1.0))
    with (
        in_background(config) as server,
        flask(tmp_path, "chat", TAMBUR_URL=(url := tambur_url(server))) as address,
    ):
        enter(alice, address, "Alice")
        enter(bob, address, "Bob")
        for window in (alice, bob):
            wait(window, lambda d: d.find_element(By.ID, "users").text == "Alice, Bob")
        bob.find_element(By.NAME, "text").send_keys("<b>Hello</b>", Keys.ENTER)
        for window in (alice, bob):
            wait(window, lambda d: messages(d) == ["Bob: <b>Hello</b>"])
        bob.get("about:blank")
        wait(alice, lambda d: d.find_element(By.ID, "users").text == "Alice")
        (command,) = re.findall(
            r"^\.venv/bin/tambur (publish auth:lobby .*)$", documentation.text("chat.md"), re.MULTILINE
        )
        python(tmp_path, "tambur", "publish", "auth:lobby", command.split("'")[1], TAMBUR_URL=url)
        wait(alice, lambda d: messages(d)[1:] == ["the weather: Rain at noon"])


def test_the_flask_page_and_the_tests_for_it(tmp_path: Path, server: Server, url: str) -> None:
    write_files(tmp_path, "flask.md", "testing.md")
    said = python(tmp_path, "pytest", "-p", "no:cacheprovider", "test_shop.py", "test_kitchen.py")
    assert "2 passed" in said
    with flask(tmp_path, "shop", FLASK_TAMBUR_URL=url) as address, subscriber(server, "kitchen") as kitchen:
        kitchen.enable_auth("kitchen", Tambur.from_url(url).generate_auth_token)
        assert requests.post(f"{address}/orders", data={"dish": "soup"}, timeout=TIMEOUT_S).status_code == 204
        assert kitchen.receive(TIMEOUT_S).text == "soup"


def test_code_of_2012_runs_unchanged(tmp_path: Path, server: Server) -> None:
    write_files(tmp_path, "migrating.md")
    account = {
        "API_KEY": API_KEY,
        "APP_ID": APP_ID,
        "SECRET": SECRET,
        "HOST": server.url.removeprefix("http://"),
    }
    (tmp_path / "account.py").write_text("".join(f"{name} = {value!r}\n" for name, value in account.items()))
    with subscriber(server, "news") as receiver:
        receiver.enable_auth("news", Tambur(API_KEY, APP_ID, SECRET, server.url).generate_auth_token)
        token = python(tmp_path, "published")
        assert [receiver.receive(TIMEOUT_S).text for _ in range(2)] == ["Hello", "Hello, admins"]
    assert re.fullmatch(r"[0-9a-f]{40}\n", token)
    (tmp_path / "account.py").write_text(
        "".join(f"{name} = {value!r}\n" for name, value in account.items()).replace(SECRET, "x")
    )
    assert python(tmp_path, "published").startswith("not published: ")


def test_missed_messages_are_loaded(driver: Chrome, tmp_path: Path) -> None:
    write_files(tmp_path, "missed-messages.md")
    config = Config(apps=(APP,), port=free_port())

    def shown() -> list[str]:
        return [item.text for item in driver.find_elements(By.CSS_SELECTOR, "#messages li")]

    with ExitStack() as first, ExitStack() as stack:
        server = first.enter_context(in_background(config))
        url = tambur_url(server)
        file = tmp_path / "static" / "room.html"
        html = file.read_text("utf-8").replace("http://tambur.example.com:8080", server.url)
        file.write_text(html.replace("API_KEY", API_KEY).replace("APP_ID", APP_ID), "utf-8")
        address = stack.enter_context(flask(tmp_path, "rooms", TAMBUR_URL=url))

        def send(text: str) -> None:
            answer = requests.post(f"{address}/rooms/1/messages", data={"message": text}, timeout=TIMEOUT_S)
            assert answer.status_code == 204

        send("before the page")
        driver.get(f"{address}/room.html")
        wait(driver, lambda _: shown() == ["before the page"])
        with running_worker(tmp_path, url) as said:
            assert next(said) == "loading everything from the database"
            send("live")
            assert json.loads(next(said))["message"] == "live"
            wait(driver, lambda _: (tmp_path / "position.txt").exists())
        wait(driver, lambda _: shown() == ["before the page", "live"])
        for text in ("missed", "missed, too"):
            send(text)
        with running_worker(tmp_path, url) as said:
            assert [json.loads(next(said))["message"] for _ in range(2)] == ["missed", "missed, too"]
        first.close()
        with in_background(config):
            send("after the restart")
            wait(driver, lambda _: shown()[-1] == "after the restart")
            assert shown() == ["before the page", "live", "missed", "missed, too", "after the restart"]
            with running_worker(tmp_path, url) as said:
                assert next(said) == "loading everything from the database"


@contextmanager
def running_worker(directory: Path, url: str) -> Iterator[Iterator[str]]:
    """Run ``worker.py``; yields the lines that it prints."""
    with subprocess.Popen(
        [sys.executable, "worker.py"], cwd=directory, env=environment(directory, TAMBUR_URL=url),
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield (line.rstrip("\n") for line in process.stdout)
        process.kill()


HTML = """<!doctype html><title>A page</title><script src="%s/tambur.js"></script>%s
<script>
  const said = [];
  const connection = new tambur.Connection("%s", "%s");
  for (const name of ["news", "private-news"]) {
    const stream = connection.get_stream(name);
    bind(stream, "one", (data) => said.push([name, "one", data]));
    bind(stream, "two", (data) => said.push([name, "two", data]));
  }
</script>
"""


def test_the_replacement_for_pusher(
    driver: Chrome, tmp_path: Path, server: Server, tambur: Tambur, url: str
) -> None:
    write_files(tmp_path, "from-pusher.md")
    bind = (tmp_path / "events.html").read_text("utf-8")
    with page(HTML % (server.url, bind, API_KEY, APP_ID)) as address:
        driver.get(address)
        subscriber_id = wait_for_script(
            driver, "connection.get_stream('private-news').active && connection.subscriber_id"
        )
        token = tambur.generate_auth_token("private-news", subscriber_id)
        driver.execute_script("connection.get_stream('private-news').enable_auth(arguments[0])", token)
        wait_for_script(driver, "connection.get_stream('private-news').enabled_modes.length")
        code = (
            "from events import events\n"
            "events.trigger('news', 'one', {'a': 1})\n"
            "events.trigger(['news', 'private-news'], 'two', 'x')\n"
            "events.trigger('news', 'three', None)\n"
        )
        (tmp_path / "trigger.py").write_text(code)
        python(tmp_path, "trigger", TAMBUR_URL=url)
        wait_for_script(driver, "said.length === 3")
        # Each stream has its order; between streams none is promised.
        assert sorted(driver.execute_script("return said"), key=itemgetter(0)) == [
            ["news", "one", {"a": 1}],
            ["news", "two", "x"],
            ["private-news", "two", "x"],
        ]


FASTAPI_SERVED = """
from typing import Annotated

from fastapi import Header, HTTPException

from main import app, current_user


def user_of_the_test(user: Annotated[str | None, Header()] = None) -> str:
    if user is None:
        raise HTTPException(401)
    return user


app.dependency_overrides[current_user] = user_of_the_test
"""


def test_the_fastapi_page(tmp_path: Path, server: Server, url: str) -> None:
    write_files(tmp_path, "fastapi.md")
    (tmp_path / "served.py").write_text(FASTAPI_SERVED)
    with (
        serving(tmp_path, "uvicorn", "served:app", "--port", "0", TAMBUR_URL=url) as address,
        subscriber(server, "kitchen") as kitchen,
    ):

        def ask(user: str | None = "cook", **fields: str) -> requests.Response:
            form = {"mode": "presence", "stream": "kitchen", "subscriber_id": kitchen.subscriber_id}
            headers = {} if user is None else {"user": user}
            return requests.post(
                f"{address}/tambur-token", data=form | fields, headers=headers, timeout=TIMEOUT_S
            )

        kitchen.enable_presence("kitchen", "cook", ask().text)
        kitchen.enable_direct("kitchen", "cook", ask(mode="direct").text)
        kitchen.enable_auth("kitchen", ask(mode="auth").text)
        assert requests.post(f"{address}/orders", data={"dish": "soup"}, timeout=TIMEOUT_S).status_code == 204
        assert kitchen.receive(TIMEOUT_S).text == "soup"
        assert ask(None).status_code == 401
        assert ask("guest").status_code == 403
        assert ask(mode="nonsense").status_code == 400
        assert ask(subscriber_id="x:S").status_code == 400
