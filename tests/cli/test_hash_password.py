"""``tambur hash-password``."""

from __future__ import annotations

from tambur.server.console.password import parse_hash

from ..support.command import failed, run


def test_the_hash_of_a_line_of_stdin_is_printed() -> None:
    done = run("hash-password", stdin="correct horse é\n".encode())
    assert (done.returncode, done.stderr) == (0, "")
    assert parse_hash(done.stdout.removesuffix("\n")).matches("correct horse é".encode())


def test_a_short_password_is_an_error() -> None:
    done = run("hash-password", stdin=b"hunter2\n")
    assert failed(done, "the password must have at least 12 bytes, not 7")
    assert "hunter2" not in done.stdout + done.stderr
