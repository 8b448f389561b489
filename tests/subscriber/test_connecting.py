"""How a subscriber connects, which servers it refuses, and how its connection ends."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import traceback

import pytest
from websockets.sync.server import ServerConnection

from tambur import (
    CommandRefusedError,
    ConfigurationError,
    SubscriberClosedError,
    SubscriberTimeoutError,
    Tambur,
)
from tambur.server import Server, in_background
from tambur.server.config import Config
from tambur.subscriber import Subscriber
from tambur.subscriber.websocket import WebSocket

from ..support.app import API_KEY, APP, APP_ID, subscriber
from ..support.faults import FaultyServer, response
from ..support.strange_server import GREETING, HARMLESS, HOSTILE, sending, strange_server

TIMEOUT_S = 60


def test_a_malformed_parameter_is_named(server: Server) -> None:
    with pytest.raises(ConfigurationError, match="api_key"):
        Subscriber("a:b", APP_ID, server.url)
    with pytest.raises(ConfigurationError, match="api_host"):
        Subscriber(API_KEY, APP_ID, "h/path")


def test_an_unknown_app_is_refused(server: Server) -> None:
    with pytest.raises(SubscriberClosedError, match=r"answered 404: there is no such app") as caught:
        Subscriber(API_KEY, "other", server.url)
    assert caught.value.code == 404


def test_a_server_with_another_greeting_is_refused() -> None:
    with strange_server(sending("hello")) as host:
        with pytest.raises(SubscriberClosedError, match="no subscriber ID"):
            Subscriber(API_KEY, APP_ID, host)


def test_a_server_without_a_greeting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Patient(WebSocket):
        """Leaves connecting more time, so that only the greeting is late."""

        def __init__(self, url: str, timeout_s: float) -> None:
            super().__init__(url, TIMEOUT_S)

    monkeypatch.setattr("tambur.subscriber.connection.WebSocket", Patient)
    with strange_server(sending()) as host:
        with pytest.raises(SubscriberClosedError, match="no subscriber ID"):
            Subscriber(API_KEY, APP_ID, host, timeout=0.1)


@pytest.mark.parametrize(
    "subscriber_id",
    ["", "x", "vip:S", f"{GREETING[3:]}:S", f"{GREETING[3:]}\n", f"{{{GREETING[3:]}}}", "../tambur.js", HOSTILE,
     GREETING[3:].replace("-", ""), "٠" * 8 + GREETING[11:]],
)  # fmt: skip
def test_a_subscriber_id_that_is_not_a_uuid_is_refused(subscriber_id: str) -> None:
    with strange_server(sending(f"id:{subscriber_id}")) as host:
        with pytest.raises(SubscriberClosedError, match="invalid subscriber ID: it must be a UUID, not") as c:
            Subscriber(API_KEY, APP_ID, host)
    assert str(c.value).isprintable()


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
def test_a_redirect_to_another_host_is_refused(status: str) -> None:
    with FaultyServer() as other:
        location = f"ws://{other.host}/{API_KEY}/{APP_ID}"
        with FaultyServer(response(status, f"Location: {location}")) as first:
            with pytest.raises(SubscriberClosedError) as caught:
                Subscriber(API_KEY, APP_ID, first.host)
    assert caught.value.code == int(status[:3])
    assert f"a redirect to '{location}', which is not followed; is api_host correct?" in str(caught.value)
    assert (first.connections, other.connections) == (1, 0)


def ignored(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if message.startswith("ignored")]


@pytest.mark.parametrize(
    "frame", ["nonsense", '["msg"]', "[" * 100_000, "1" * 10_000, f'["{HOSTILE}"]'], ids=lambda frame: frame[:8].encode("ascii", "replace").decode()
)  # fmt: skip
def test_an_unknown_frame_is_ignored(frame: str, caplog: pytest.LogCaptureFixture) -> None:
    with strange_server(sending(GREETING, frame)) as host:
        with Subscriber(API_KEY, APP_ID, host, timeout=TIMEOUT_S) as one:
            one._session._timeout_s = 0.1  # only now, since connecting may take longer
            with pytest.raises(SubscriberTimeoutError, match="did not answer 'hello' within 0.1 s"):
                one.subscribe("s")
            while not ignored(caplog):  # the frame may be later than the timeout
                with pytest.raises(SubscriberTimeoutError):
                    one.receive(0.1)
    (message,) = ignored(caplog)
    assert message == f"ignored an unknown frame: {frame!r:.100}"
    assert message.isprintable()


@pytest.mark.parametrize(
    "content",
    [{}, {"id": "x"}, {"id": GREETING[3:], "session": 1}, {"heartbeat_s": 0, "id": GREETING[3:]}, {"id": HOSTILE}],
)  # fmt: skip
def test_an_invalid_answer_to_a_hello_is_refused(content: dict[str, object]) -> None:
    whole = {
        "id": GREETING[3:],
        "session": "k",
        "resumed": False,
        "position": "p",
        "complete": True,
        "heartbeat_s": 15,
    }
    answer = json.dumps(["ack", 1, "ok", (whole | content) if content else {}])
    with strange_server(sending(GREETING, answer)) as host:
        with pytest.raises(SubscriberClosedError, match="sent an invalid answer to 'hello'"):
            Subscriber(API_KEY, APP_ID, host, reconnect=True, timeout=TIMEOUT_S)


def test_a_hostile_refusal_is_shown_as_printable_text() -> None:
    with FaultyServer(response("403 No", body=f"<p>\r\n{HOSTILE}".encode())) as server:
        with pytest.raises(SubscriberClosedError) as caught:
            Subscriber(API_KEY, APP_ID, server.host)
    assert str(caught.value) == f"{server.host} answered 403: <p> {HARMLESS}"


def test_a_long_refusal_is_cut_short() -> None:
    with FaultyServer(response("403 No", body=b"x" * 100_000)) as server:
        with pytest.raises(SubscriberClosedError) as caught:
            Subscriber(API_KEY, APP_ID, server.host)
    assert str(caught.value).endswith(f" 403: {'x' * 500}...")


def test_a_hostile_close_reason_is_shown_as_printable_text() -> None:
    def greet_and_close(connection: ServerConnection) -> None:
        connection.send(GREETING)
        connection.close(4000, HOSTILE)

    with strange_server(greet_and_close) as host:
        with Subscriber(API_KEY, APP_ID, host) as one, pytest.raises(SubscriberClosedError) as caught:
            one.receive(TIMEOUT_S)
    assert str(caught.value) == f"{host} closed the connection: 4000 {HARMLESS}"
    assert (caught.value.code, caught.value.reason) == (4000, HOSTILE)


def test_a_hostile_result_is_shown_as_printable_text() -> None:
    answers = ['["ack", 0, "malformed"]', json.dumps(["ack", 2, HOSTILE + "x" * 1000])]
    with strange_server(sending(GREETING, *answers)) as host:
        with Subscriber(API_KEY, APP_ID, host) as one, pytest.raises(CommandRefusedError) as caught:
            one.subscribe("s")
    assert str(caught.value).startswith(f"the server refused subscribe 's': {HARMLESS}xxx")
    assert len(str(caught.value)) < 400
    assert caught.value.result == HOSTILE + "x" * 1000


@pytest.mark.parametrize(
    "url",
    ["user:hunter2@proxy:3128", "http://user:hunter2@proxy:port", "http://user:hunter2/x@proxy:3128",
     "http://user:hunter2@", "http://user:hunter2@[::", "foo://user:hunter2@proxy:1",
     "http://user:hunter2@proxy:1/path", "http://hunter2@proxy:1", "http://user:hunter2@é..é:9"],
)  # fmt: skip
def test_no_error_contains_the_password_of_a_malformed_proxy_url(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("ws_proxy", url)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(SubscriberClosedError) as caught:
        Subscriber("k", "a", "tambur.invalid")
    said = "".join(traceback.format_exception(caught.value))
    assert "SubscriberClosedError: cannot connect to tambur.invalid:80: " in said
    assert "proxy's URL in the environment" in said
    assert "hunter2" not in said


def test_a_lost_connection_raises() -> None:
    with in_background(Config(apps=(APP,), port=0)) as server:
        one = subscriber(server)
    with pytest.raises(SubscriberClosedError, match="1001 the server is shutting down") as caught:
        one.receive(60)
    assert caught.value.code == 1001
    with pytest.raises(SubscriberClosedError):
        next(iter(one))
    one.close()


def test_closing_does_not_wait_though_many_messages_are_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tambur.subscriber.websocket.CLOSE_TIMEOUT_S", 10 * TIMEOUT_S)
    flood = sending(GREETING, *['["msg","s","public","x"]'] * 1000)
    with strange_server(flood) as host:
        one = Subscriber(API_KEY, APP_ID, host, timeout=TIMEOUT_S)
        assert one.receive(TIMEOUT_S).text == "x"
        closing = threading.Thread(target=one.close, daemon=True)
        closing.start()
        closing.join(TIMEOUT_S)
        assert not closing.is_alive()


def test_an_unclosed_subscriber_does_not_keep_python_from_exiting(server: Server) -> None:
    code = (
        "import sys, threading\nfrom tambur.subscriber import Subscriber\n"
        f"idle, waiting, lost = (Subscriber('{API_KEY}', '{APP_ID}', '{server.url}', reconnect=True) for _ in range(3))\n"
        "lost.close()\n"
        "threading.Thread(target=waiting.receive, daemon=True).start()\n"
        "idle.subscribe('s')\n"
        "print('the last line')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "the last line\n", "")


def test_an_unclosed_subscriber_is_closed_with_the_last_reference(
    server: Server, tambur: Tambur, stream: str
) -> None:
    with subscriber(server, stream) as other:
        one = subscriber(server, stream)
        one.enable_presence(stream, "one", tambur.generate_presence_token)
        other.enable_presence(stream, "other", tambur.generate_presence_token)
        assert other.receive(TIMEOUT_S).text == "up"
        del one
        gc.collect()
        assert other.receive(TIMEOUT_S) == (stream, "presence", "down", "one")
