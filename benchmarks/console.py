"""The cost of the console for a publish, in instructions: the load of the machine does not change them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from starlette.types import Message, Scope

from tambur.protocol.oauth import sign_publish
from tambur.server import App, Config
from tambur.server.api.publish import PublishHandler
from tambur.server.api.routes import make_app
from tambur.server.broker.memory import MemoryBackend
from tambur.server.console.live import event
from tambur.server.console.samples import Sampler
from tambur.server.console.watch import Watch
from tambur.server.extended_hub import ExtendedHub
from tambur.server.outbox import Batch
from tambur.server.webhooks.delivery import Webhooks

from .peers import MissingError
from .report import Section

MODES = {
    "off": "no console",
    "on": "a console, no viewer",
    "viewed": "a viewer of the figures",
    "followed": "a viewer of the figures, one that follows the stream",
}
MEMBERS = (0, 100)

LOOK = 250
"""How many publishes are between two looks of a viewer, which are 250 ms apart: 1,000 a second."""

SAMPLE = 8
"""How many looks are between two samples."""

PUBLISHES = LOOK * SAMPLE

APP = App("key", "app", ("secret",))
URL = "http://127.0.0.1:8000/app/app/stream/news"
SCOPE: Scope = {
    "type": "http",
    "method": "POST",
    "path": "/app/app/stream/news",
    "raw_path": b"/app/app/stream/news",
    "query_string": b"",
    "headers": [
        (b"host", b"127.0.0.1:8000"),
        (b"content-type", b"application/x-www-form-urlencoded"),
        (b"content-length", b"300"),
    ],
}


class Sink:
    """An outbox that costs nothing itself, so that the console's share is the largest possible."""

    unsent_bytes = 0
    is_open = True
    written_at = 0.0

    def write(self, batch: Batch) -> None:
        """Drop a batch."""

    def close(self, code: int, reason: str) -> None:
        """Nothing to close."""


async def _publish(mode: str, members: int, count: int) -> None:
    """The work that is measured, for so many publishes."""
    backend = MemoryBackend(max_claims=10**7)
    hub = ExtendedHub(backend, coalesce_window_s=0.0)
    await backend.start(hub.deliver, lambda _: asyncio.sleep(0, b""))
    for number in range(members):
        await hub.subscribe(APP.key, "news", Sink(), str(number))
    counts, watch = hub.counts, Watch(hub.counts)
    sampler = Sampler(hub, Webhooks([], backend.webhooks), watch)
    handler = PublishHandler(Config(apps=(APP,)), backend.broker, counts=counts)
    answer = make_app({"stream": handler.answer}, [], (), counts)
    # The publisher's work is the same for each count.
    bodies = [_body(number) for number in range(PUBLISHES)]
    with contextlib.ExitStack() as viewers:
        trace = None
        if mode != "off":
            watch.start()
        if mode == "followed":
            trace = viewers.enter_context(watch.following(APP.key, "news"))
        changed = -1
        for number in range(1, count + 1):
            await answer(SCOPE, functools.partial(_receive, bodies[number - 1]), _send)
            if trace is not None and number % LOOK == 0:
                event("publications", [traced.as_json() for traced in trace.since(changed)])
                changed = trace.changed
            if mode != "off" and number % PUBLISHES == 0:
                sampler.take()
                if mode != "on":
                    event("samples", sampler.samples.since(sampler.samples.end - 1))


def _body(number: int) -> bytes:
    now, nonce = int(time.time()), f"{number:032}"
    message = "x" * 128
    signed = sign_publish(URL, message, api_key="key", secret=APP.secrets[0], timestamp=now, nonce=nonce)
    return signed.encode()


async def _receive(body: bytes) -> Message:
    return {"type": "http.request", "body": body, "more_body": False}


async def _send(message: Message) -> None:
    if message["type"] == "http.response.start" and message["status"] != 204:
        raise RuntimeError(f"a publish was answered with {message['status']}")


def _instructions(mode: str, members: int, count: int) -> int:
    """Count the instructions of a process that publishes so often."""
    with tempfile.TemporaryDirectory() as directory:
        counted = f"{directory}/counted"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counted}", sys.executable]
        done = subprocess.run(
            [*command, "-m", "benchmarks.console", mode, str(members), str(count)],
            env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr[-1000:])
        found = re.search(r"^(?:summary|totals): (\d+)", Path(counted).read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def console(*, quick: bool) -> Section:
    """Instructions of a publish, without a console and with one."""
    if shutil.which("valgrind") is None:
        raise MissingError("install valgrind")
    few, many, members_counts = (20, 100, MEMBERS[:1]) if quick else (20, PUBLISHES, MEMBERS)
    header = [f"to {members or 'no'} subscribers | times" for members in members_counts]
    rows = [f"| | {' | '.join(header)} |", f"| ---{' | ---: | ---:' * len(header)} |"]
    base: dict[int, float] = {}
    # A process does the same before its first publish in each mode.
    start = {members: _instructions("off", members, few) for members in members_counts}
    for mode, name in MODES.items():
        cells = [name]
        for members in members_counts:
            used = (_instructions(mode, members, many) - start[members]) / (many - few)
            share = used / base.setdefault(members, used)
            cells += [f"{used:,.0f}", f"{share:.3f}"]
        rows.append(f"| {' | '.join(cells)} |")
    text = (
        "Instructions that the server's Python takes for a publish of 128 bytes, by callgrind, without the kernel, uvicorn and the transports."
        f" A viewer looks every {LOOK} publishes, and there is a sample every {PUBLISHES}: those of a quarter of a second, and of 2 s, at 1,000 a second."
    )
    return Section("Console", text, ["\n".join(rows)])


if __name__ == "__main__":
    asyncio.run(_publish(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
