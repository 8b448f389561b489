"""A page with the Content-Security-Policy of the documentation."""

from __future__ import annotations

import re

from tambur import Tambur
from tambur.server import Server
from tests.support.app import API_KEY, APP_ID
from tests.support.browser import Browser, page, wait_for_script
from tests.support.documentation import text

PAGE = """<!doctype html><title>A page</title>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<script src="{url}/tambur.js"></script>
"""


def test_the_documented_policy_is_enough(
    driver: Browser, server: Server, tambur: Tambur, stream: str, transport: str
) -> None:
    found = re.search(r"Content-Security-Policy:\n(.*?)\n```", text("content-security-policy.md"), re.DOTALL)
    assert found
    host = server.url.removeprefix("http://")
    policy = found[1].replace("https://tambur.example.com", server.url)
    policy = policy.replace("wss://tambur.example.com", f"ws://{host}")
    assert "example" not in policy
    with page(PAGE.format(policy=policy, url=server.url)) as address:
        driver.get(address)
        driver.execute_script(
            """
            const [transport, api_key, app_id, stream] = arguments;
            window.log = [];
            document.addEventListener("securitypolicyviolation", (event) => log.push(event.blockedURI));
            if (transport === "long polling") delete window.WebSocket;
            window.me = new tambur.Connection({ api_key, app_id });
            me.get_stream(stream).onmessage = (text) => log.push(text);
            """,
            transport,
            API_KEY,
            APP_ID,
            stream,
        )
        wait_for_script(driver, f"me.get_stream({stream!r}).active")
        tambur.publish(stream, "Hello")
        wait_for_script(driver, "log.length")
        assert driver.execute_script("return log") == ["Hello"]
        # A refusal is explained, too.
        driver.execute_script(
            """
            window.other = new tambur.Connection({ api_key: "none", app_id: "none" });
            other.onerror = (error) => log.push(error.code);
            """
        )
        wait_for_script(driver, "log.length === 2")
        assert driver.execute_script("me.close(); return log[1]") == "unknown_app"
