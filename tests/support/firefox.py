"""Debian's Firefox, driven over WebDriver BiDi: Debian has no geckodriver, which selenium would need."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

TIMEOUT_S = 300.0
"""Its start takes minutes where many others need the same processor."""

_PREFERENCES = {
    # Nothing but what a test loads.
    "app.update.disabledForTesting": True,
    "browser.safebrowsing.downloads.remote.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.enabled": False,
    # Firefox delays the WebSocket after one that failed by up to a minute.
    "network.websocket.delay-failed-reconnects": False,
}


class FirefoxError(Exception):
    """A script threw, or Firefox refused a command."""


class Firefox:
    """One tab of a Firefox, with the few methods of selenium's drivers that tests use on every browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._command("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        self._context = self._command("browsingContext.getTree")["contexts"][0]["context"]

    def get(self, url: str) -> None:
        """Open a URL, and wait until the page is loaded."""
        self._command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def back(self) -> None:
        """Go back to the page before."""
        self._command("browsingContext.traverseHistory", context=self._context, delta=-1)

    def execute_script(self, script: str, *arguments: Any) -> Any:
        """Call a function with this body; its arguments and result are JSON."""
        body = f"(json) => JSON.stringify((function () {{ {script} \n}}).apply(null, JSON.parse(json)))"
        answer = self._command(
            "script.callFunction",
            functionDeclaration=body,
            arguments=[{"type": "string", "value": json.dumps(arguments)}],
            target={"context": self._context},
            awaitPromise=False,
        )
        if answer["type"] == "exception":
            raise FirefoxError(answer["exceptionDetails"]["text"])
        result = answer["result"]
        return json.loads(result["value"]) if result["type"] == "string" else None

    def _command(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(TIMEOUT_S))
            if answer.get("id") != number:
                continue  # an event
            if answer["type"] == "error":
                raise FirefoxError(f"{method}: {answer['error']}: {answer['message']}")
            return answer["result"]


@contextlib.contextmanager
def firefox() -> Iterator[Firefox]:
    """Run Debian's Firefox with a new profile."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        lines = [
            f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in _PREFERENCES.items()
        ]
        (Path(profile) / "user.js").write_text("\n".join(lines), "utf-8")
        command = [
            "firefox-esr",
            "--headless",
            "--no-remote",
            "--profile",
            profile,
            "--remote-debugging-port",
            "0",
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
                    break
            else:
                raise FirefoxError("".join(said))
            reader = threading.Thread(target=process.stderr.read)  # so that it can always write
            reader.start()
            try:
                # On a busy machine, Firefox may be silent for long.
                with connect(
                    f"{found[1]}/session",
                    max_size=None,
                    proxy=None,
                    open_timeout=TIMEOUT_S,
                    ping_interval=None,
                ) as connection:
                    yield Firefox(connection)
            finally:
                process.terminate()
                reader.join()
