"""Behind a real nginx with the configuration of docs/how-to/nginx.md, and with one that lets no WebSocket pass."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from selenium.webdriver import Chrome

from tambur import RejectedError, SubscriberClosedError, Tambur
from tambur.server import Config, Server, in_background
from tambur.subscriber import Subscriber
from tests.support.app import API_KEY, APP, APP_ID, SECRET
from tests.support.browser import page, wait_for_script

from ..support import documentation
from ..support.certificate import Certificate
from ..support.nginx import nginx
from ..support.ports import free_port
from ..support.wire import TIMEOUT_S, connect

UPGRADE_LINES = re.compile(r"^ +proxy_set_header (Upgrade|Connection) .*\n", re.MULTILINE)


class Proxied:
    """A server that clients reach only through nginx.

    Attributes:
        url: where nginx listens.
        authority: the file with the authority of its certificate.
        error_log: the file that nginx logs errors of this site to.
    """

    def __init__(self, server: Server, port: int, authority: str, error_log: Path) -> None:
        self.server = server
        self.error_log = error_log
        self.url = f"https://127.0.0.1:{port}"
        self.authority = authority


@contextlib.contextmanager
def proxied(directory: Path, *, lets_websockets_pass: bool = True) -> Iterator[Proxied]:
    files = Certificate(directory)
    port = free_port()
    written = re.search(r"```nginx\n(.*?)```", documentation.text("nginx.md"), re.DOTALL)
    assert written is not None
    site = written[1]
    error_log = directory / "error.log"
    if not lets_websockets_pass:
        site, count = UPGRADE_LINES.subn("", site)
        assert count == 2
    # Nobody else listens there after the server has stopped.
    config = Config(apps=(APP,), port=free_port(), public_hosts=(f"127.0.0.1:{port}",))
    with in_background(config) as server:
        for before, after in (
            ("127.0.0.1:8080", server.url.removeprefix("http://")),
            ("/var/log/nginx/error.log", str(error_log)),
            ("listen 443", f"listen 127.0.0.1:{port}"),
            ("/etc/letsencrypt/live/tambur.example.com/fullchain.pem", files.cert),
            ("/etc/letsencrypt/live/tambur.example.com/privkey.pem", files.key),
        ):
            assert site.count(before) == 1
            site = site.replace(before, after)
        with nginx(directory, site):
            yield Proxied(server, port, files.authority, error_log)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with proxied(tmp_path_factory.mktemp("nginx")) as made:
        yield made


@pytest.fixture(autouse=True)
def trusted(proxy: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", proxy.authority)
    monkeypatch.setenv("SSL_CERT_FILE", proxy.authority)


@pytest.mark.parametrize("name", ["news", "a/b", "a b%2F?", "ä:€"])
def test_messages_published_through_the_proxy_arrive_through_it(proxy: Proxied, name: str) -> None:
    with Tambur(API_KEY, APP_ID, SECRET, proxy.url) as tambur:
        with Subscriber(API_KEY, APP_ID, proxy.url, timeout=TIMEOUT_S) as receiver:
            receiver.subscribe(name)
            tambur.publish(name, "through nginx")
            assert receiver.receive(TIMEOUT_S).text == "through nginx"


def test_the_balancer_names_the_public_host(proxy: Proxied) -> None:
    answer = requests.get(f"{proxy.url}/{API_KEY}/{APP_ID}?instance=1&callback=f", timeout=TIMEOUT_S)
    assert answer.text == f'/**/f(1, "{proxy.url.removeprefix("https://")}/{API_KEY}/{APP_ID}")'


def test_another_host_is_refused(proxy: Proxied) -> None:
    with Tambur(API_KEY, APP_ID, SECRET, proxy.server.url) as tambur:
        with pytest.raises(RejectedError, match="not among this server's public_hosts") as caught:
            tambur.publish("news", "past nginx")
    assert caught.value.status == 421
    with pytest.raises(SubscriberClosedError, match="421"):
        Subscriber(API_KEY, APP_ID, proxy.server.url)


def stop(server: Server) -> None:
    """Stop a server, and return once it listens no more: it closes its listener before its connections."""
    with connect(server) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        assert connection.recv(1) == b"H"
        server.stop()
        while connection.recv(1000):
            pass


def test_the_url_of_a_poll_that_fails_is_in_no_log(tmp_path: Path) -> None:
    with proxied(tmp_path) as proxy:
        path, query = f"/comet/{API_KEY}/{APP_ID}", "instance=1&callback=f"
        greeting = requests.get(f"{proxy.url}{path}?{query}", timeout=TIMEOUT_S, verify=proxy.authority).text
        subscriber_id = greeting.partition("id:")[2][:36]
        stop(proxy.server)
        answer = requests.get(
            f"{proxy.url}{path}/{subscriber_id}?{query}", timeout=TIMEOUT_S, verify=proxy.authority
        )
        assert answer.status_code == 502
    logged = {file.name: file.read_text("utf-8") for file in tmp_path.rglob("*.log")}
    assert "error.log" in logged
    assert subscriber_id not in "".join(logged.values())


HTML = """<!doctype html><title>A page</title><script src="%s/tambur.js"></script>
<script>
  const texts = [];
  const connection = new tambur.Connection("%s", "%s");
  connection.onerror = (error) => console.log(error.message);
  connection.get_stream("page").onmessage = (text) => texts.push(text);
  const polls = () => performance.getEntriesByType("resource").some((entry) => entry.name.includes("/comet/"));
</script>
"""


@pytest.mark.parametrize("lets_websockets_pass", [True, False])
def test_a_page_connects_with_any_transport_that_works(
    driver: Chrome, tmp_path: Path, *, lets_websockets_pass: bool
) -> None:
    with (
        proxied(tmp_path, lets_websockets_pass=lets_websockets_pass) as proxy,
        page(HTML % (proxy.url, API_KEY, APP_ID)) as address,
        Tambur(API_KEY, APP_ID, SECRET, proxy.url, session=trusting(proxy)) as tambur,
    ):
        driver.get(address)
        wait_for_script(driver, "connection.get_stream('page').active")
        assert driver.execute_script("return polls()") is not lets_websockets_pass
        for text in ("one", "two", "three"):
            tambur.publish("page", text)
        wait_for_script(driver, "texts.length === 3")
        assert driver.execute_script("return texts") == ["one", "two", "three"]
        driver.execute_script("connection.close()")


def trusting(proxy: Proxied) -> requests.Session:
    session = requests.Session()
    session.verify = proxy.authority
    return session
