"""How commands are called, and how their errors look."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tambur import cli

from ...support import faults
from ...support.command import TIMEOUT_S, call, environment, failed


@pytest.mark.parametrize(
    "words",
    [(), ("nonsense",), ("publish",), ("publish", "s"), ("serve", "--port", "x"), ("serve", "--port", "65536"),
     ("token",), ("token", "auth", "s"), ("token", "presence", "s", "id"), ("listen",), ("demo", "--port", "-1")],
)  # fmt: skip
def test_wrong_usage_exits_with_2(words: tuple[str, ...]) -> None:
    done = call(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: tambur")
    assert "Traceback" not in done.stderr


def test_without_a_command_the_help_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "demo" in said.err
    assert "'tambur serve' starts a server" in said.err


def test_the_installed_command_runs_the_module() -> None:
    command = Path(sys.executable).with_name("tambur")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == call("--version").stdout
    assert re.fullmatch(r"tambur \d+\.\d+\.\d+\n", done.stdout)
    assert "demo" in call("--help").stdout


def test_without_an_extra_the_error_says_what_to_install() -> None:
    code = (
        "import sys\nsys.modules['uvicorn'] = sys.modules['websockets'] = None\n"
        "from tambur.cli import main\n"
        "for words in (['serve'], ['demo'], ['listen', 's']):\n    print(main(words))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment("http://k:s@h/app/a"), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["1", "1", "1"]
    said = done.stderr.splitlines()
    for line, extra in zip(said, ("server", "server", "subscriber"), strict=True):
        assert line.startswith("tambur: ")
        assert f"pip install 'tambur[{extra}]>=1'" in line


def test_each_example_of_the_help_is_a_command() -> None:
    """The parser accepts it; other tests show what the commands do."""
    assert set(cli._EXAMPLES) == set(re.findall(r"^    (\S+)(?: |$)", call("--help").stdout, re.MULTILINE))
    for name, examples in cli._EXAMPLES.items():
        shown = call(name, "--help").stdout
        for example in examples:
            assert f"\n  {example}\n" in shown
            words = shlex.split(example.rpartition("| ")[2].partition(" >")[0])
            assert words[:2] == ["tambur", name]
            assert cli._parser().parse_args(words[1:]).run is not None


def test_an_error_is_one_printable_line_whatever_the_server_answers() -> None:
    refusal = faults.response("403 No", body=b"<html>\r\n<body>\r\n\x1b[31mForbidden\x07</body>\r\n</html>")
    with faults.FaultyServer(refusal) as server:
        done = call("publish", "s", "x", url=f"http://key:hunter2@{server.host}/app/app")
    assert failed(done, "403: <html> <body> \\x1b[31mForbidden\\x07</body> </html>\n")


def test_output_that_cannot_be_written_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tambur", "new-app", "shop"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "tambur: No space left on device\n")
