"""The console's live events and files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import requests

import tambur
from tambur import RejectedError, Tambur
from tambur.server import App, Server
from tambur.server.console.samples import INTERVAL_S, Sample

from ...support.app import API_KEY, APP, APP_ID, SECRET, subscriber
from ...support.console import Viewer, console
from ...support.wire import TIMEOUT_S

OTHER = App(API_KEY, "other", ("another secret",))


@pytest.fixture(scope="module")
def watched() -> Iterator[Server]:
    """A server with a console."""
    with console(apps=(APP, OTHER)) as server:
        yield server


def test_a_viewer_first_gets_what_is_kept(watched: Server) -> None:
    with contextlib.closing(Viewer(f"{watched.console_url}/events")) as viewer:
        hello = viewer.read("hello")
        assert hello["apps"] == [f"{API_KEY}/{APP_ID}", f"{API_KEY}/other"]
        assert hello["sample"] == list(Sample._fields)
        assert hello["interval_s"] == INTERVAL_S
        samples = viewer.read("samples")
        assert all(len(sample) == len(hello["sample"]) for sample in samples)
        (node,) = viewer.read("nodes")
        assert (node["node"], node["health"], node["version"]) == (hello["node"], None, tambur.__version__)


def test_a_refusal_is_shown_with_its_facts_and_no_secret(watched: Server, stream: str) -> None:
    with contextlib.closing(Viewer(f"{watched.console_url}/events")) as viewer:
        with Tambur(API_KEY, APP_ID, "wrong secret", watched.url) as stranger, pytest.raises(RejectedError):
            stranger.publish(stream, "x")
        found: list[tuple[float, str, dict[str, str]]] = []
        while not found:
            found = [each for each in viewer.read("refusals") if each[2].get("stream") == stream]
        ((at, event, facts),) = found
        assert event == "publish refused"
        reason = facts.pop("reason")
        assert facts == {"status": "401", "app": APP_ID, "stream": stream}
        assert reason.startswith("wrong signature")
    with contextlib.closing(Viewer(f"{watched.console_url}/events")) as later:
        assert at in [each[0] for each in later.read("refusals")]


def test_refused_subscribers_tokens_and_commands_are_shown(watched: Server, stream: str) -> None:
    with contextlib.closing(Viewer(f"{watched.console_url}/events")) as viewer:
        path = f"{watched.url.replace('http', 'ws')}/{API_KEY}/nobody"
        assert requests.get(path.replace("ws", "http", 1), timeout=TIMEOUT_S).status_code == 404
        with subscriber(watched, stream) as one:
            with pytest.raises(tambur.TamburError):
                one.enable_auth(stream, lambda *_: "wrong token")
            with pytest.raises(tambur.TamburError):
                one.subscribe(stream)
            subscriber_id = one.subscriber_id
        shown: list[tuple[str, dict[str, str]]] = []
        while len(shown) < 2:
            found = viewer.read("refusals")
            shown += [(event, facts) for _, event, facts in found if facts.get("stream") == stream]
        assert shown == [
            ("token refused", {"app": APP_ID, "stream": stream, "mode": "auth"}),
            (
                "command refused",
                {"command": "Subscribe", "app": APP_ID, "stream": stream, "reason": "already_subscribed"},
            ),
        ]
    assert str(subscriber_id) not in str(shown)
    assert "wrong token" not in str(shown)


def test_the_page_and_its_files_hold_nothing_of_the_server(watched: Server) -> None:
    types = {"/": "text/html", "/console.js": "text/javascript", "/console.css": "text/css"}
    types |= {f"/{name}.js": "text/javascript" for name in ("now", "page", "refused", "streams", "trace")}
    types |= {"/uplot.js": "text/javascript", "/uplot.css": "text/css"}
    for path, media_type in types.items():
        answer = requests.get(f"{watched.console_url}{path}", timeout=TIMEOUT_S)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, f"{media_type}; charset=utf-8")
        assert SECRET not in answer.text
        assert APP_ID not in answer.text
