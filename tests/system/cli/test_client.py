"""``tambur publish``, ``listen`` and ``token``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from websockets.sync.server import ServerConnection

from tambur import Tambur
from tambur.protocol.tokens import TokenSigner
from tambur.server import App, Config, Server, in_background
from tambur.server.config import KeptStreams

from ...support.app import API_KEY, APP_ID, SECRET, publisher, subscriber, tambur_url
from ...support.command import (
    TIMEOUT_S,
    call,
    environment,
    failed,
    interrupt,
    lines,
    run,
    run_on_terminal,
    running,
)
from ...support.faults import FaultyServer, answer
from ...support.ports import free_port
from ...support.strange_server import GREETING, HARMLESS, HOSTILE, strange_server


def test_publish_sends_a_message_or_fails_with_one_line(server: Server, url: str, stream: str) -> None:
    with subscriber(server, stream) as receiver:
        done = run("publish", stream, "é 🥁", url=url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert receiver.receive(TIMEOUT_S).text == "é 🥁"
    assert failed(call("publish", "private", "x", url=url), "a stream must not be named 'private'")
    assert failed(call("publish", "s", "x"), "TAMBUR_URL is not set")
    assert failed(call("publish", "s", "x", url=url.replace(APP_ID, "other")), "404: there is no app 'other'")
    nobody = f"http://k:s@127.0.0.1:{free_port()}/app/a"
    assert failed(
        call("publish", "s", "x", url=nobody), "connection refused; is `tambur serve` running there?"
    )


def test_a_verbose_publish_says_how_many_nodes_listen(server: Server, url: str, stream: str) -> None:
    with subscriber(server, stream) as receiver:
        done = call("publish", "--verbose", stream, "x", url=url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "published; 1 node listens\n", "")
        assert receiver.receive(TIMEOUT_S).text == "x"
    for reaches_nobody in (stream, "private:alice", f"Auth:{stream}", f"direct:{stream}:alice"):
        done = call("publish", "--verbose", reaches_nobody, "x", url=url)
        assert done.returncode == 0
        assert done.stdout.startswith("published; no node listens, so nobody received it")
    refused = call("publish", "--verbose", stream, "x", url=url.replace(SECRET, "wrong"))
    assert failed(refused, "The base string that the server computed")


def test_publish_excludes_a_subscriber(server: Server, url: str, stream: str) -> None:
    with subscriber(server, stream) as one, subscriber(server, stream) as other:
        for words in ([stream, "x"], ["--verbose", stream, "x"]):
            assert call("publish", "--exclude", str(one.subscriber_id), *words, url=url).returncode == 0
        done = call("publish", "--exclude", str(one.subscriber_id), stream, "-", url=url, stdin=b"y\n")
        assert done.returncode == 0
        call("publish", stream, "to all", url=url)
        assert one.receive(TIMEOUT_S).text == "to all"
        assert [other.receive(TIMEOUT_S).text for _ in range(4)] == ["x", "x", "y", "to all"]
    assert failed(call("publish", "--exclude", "a:b", stream, "x", url=url), "must not contain ':'")


def test_a_verbose_publish_to_a_server_that_does_not_say(stream: str) -> None:
    for header in ("X: y", "Tambur-Nodes: many"):
        with FaultyServer(answer(f"HTTP/1.1 204 No Content\r\n{header}\r\n\r\n".encode())) as other:
            done = call("publish", "--verbose", stream, "x", url=f"http://k:s@{other.host}/app/a")
        assert done.stdout == "published; the server does not say how many nodes listen\n"


def test_publish_sends_each_line_of_stdin(server: Server, url: str, stream: str) -> None:
    with subscriber(server, stream) as receiver:
        done = run("publish", stream, "-", url=url, stdin="one\ntwo é\r\n\nfour".encode())
        assert (done.returncode, done.stderr) == (0, "")
        assert [receiver.receive(TIMEOUT_S).text for _ in range(4)] == ["one", "two é", "", "four"]
        done = call("publish", stream, "-", url=url, stdin=b"one\n\xff\nthree\n")
        assert failed(done, "line 2, after 1 published: a message of bytes must be UTF-8")
        assert receiver.receive(TIMEOUT_S).text == "one"


def test_publish_draws_a_bar_on_a_terminal(url: str, stream: str, tmp_path: Path) -> None:
    source = tmp_path / "lines"
    source.write_text("x\n" * 50)
    with source.open() as stdin:
        drawn = run_on_terminal("publish", stream, "-", url=url, stream="stderr", stdin=stdin)
    assert re.search(r"\[#{30}\] 100%  50 messages, \d+/s\r\n$", drawn)


def test_a_closed_stdin_is_an_error(url: str, stream: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m tambur publish {stream} - <&-"],
        env=environment(url), capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert failed(done, "stdin, which is closed")


def test_ctrl_c_ends_publish_while_it_waits_for_input(server: Server, url: str, stream: str) -> None:
    ours, theirs = os.pipe()
    with (
        subscriber(server, stream) as receiver,
        os.fdopen(ours, "rb") as source,
        os.fdopen(theirs, "wb") as input_,
    ):
        with running("publish", stream, "-", url=url, stdin=source) as process:
            input_.write(b"x\n")
            input_.flush()
            assert receiver.receive(TIMEOUT_S).text == "x"
            interrupt(process)


def test_listen_prints_each_message(url: str, tambur: Tambur, server: Server, stream: str) -> None:
    words = ("listen", stream, f"{stream}2", "--auth", "--presence", "me", "--direct", "me")
    with running(*words, url=url) as process, subscriber(server, stream) as other:
        output = lines(process)
        subscriber_id = next(output)
        other.enable_presence(stream, "other", tambur.generate_presence_token)
        other.enable_direct(stream, "other", tambur.generate_direct_token)
        assert json.loads(next(output)) == {
            "stream": stream,
            "kind": "presence",
            "text": "up",
            "user_id": "other",
        }
        tambur.publish(stream, "é 🥁")
        assert next(output) == f'{{"stream": "{stream}", "kind": "public", "text": "é 🥁"}}'
        tambur.publish(f"auth:{stream}2", "x")
        assert json.loads(next(output)) == {"stream": f"{stream}2", "kind": "auth", "text": "x"}
        tambur.publish(f"private:{subscriber_id}", "x")
        assert json.loads(next(output)) == {"stream": "private", "kind": "private", "text": "x"}
        other.send_direct(stream, "me", "hi")
        assert json.loads(next(output)) == {
            "stream": stream,
            "kind": "direct",
            "text": "hi",
            "user_id": "other",
        }
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_listen_begins_with_the_newest_messages_and_says_what_it_may_have_missed(stream: str) -> None:
    app = App(API_KEY, APP_ID, (SECRET,), history=(KeptStreams("*"),))
    config = Config(apps=(app,), port=free_port())
    with contextlib.ExitStack() as stack:
        with in_background(config) as first, publisher(first) as tambur:
            for i in range(3):
                tambur.publish(stream, str(i))
            tambur.publish(f"auth:{stream}", "auth")
            words = ("listen", stream, "--last", "2", "--auth")
            process = stack.enter_context(running(*words, url=tambur_url(first)))
            output = lines(process)
            next(output)
            assert [json.loads(next(output))["text"] for _ in range(2)] == ["2", "auth"]
        with in_background(config):
            assert process.stderr is not None
            said = ""
            while "messages may be missing" not in said:
                said = process.stderr.readline()
                assert said.startswith("tambur: ")
            assert stream in said


def test_listen_ends_without_a_word_when_its_output_is_closed(url: str, tambur: Tambur, stream: str) -> None:
    with running("listen", stream, url=url) as process:
        next(lines(process))
        assert process.stdout is not None
        process.stdout.close()
        tambur.publish(stream, "x")
        assert process.wait(TIMEOUT_S) == 1
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stdout = None


def test_listen_prints_nothing_that_a_terminal_acts_on(url: str, tambur: Tambur, stream: str) -> None:
    family = "\U0001f469\u200d\U0001f467"
    with running("listen", stream, url=url) as process:
        output = lines(process)
        next(output)
        for text in (HOSTILE, family, "\u2028\u2029\u00a0\u0600\ue000\U000e0001"):
            tambur.publish(stream, text)
            shown = next(output)
            assert shown.isprintable()
            assert json.loads(shown)["text"] == text
        tambur.publish(stream, "é 🥁")
        assert "é 🥁" in next(output)


def test_listen_prints_ascii_json_to_an_ascii_terminal(url: str, tambur: Tambur, stream: str) -> None:
    with running("listen", stream, url=url, PYTHONIOENCODING="ascii") as process:
        output = lines(process)
        next(output)
        tambur.publish(stream, "é 🥁")
        assert next(output) == f'{{"stream": "{stream}", "kind": "public", "text": "\\u00e9 \\ud83e\\udd41"}}'


def test_listen_shows_a_hostile_close_reason_as_printable_text() -> None:
    def confirm_and_close(connection: ServerConnection) -> None:
        connection.send(GREETING)
        for answer_to in ('["ack",0,"unknown command"]', '["ack",2,"ok"]'):
            connection.recv()
            connection.send(answer_to)
        connection.close(4000, f"{HOSTILE}\n")

    with strange_server(confirm_and_close) as host:
        with running("listen", "s", url=f"http://key:secret@{host}/app/app") as process:
            assert process.stderr is not None
            line = process.stderr.readline()
    assert line == f"tambur: {host} closed the connection: 4000 {HARMLESS}; reconnecting\n"


def test_an_error_of_listen_is_one_line(url: str) -> None:
    assert failed(call("listen", "private", url=url), "a stream must not be named 'private'")
    assert failed(call("listen", "s", url=url.replace(APP_ID, "other")), "answered 404")
    assert failed(call("listen", "s"), "TAMBUR_URL is not set")


def test_ctrl_c_ends_listen(url: str, stream: str) -> None:
    with running("listen", stream, url=url) as process:
        next(lines(process))
        interrupt(process)


def test_tokens_are_those_of_the_library() -> None:
    url, signer = "http://k:s@h/app/a", TokenSigner("k", "a", "s")
    assert call("token", "auth", "st", "id", url=url).stdout == f"{signer.auth('st', 'id')}\n"
    assert (
        call("token", "presence", "st", "u", "id", url=url).stdout == f"{signer.presence('st', 'u', 'id')}\n"
    )
    assert call("token", "direct", "st", "u", "id", url=url).stdout == f"{signer.direct('st', 'u', 'id')}\n"
    assert failed(call("token", "auth", "st", "a:b", url=url), "a subscriber ID must not contain ':'")
