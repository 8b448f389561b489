"""A chat that runs beside a Tambur server, visitors without a browser, and windows."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import requests
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from tambur.server import Config, Limits, Server, in_background
from tambur.subscriber import Subscriber
from tests.support.app import API_KEY, APP, APP_ID, SECRET
from tests.support.browser import TIMEOUT_S, wait
from tests.support.ports import free_port

EXAMPLES = Path(__file__).parents[3] / "examples"
FLASK_COMMANDS = [".venv/bin/flask --app chat run"]


class TamburServer:
    """A server that can be stopped, and started again on its port.

    Attributes:
        url: the address that the chat and its pages know.
    """

    def __init__(self, broker: str = "memory://") -> None:
        self._stack = contextlib.ExitStack()
        self.port = free_port()
        # Users who leave the page are gone soon.
        self._config = Config(
            apps=(APP,), port=self.port, broker=broker, limits=Limits(presence_linger_s=1.0)
        )
        self.start()
        self.url = self.server.url

    def start(self) -> None:
        self.server: Server = self._stack.enter_context(in_background(self._config))

    def stop(self) -> None:
        self._stack.close()


class Process:
    """A chat that runs; what it says is kept."""

    def __init__(self, directory: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.said: list[str] = []
        self._url: queue.Queue[str] = queue.Queue()
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self.said.append(line)
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    self._url.put(found[0])
        self._url.put("")

    def wait_for_url(self) -> str:
        """Where it listens, which each framework's server says once it does."""
        url = self._url.get(timeout=TIMEOUT_S)
        assert url, "".join(self.said)
        return url

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()


class Visitor:
    """A user without a browser, logged in or not."""

    def __init__(self, url: str, name: str | None) -> None:
        self.url = url
        self.session = requests.Session()
        if name is not None:
            self.log_in(name, "tambur")

    def get(self, path: str) -> requests.Response:
        return self.session.get(self.url + path, timeout=TIMEOUT_S)

    def post(self, path: str, **fields: str) -> requests.Response:
        """Send a form with what our pages put into each against other sites."""
        field = re.search(r'<input type="hidden" name="(\w+)" value="([^"]+)"', self.get("/login").text)
        assert field is not None
        return self.session.post(
            self.url + path,
            data={field[1]: field[2], **fields},
            timeout=TIMEOUT_S,
            allow_redirects=False,
        )

    def log_in(self, name: str, password: str) -> int:
        return self.post("/login", username=name, password=password).status_code


class Site:
    """A chat that runs, its Tambur server, and those who are logged in without a browser."""

    def __init__(self, url: str, tambur: TamburServer, process: Process) -> None:
        self.url = url
        self.tambur = tambur
        self.process = process
        self._clients: dict[str | None, Visitor] = {}

    def client(self, name: str | None) -> Visitor:
        if name not in self._clients:
            self._clients[name] = Visitor(self.url, name)
        return self._clients[name]

    def token(self, name: str | None, **fields: str) -> requests.Response:
        return self.client(name).post("/tambur-token", **fields)

    def say(self, name: str | None, room: str, to: str, text: str) -> int:
        return self.client(name).post(f"/rooms/{room}/messages", to=to, text=text).status_code

    def subscriber(self, *streams: str) -> Subscriber:
        made = Subscriber(API_KEY, APP_ID, self.tambur.server.url, timeout=TIMEOUT_S)
        for stream in streams:
            made.subscribe(stream)
        return made

    def close(self) -> None:
        for client in self._clients.values():
            client.session.close()


@contextlib.contextmanager
def running(
    name: str, directory: Path, commands: Sequence[str], *arguments: str, tambur: TamburServer | None = None
) -> Iterator[Site]:
    """Run a copy of an example, since it is there to be copied.

    Parameters:
        commands: as they stand in its README; the last one starts the chat.
        arguments: of the last command, besides.
        tambur: the chat's Tambur server, which is stopped at the end; ``None`` for one of its own.
    """
    copy = directory / name
    shutil.copytree(EXAMPLES / name, copy, ignore=shutil.ignore_patterns(".venv", "*.sqlite3"))
    readme = (copy / "README.md").read_text("utf-8")
    assert all(f"\n{command}\n" in readme for command in commands)
    assert all((EXAMPLES / name / link).exists() for link in re.findall(r"\]\(([^)]+)\)", readme))
    *before, start = [
        command.replace(".venv/bin", str(Path(sys.executable).parent)).split() for command in commands
    ]
    with contextlib.ExitStack() as stack:
        tambur = tambur or TamburServer()
        stack.callback(tambur.stop)
        host = tambur.url.removeprefix("http://")
        environment = os.environ | {
            "TAMBUR_URL": f"http://{API_KEY}:{SECRET}@{host}/app/{APP_ID}",
            "PYTHONUNBUFFERED": "1",
        }
        for command in before:
            subprocess.run(command, cwd=copy, env=environment, check=True, stdout=subprocess.DEVNULL)
        process = Process(copy, [*start, *arguments], environment)
        stack.callback(process.stop)
        site = Site(process.wait_for_url(), tambur, process)
        stack.callback(site.close)
        yield site


class Window:
    """A user's browser, and what a user does with it and sees in it."""

    def __init__(self, site: Site, driver: Chrome, name: str) -> None:
        self._site = site
        self.driver = driver
        self.name = name

    def wait_until(self, condition: Callable[[], object]) -> None:
        wait(self.driver, lambda _: condition())

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def begin(self) -> None:
        """Be in the lobby, where nothing has been said, nothing is written and nobody chosen."""
        if self.driver.current_url != f"{self._site.url}/rooms/lobby" or not self.people():
            self.enter("lobby")
        self.driver.execute_script(
            "document.querySelector('#messages ol').replaceChildren(); document.querySelector('#compose').reset()"
        )

    def enter(self, room: str) -> None:
        """Open a room, and log in where that is asked for."""
        self.driver.get(f"{self._site.url}/rooms/{room}")
        if self.driver.current_url.startswith(f"{self._site.url}/login"):
            self.find("[name=username]").send_keys(self.name)
            self.find("[name=password]").send_keys("tambur", Keys.ENTER)
            self.wait_until(lambda: "/rooms/" in self.driver.current_url)
        self.wait_until(self.people)
        self.complaints()  # those of the page before

    def follow(self, room: str) -> None:
        """Click on the link to a room."""
        self.find(f"nav a[href$={room}]").click()

    def link(self, room: str) -> str:
        """The text of the link to a room."""
        return str(self.find(f"nav a[href$={room}]").get_property("textContent"))

    def people(self) -> list[str]:
        """The people who are shown as present; empty without a connection."""
        script = "return [...document.querySelectorAll('#people li')].map((one) => one.textContent)"
        names: list[str] = self.driver.execute_script(script)
        return names

    def wait_for_people(self, *names: str) -> None:
        self.wait_until(lambda: self.people() == list(names))

    def messages(self) -> list[tuple[str, str, str]]:
        """The sender, the receiver and the text."""
        script = """return [...document.querySelectorAll('#messages li')].map((one) =>
            [one.querySelector('b').textContent, one.className, one.lastChild.textContent])"""
        return [(sender, to, text) for sender, to, text in self.driver.execute_script(script)]

    def wait_for(self, *messages: tuple[str, str, str]) -> None:
        """Wait until these messages, and no others, are there."""
        try:
            self.wait_until(lambda: self.messages() == list(messages))
        except TimeoutException:
            assert self.messages() == list(messages)

    def choose(self, to: str) -> None:
        """Choose a receiver. The page makes the list anew whenever a user comes or goes."""

        def is_chosen() -> bool:
            Select(self.find("[name=to]")).select_by_value(to)
            return True

        self.wait_until(is_chosen)

    def say(self, text: str) -> None:
        """Send a message, once the page has cleared the one before, which may arrive earlier than the answer to its form."""
        self.wait_until(lambda: self.find("[name=text]").get_property("value") == "")
        self.find("[name=text]").send_keys(text, Keys.ENTER)

    def notice(self) -> str:
        return self.find("#notice").text

    def complaints(self) -> list[str]:
        """The new lines of the browser's console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]
