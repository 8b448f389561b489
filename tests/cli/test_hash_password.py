"""``tambur hash-password``."""

from __future__ import annotations

import io

import pytest

from tambur import cli
from tambur.server.console.password import parse_hash


def run(monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(line))
    return cli.main(["hash-password"])


def test_the_hash_of_a_line_of_stdin_is_printed_with_a_new_salt_each_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hashes = []
    for _ in range(2):
        assert run(monkeypatch, "correct horse é\n") == 0
        text = capsys.readouterr().out.removesuffix("\n")
        assert text.startswith("scrypt$16384$8$5$")
        hashes.append(parse_hash(text))
    one, other = hashes
    assert one.salt != other.salt
    assert one.matches("correct horse é".encode())


def test_a_short_password_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "hunter2\n") == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "tambur: the password must have at least 12 bytes, not 7\n")
