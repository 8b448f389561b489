"""The console's requests about streams."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tambur.server import App, Limits, Server
from tambur.server.console.access import TOKEN_HEADER
from tambur.server.console.watch import MAX_TRACES

from ...support.app import API_KEY, APP, APP_ID, publisher, subscriber
from ...support.console import Viewer, console
from ...support.extended_polling import ExtendedPoller
from ...support.wire import TIMEOUT_S

OTHER = App(API_KEY, "other", ("another secret",))
APP_NAME = f"{API_KEY}/{APP_ID}"


@pytest.fixture(scope="module")
def watched() -> Iterator[Server]:
    """A server with a console."""
    with console(apps=(APP, OTHER), limits=Limits(max_message_bytes=1000)) as server:
        yield server


def get(server: Server, path: str, **parameters: str) -> requests.Response:
    return requests.get(f"{server.console_url}{path}", parameters, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def token(watched: Server) -> str:
    """The token that the page sends with its changes."""
    with contextlib.closing(Viewer(f"{watched.console_url}/events")) as viewer:
        return str(viewer.read("hello")["token"])


def post(server: Server, token: str, path: str, body: Any) -> requests.Response:
    assert server.console_url is not None
    headers = {"Origin": server.console_url, TOKEN_HEADER: token}
    url = f"{server.console_url}{path}"
    if isinstance(body, bytes):
        return requests.post(url, body, headers=headers, timeout=TIMEOUT_S)
    return requests.post(url, json=body, headers=headers, timeout=TIMEOUT_S)


@contextlib.contextmanager
def following(server: Server, stream: str) -> Iterator[Viewer]:
    url = f"{server.console_url}/follow?app={APP_NAME}&stream={stream}"
    with contextlib.closing(Viewer(url)) as viewer:
        assert viewer.read("publications") == []
        yield viewer


def test_streams_are_found_by_their_prefix(watched: Server, stream: str) -> None:
    with publisher(watched) as tambur, subscriber(watched, f"{stream}-1", f"{stream}-2") as one:
        one.enable_presence(f"{stream}-2", "alice", tambur.generate_presence_token)
        tambur.publish(f"{stream}-1", "x")
        assert get(watched, "/streams", app=APP_NAME, prefix=stream).json() == {
            "streams": [
                {"stream": f"{stream}-1", "subscribers": 1, "users": 0, "kept": 1},
                {"stream": f"{stream}-2", "subscribers": 1, "users": 1, "kept": 0},
            ],
            "more": False,
        }
        other = get(watched, "/streams", app=f"{API_KEY}/other", prefix=stream)
        assert other.json() == {"streams": [], "more": False}
        shown = get(watched, "/stream", app=APP_NAME, stream=f"{stream}-2").json()
        assert re.fullmatch("[0-9a-f]{16}", shown["subscribers"][0].pop("handle"))
        assert shown == {
            "users": ["alice"],
            "more_users": False,
            "kept": 0,
            "more_kept": False,
            "subscribers": [
                {
                    "auth": False,
                    "presence": "alice",
                    "direct": None,
                    "waiting_bytes": 0,
                }
            ],
            "more_subscribers": False,
        }


def test_a_subscriber_id_is_hidden_until_a_viewer_asks_for_it(
    watched: Server, token: str, stream: str
) -> None:
    with subscriber(watched, stream) as one, subscriber(watched, stream) as two:
        shown = get(watched, "/stream", app=APP_NAME, stream=stream)
        assert str(one.subscriber_id) not in shown.text
        handles = [found["handle"] for found in shown.json()["subscribers"]]
        asked = [
            post(watched, token, "/subscriber", {"app": APP_NAME, "stream": stream, "handle": handle}).json()
            for handle in handles
        ]
        assert [found["subscriber_id"] for found in asked] == [one.subscriber_id, two.subscriber_id]
        other = {"app": APP_NAME, "stream": f"{stream}-2", "handle": handles[0]}
        assert post(watched, token, "/subscriber", other).status_code == 404
        assert get(watched, "/subscriber", app=APP_NAME, stream=stream, handle=handles[0]).status_code == 405


@pytest.mark.parametrize(
    ("path", "parameters", "status", "said"),
    [
        ("/streams", {"app": "nobody"}, 404, "app must be API_KEY/APP_ID of an app of this server"),
        ("/streams", {}, 404, "app must be"),
        ("/streams", {"app": APP_NAME, "prefix": "a\nb"}, 400, "a prefix must not"),
        ("/stream", {"app": APP_NAME}, 400, "must not be empty"),
        ("/stream", {"app": APP_NAME, "stream": "a\nb"}, 400, "stream"),
        ("/follow", {"app": APP_NAME, "stream": "x" * 1000}, 400, "stream"),
    ],
)
def test_a_wrong_parameter_is_refused(
    watched: Server, path: str, parameters: dict[str, str], status: int, said: str
) -> None:
    answer = get(watched, path, **parameters)
    assert answer.status_code == status
    assert said in answer.text


def test_a_followed_stream_shows_each_publication_and_its_way(watched: Server, stream: str) -> None:
    with (
        publisher(watched) as tambur,
        subscriber(watched, stream) as one,
        subscriber(watched, stream),
        following(watched, stream) as viewer,
    ):
        tambur.publish(stream, "<b>to all</b>")
        tambur.publish(f"auth:{stream}", "to few")
        tambur.publish(stream, "to one", exclude=one.subscriber_id)
        tambur.publish_many([(stream, "in a batch")])
        tambur.publish(f"{stream}-2", "to another stream")
        found: dict[int, dict[str, Any]] = {}
        while len(found) < 4 or any(p["write_ms"] is None or not p["claimed"] for p in found.values()):
            found |= {p["id"]: p for p in viewer.read("publications")}
        shown = [(p["kind"], p["text"], p["nodes"], p["subscribers"], p["excluding"]) for p in found.values()]
        assert shown[:3] == [
            ("public", "<b>to all</b>", 1, 2, False),
            ("auth", "to few", 1, 0, False),
            ("public", "to one", 1, 1, True),
        ]
        assert shown[3][1] == "in a batch"
        assert all(p["check_ms"] > 0 and p["broker_ms"] > 0 for p in list(found.values())[:3])
    assert watched._hub.counts.observer is not None


def test_a_subscriber_that_is_cut_off_is_shown_at_the_message(stream: str) -> None:
    with console(limits=Limits(max_unsent_bytes=1000)) as server, publisher(server) as tambur:
        poller = ExtendedPoller(server)
        poller.ask("subscribe", stream)
        token = tambur.generate_direct_token(stream, "bob", poller.subscriber_id)
        poller.ask("set_mode", "direct", stream, "bob", token)
        with following(server, stream) as viewer:
            tambur.publish(stream, "x" * 2000)
            found = viewer.read("publications")[0]
            while found["write_ms"] is None:
                found = viewer.read("publications")[0]
        assert (found["subscribers"], found["cut_off"], found["cut_off_users"]) == (1, 1, ["bob"])


def test_only_so_many_streams_are_followed_at_once(watched: Server, stream: str) -> None:
    with contextlib.ExitStack() as viewers:
        for number in range(MAX_TRACES):
            viewers.enter_context(following(watched, f"{stream}-{number}"))
        url = f"{watched.console_url}/follow?app={APP_NAME}&stream={stream}"
        refused = Viewer(url)
        refused.close()
        assert refused.status == 503
        viewers.enter_context(following(watched, f"{stream}-0"))  # which has a viewer already
    deadline = time.monotonic() + TIMEOUT_S
    while (again := Viewer(url)).status == 503:  # until the server knows that they are gone
        again.close()
        assert time.monotonic() < deadline
    assert again.read("publications") == []
    again.close()


def test_a_message_is_published_to_the_stream(
    watched: Server, token: str, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    with subscriber(watched, stream) as one, following(watched, stream) as viewer:
        with caplog.at_level(logging.INFO, "tambur.server"):
            body = {"app": APP_NAME, "stream": stream, "message": "from the console"}
            answer = post(watched, token, "/publish", body)
        assert (answer.status_code, answer.json()) == (200, {"nodes": 1})
        assert one.receive(TIMEOUT_S).text == "from the console"
        assert viewer.read("publications")[0]["text"] == "from the console"
        private = {"app": APP_NAME, "stream": f"private:{one.subscriber_id}", "message": "to one"}
        with caplog.at_level(logging.INFO, "tambur.server"):
            assert post(watched, token, "/publish", private).status_code == 200
        assert one.receive(TIMEOUT_S).text == "to one"
    logged = [r.getMessage() for r in caplog.records if r.getMessage().startswith("published from")]
    assert logged == [
        f"published from the console app={APP_ID} stream={stream}",
        f"published from the console app={APP_ID} stream=private:SUBSCRIBER_ID",
    ]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/publish", b"nonsense", 400, "the body must be a JSON object"),
        ("/publish", b"[" * 9000, 400, "the body must be a JSON object"),
        ("/publish", b"x" * 20_000, 413, "the body is too large"),
        ("/publish", [], 400, "the body must be a JSON object"),
        ("/publish", {"app": 1, "stream": "s", "message": "x"}, 404, "app must be"),
        (
            "/publish",
            {"app": APP_NAME, "stream": "s", "message": 1},
            400,
            "stream and message must be strings",
        ),
        ("/publish", {"app": APP_NAME, "stream": "s", "message": "\ud800"}, 400, "a lone surrogate"),
        ("/publish", {"app": APP_NAME, "stream": "s", "message": "x" * 1001}, 413, "has 1001 bytes, at most"),
        ("/publish", {"app": APP_NAME, "stream": "", "message": "x"}, 400, "must not be empty"),
        ("/publish", {"app": APP_NAME, "stream": 7, "message": "x"}, 400, "must be strings"),
        ("/disconnect", {"app": APP_NAME}, 400, "exactly one of user_id and subscriber_id"),
        ("/disconnect", {"app": APP_NAME, "user_id": "a", "subscriber_id": "b"}, 400, "exactly one of"),
        ("/disconnect", {"app": APP_NAME, "user_id": "a:b"}, 400, "user"),
        ("/disconnect", {"app": APP_NAME, "subscriber_id": "a:b"}, 400, "subscriber"),
    ],
)
def test_a_wrong_change_is_refused(
    watched: Server, token: str, path: str, body: Any, status: int, said: str
) -> None:
    answer = post(watched, token, path, body)
    assert said in answer.text
    assert answer.status_code == status


def test_a_user_and_a_subscriber_are_disconnected(watched: Server, token: str, stream: str) -> None:
    with publisher(watched) as tambur, subscriber(watched, stream) as one, subscriber(watched, stream) as two:
        one.enable_presence(stream, stream, tambur.generate_presence_token)
        answer = post(watched, token, "/disconnect", {"app": APP_NAME, "user_id": stream})
        assert answer.json() == {"disconnected": 1}
        by_id = {"app": APP_NAME, "subscriber_id": two.subscriber_id}
        assert post(watched, token, "/disconnect", by_id).json() == {"disconnected": 1}
        assert post(watched, token, "/disconnect", {"app": APP_NAME, "user_id": "nobody"}).json() == {
            "disconnected": 0
        }
