"""The console's page in a browser."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import quote

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tambur.server import Server

from .app import API_KEY, APP_ID
from .browser import wait


def complaints(driver: Chrome) -> list[Any]:
    """The messages that the browser logged since the last call, such as violations of the page's policy."""
    logged: list[Any] = cast(Any, driver).get_log("browser")
    return logged


def show(driver: Chrome, url: str | None, panel: str = "now") -> None:
    """Open a panel of a console, and wait until it is live."""
    driver.get("about:blank")
    complaints(driver)
    driver.get(f"{url}/#/{panel}")
    wait_live(driver)


def wait_live(driver: Chrome) -> None:
    wait(driver, lambda d: d.find_element(By.ID, "link").text == "Live")


def follow(driver: Chrome, server: Server, stream: str, nodes: int = 1) -> None:
    show(driver, server.console_url, f"streams/{quote(f'{API_KEY}/{APP_ID}', '')}/{quote(stream, '')}")
    text = "following" if nodes == 1 else f"following on {nodes} nodes"
    wait(driver, lambda d: d.find_element(By.ID, "stream-state").text == text)


def rows(driver: Chrome, table: str) -> list[list[str]]:
    """The texts of a table's rows. One script reads all of them, because the page may replace them."""
    script = (
        "return [...document.querySelectorAll(`#${arguments[0]} tr`)].map((row) => "
        "[...row.cells].map((cell) => cell.textContent))"
    )
    found: list[list[str]] = driver.execute_script(script, table)
    return found


def card(driver: Chrome, title: str) -> WebElement:
    return wait(
        driver, lambda d: d.find_element(By.XPATH, f"//figure[figcaption[starts-with(., '{title}')]]")
    )
