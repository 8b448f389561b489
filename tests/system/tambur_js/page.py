"""A page that has loaded tambur.js."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from tests.support.app import API_KEY, APP_ID
from tests.support.browser import Browser, wait_for_script

VISITS = 5
"""How often a user goes back to a page: a browser may have dropped it, but not each time."""

_numbers = itertools.count()


class Page:
    """A page that has loaded tambur.js from a server.

    ``connect(NAME)`` makes a connection as ``window[NAME]`` that keeps its events in ``NAME.log``.
    """

    def __init__(self, driver: Browser) -> None:
        self.driver = driver
        self._left = ""

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, expression: str) -> Any:
        return wait_for_script(self.driver, expression)

    def thrown(self, script: str) -> str:
        """The error that a script throws."""
        text: str = self.run(
            f"try {{ {script} }} catch (error) {{ return `${{error.name}}: ${{error.message}}`; }}"
            "return 'nothing';"
        )
        return text

    def connect(self, name: str = "connection", *streams: str, **options: Any) -> str:
        """Connect, and subscribe to streams; the subscriber id."""
        self.run(
            "connect(arguments[0], arguments[1], arguments[2])",
            name,
            streams,
            {"api_key": API_KEY, "app_id": APP_ID} | options,
        )
        for stream in streams:
            self.wait(f"{name}.get_stream({stream!r}).active")
        identifier: str = self.wait(f"{name}.subscriber_id")
        return identifier

    def leave(self, url: str) -> None:
        """Open another page."""
        self._left = self.run("return location.href")
        self.driver.get(url)

    def go_back(self) -> bool:
        """Go back to the page that was left. Returns whether the browser has kept it, with its connections."""
        self.driver.back()
        self.wait(f"location.href === {self._left!r} && document.readyState === 'complete'")
        is_kept: bool = self.run("return typeof me === 'object'")
        return is_kept

    def wait_log(self, name: str, *expected: Any) -> None:
        """Wait until as much has happened as expected, and compare."""
        self.wait(f"{name}.log.length >= {len(expected)}")
        assert self.run(f"return {name}.log") == list(expected)


HTML = """<!doctype html><title>A page</title>
<script>
  const websockets = [];
  const sessions = []; // the keys that the server gave
  let change = (frame) => frame; // what the page sends
  let hear = (data) => data; // what it receives
  const keep = (data) => {
    const found = /"session":"([^"]+)"/.exec(data);
    if (found) sessions.push(found[1]);
  };
  const realFetch = window.fetch;
  window.fetch = async (url, options) => {
    const answer = await realFetch(url, options.body ? { ...options, body: change(options.body) } : options);
    const text = await answer.clone().text();
    keep(text);
    return hear(text) === text ? answer : new Response(hear(text), answer);
  };
  if (location.hash === "#poll") delete window.WebSocket;
  else window.WebSocket = class extends WebSocket {
    constructor(...args) {
      super(...args);
      websockets.push(this);
      this.addEventListener("message", ({ data }) => keep(data));
    }
    get onmessage() { return super.onmessage; }
    set onmessage(handler) { super.onmessage = handler && (({ data }) => handler({ data: hear(data) })); }
    send(frame) { super.send(change(frame)); }
  };
</script>
<script src="%s/tambur.js"></script>
<script>
  function connect(name, streams, options) {
    const connection = window[name] = new tambur.Connection(options);
    connection.log = [];
    connection.onerror = (error) => connection.log.push(["error", error.message]);
    for (const each of streams) {
      const stream = connection.get_stream(each);
      for (const event of ["onmessage", "onauth", "onpresence", "ondirect", "onenabled", "ondisabled"]) {
        stream[event] = (value) => connection.log.push([each, event, value]);
      }
    }
  }
</script>
"""


def opened(driver: Browser, address: str, transport: str) -> Iterator[Page]:
    # A change of the fragment alone would load nothing.
    driver.get(f"{address}?{next(_numbers)}" + ("#poll" if transport == "long polling" else ""))
    yield Page(driver)
    # A connection ends with its page, and not by a poll's timeout.
    driver.execute_script("for (const value of Object.values(window)) if (value?.get_stream) value.close()")
