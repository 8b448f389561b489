"""A real browser, and pages for it that load tambur.js from a server."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, TypeVar

from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from .ports import free_port

TIMEOUT_S = 120.0
POLL_S = 0.01
MAX_POLL_S = 0.16

T = TypeVar("T")


class Browser(Protocol):
    """The common interface of the drivers of all browsers."""

    def get(self, url: str) -> None: ...

    def back(self) -> None: ...

    def execute_script(self, script: str, *args: Any) -> Any: ...


B = TypeVar("B", bound=Browser)


@contextlib.contextmanager
def chromium() -> Iterator[Chrome]:
    """Debian's chromium with a new profile."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    options.accept_insecure_certs = True  # no authority signs the certificates of tests
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "disable-dev-shm-usage", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync", "window-size=1200,900",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options.add_argument(f"--user-data-dir={profile}")
        # Selenium would take any port that is free now, and may not be when chromedriver listens.
        driver = Chrome(options=options, service=Service("/usr/bin/chromedriver", port=free_port()))
        try:
            yield driver
        finally:
            driver.quit()


def wait(driver: B, condition: Callable[[B], T]) -> T:
    """Wait until a condition holds, and return its value.

    It is checked less and less often, since each check takes processor time of the browser. An element that is not there,
    or that the page has replaced since it was found, means that the condition does not hold yet.
    """
    deadline, pause_s = time.monotonic() + TIMEOUT_S, POLL_S
    while True:
        with contextlib.suppress(NoSuchElementException, StaleElementReferenceException):
            if found := condition(driver):
                return found
        if time.monotonic() > deadline:
            raise TimeoutException("the condition did not hold in time")
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, MAX_POLL_S)


def wait_for_script(driver: Browser, expression: str) -> Any:
    """Wait until an expression in the page is true, and return its value."""
    return wait(driver, lambda _: driver.execute_script(f"return {expression}"))


@contextlib.contextmanager
def phone(driver: Chrome, width: int, height: int, scale: int = 1) -> Iterator[None]:
    """Show the page as a phone does. The browser applies that some time after it has answered."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": True}
    before = driver.execute_script("return screen.width")
    # A page that does not say so is laid out for a wider window.
    is_laid_out = f"(document.documentElement.clientWidth === {width} || !document.querySelector('meta[name=viewport]'))"
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        wait_for_script(driver, f"screen.width === {width} && screen.height === {height} && {is_laid_out}")
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        wait_for_script(driver, f"screen.width === {before}")


def press(driver: Chrome, key: str) -> None:
    """Press a key, which reaches whatever has the focus at that moment."""
    ActionChains(driver).send_keys(key).perform()


@contextlib.contextmanager
def page(html: str) -> Iterator[str]:
    """Serve one page, as the web application would that uses Tambur; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = html.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass  # nobody reads it

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
