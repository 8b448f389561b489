"""``tambur history``, ``users``, ``streams`` and ``disconnect``."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tambur import Tambur, cli
from tambur.server import Server

from ..support import faults
from ..support.app import SECRET, subscriber
from ..support.command import call, failed
from ..support.faults import FaultyServer

Command = Callable[..., str]


@pytest.fixture
def command(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process, and return its output."""
    monkeypatch.setenv("TAMBUR_URL", url)

    def run_here(*words: str, status: int = 0) -> str:
        assert cli.main(words) == status
        output = capsys.readouterr()
        assert (output.err == "") is (status == 0)
        return output.err if status else output.out

    return run_here


def test_users_are_printed_one_a_line(server: Server, tambur: Tambur, stream: str, command: Command) -> None:
    assert command("users", stream) == ""
    with subscriber(server, stream) as one, subscriber(server, stream) as two:
        one.enable_presence(stream, "bob", tambur.generate_presence_token)
        two.enable_presence(stream, "a\u202eb  c", tambur.generate_presence_token)
        assert command("users", stream) == "a\\u202eb  c\nbob\n"


def test_streams_are_lines_of_json(server: Server, stream: str, command: Command) -> None:
    with subscriber(server, f"{stream}-1", f"{stream}-é\u202e"):
        lines = command("streams", stream).splitlines()
    assert json.loads(lines[0]) == {"stream": f"{stream}-1", "subscribers": 1, "users": 0}
    assert json.loads(lines[1])["stream"] == f"{stream}-é\u202e"
    assert lines[1].isprintable()
    assert command("streams", stream) == ""


def test_history_is_lines_of_json(tambur: Tambur, stream: str, command: Command) -> None:
    start = tambur.history(stream).position
    for text in ("1", "two\n\x1b[31m", "3"):
        tambur.publish(f"auth:{stream}" if text == "1" else stream, text)
    lines = command("history", stream).splitlines()
    assert all(line.isprintable() for line in lines)
    messages = [json.loads(line) for line in lines]
    assert [(m["kind"], m["message"]) for m in messages] == [
        ("auth", "1"),
        ("public", "two\n\x1b[31m"),
        ("public", "3"),
    ]
    assert set(messages[0]) == {"kind", "message", "position", "published_at"}
    assert command("history", stream, "--limit", "1") == lines[2] + "\n"
    assert command("history", stream, "--since", messages[1]["position"]) == lines[2] + "\n"
    assert command("history", stream, "--since", start).splitlines() == lines


def test_history_that_may_miss_messages_fails(command: Command, stream: str) -> None:
    said = command("history", stream, "--since", "elsewhere", status=1)
    assert said.startswith(f"tambur: messages to '{stream}' after 'elsewhere' may be missing")
    assert "limit must be an integer" in command("history", stream, "--limit", "0", status=1)


def test_a_disconnect_prints_the_number_of_sessions(
    server: Server, tambur: Tambur, stream: str, command: Command
) -> None:
    user = f"alice-{stream}"
    with subscriber(server, stream) as one, subscriber(server, stream) as two, subscriber(server) as three:
        for each in (one, two):
            each.enable_presence(stream, user, tambur.generate_presence_token)
        assert command("disconnect", "--user", user) == "2 sessions ended\n"
        assert command("disconnect", "--user", user) == "0 sessions ended\n"
        assert command("disconnect", "--subscriber", str(three.subscriber_id)) == "1 session ended\n"
    assert "a user ID must not contain ':'" in command("disconnect", "--user", "a:b", status=1)


def test_a_failure_is_one_printable_line() -> None:
    refusal = faults.response("403 No", body=b"\x1b[31mForbidden\r\n")
    with FaultyServer(refusal) as server:
        done = call("users", "s", url=f"http://key:{SECRET}@{server.host}/app/app")
    assert failed(done, "asking for the users of 's' failed: ")
    assert call("disconnect").returncode == 2
    assert call("disconnect", "--user", "a", "--subscriber", "b").returncode == 2
