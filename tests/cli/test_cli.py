"""Each command, as a process."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tambur import Tambur, cli
from tambur.credentials import Credentials
from tambur.protocol.tokens import TokenSigner
from tambur.server import App, Config, Server, in_background

from ..support import faults
from ..support.app import API_KEY, APP_ID, SECRET, subscriber
from ..support.ports import free_port

TIMEOUT_S = 30


@pytest.fixture
def url(server: Server) -> str:
    return f"http://{API_KEY}:{SECRET}@{server.url.removeprefix('http://')}/app/{APP_ID}"


def environment(url: str | None) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if name != "TAMBUR_URL"}
    return others if url is None else others | {"TAMBUR_URL": url}


def run(*words: str, url: str | None = None, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tambur", *words],
        env=environment(url),
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def running(
    *words: str, url: str | None = None, stdin: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tambur", *words],
        env=environment(url),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n")


def failed(done: subprocess.CompletedProcess[str], said: str) -> bool:
    assert done.returncode == 1, done
    assert done.stderr.startswith("tambur: "), done
    assert done.stderr.count("\n") == 1, done
    assert SECRET not in done.stderr.replace(APP_ID, "")
    return said in done.stderr


def test_demo_shows_that_all_arrives_where_it_should() -> None:
    done = run("demo", "--once")
    assert done.returncode == 0, done
    for shown in (
        "alice public: 'Hello, everybody'\n    bob   public: 'Hello, everybody'",
        "alice auth: 'Hello, admins'\n    bob   nothing",
        "alice nothing\n    bob   private: 'Hello, Bob'",
        "alice presence: bob is up\n    bob   presence: alice is up",
        "alice nothing\n    bob   direct from alice: 'Coffee?'",
        "alice presence: bob is down\n    bob   nothing",
    ):
        assert shown in done.stdout
    assert done.stderr == ""


def test_demo_fails_if_something_arrives_where_it_should_not() -> None:
    code = (
        "import sys\nfrom tambur import cli\nfrom tambur.protocol.names import Kind\n"
        "from tambur.server.stream import Stream\nappend = Stream.append\n"
        "def leak(self, publication):\n"
        "    is_auth = publication.kind is Kind.AUTH\n"
        "    append(self, publication._replace(kind=Kind.PUBLIC) if is_auth else publication)\n"
        "Stream.append = leak\nsys.exit(cli.main(['demo', '--once']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 1
    assert "bob   auth: 'Hello, admins'\n    WRONG, it should be nothing" in done.stdout


def test_demo_serves_until_ctrl_c() -> None:
    with running("demo") as process:
        said = ""
        for line in lines(process):
            said += f"{line}\n"
            if "tambur publish" in line:
                break
        exported = re.search(r"export TAMBUR_URL=(\S+)", said)
        assert exported is not None
        assert run("publish", "lobby", "x", url=exported[1]).returncode == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_serve_without_anything_makes_up_an_app_and_says_how_to_reach_it() -> None:
    with running("serve", "--port", "0") as process:
        output = lines(process)
        exported = re.fullmatch(r"export TAMBUR_URL=(\S+)", next(output))
        assert exported is not None
        credentials = Credentials.from_url(exported[1])
        assert next(output) == f"Tambur is listening on {credentials.base_url}"
        assert run("publish", "s", "x", url=exported[1]).returncode == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0


def test_serve_takes_its_app_from_the_environment_and_shows_no_secret() -> None:
    given = "https://key:hunter2@elsewhere.example:1/app/app"
    with running("serve", "--port", "0", url=given) as process:
        line = next(lines(process))
        assert line.startswith("Tambur is listening on http://127.0.0.1:")
        host = line.rpartition("//")[2]
        assert run("publish", "s", "x", url=f"http://key:hunter2@{host}/app/app").returncode == 0
        assert failed(
            run("publish", "s", "x", url=f"http://key:wrong@{host}/app/app"), "401: wrong signature"
        )
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert "hunter2" not in line + out + err
        assert (
            ' INFO tambur.server: publish refused status=401 app=app stream=s reason="wrong signature' in err
        )


def test_serve_takes_its_apps_from_a_file_and_the_command_line_goes_before_it(tmp_path: Path) -> None:
    made = run("new-app", "shop")
    path = tmp_path / "tambur.toml"
    path.write_text(f"[server]\nport = 1\nhost = '203.0.113.1'\n{made.stdout}")
    exported = re.search(r"TAMBUR_URL=http://(\S+)@127.0.0.1:8080/app/shop", made.stdout)
    assert exported is not None
    with running(
        "serve", "--config", str(path), "--port", "0", "--host", "127.0.0.1", url="nonsense"
    ) as process:
        host = next(lines(process)).rpartition("//")[2]
        assert run("publish", "s", "x", url=f"http://{exported[1]}@{host}/app/shop").returncode == 0


def test_what_serve_cannot_do_is_one_line(tmp_path: Path) -> None:
    assert failed(run("serve", "--host", "0.0.0.0"), "to listen on 0.0.0.0, which others can reach")
    assert failed(run("serve", "--config", str(tmp_path / "none.toml")), "cannot read")
    (tmp_path / "bad.toml").write_text("\nport = 1\n")
    assert failed(run("serve", "--config", str(tmp_path / "bad.toml")), "line 2: unknown table 'port'")
    assert failed(run("serve", "--broker", "kafka://h", "--port", "0"), "broker must be")
    assert failed(run("serve", url="http://h"), "TAMBUR_URL: the URL must have the form")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        assert failed(run("serve", "--port", port), f"port {port}: Address already in use")


def test_publish_and_what_it_cannot_do(server: Server, url: str, stream: str) -> None:
    with subscriber(server, stream) as receiver:
        done = run("publish", stream, "é 🥁", url=url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert receiver.receive(10).text == "é 🥁"
    assert failed(run("publish", "private", "x", url=url), "a stream must not be named 'private'")
    assert failed(run("publish", "s", "x"), "TAMBUR_URL is not set")
    assert failed(run("publish", "s", "x", url=url.replace(APP_ID, "other")), "404: there is no app 'other'")
    nobody = f"http://k:s@127.0.0.1:{free_port()}/app/a"
    assert failed(
        run("publish", "s", "x", url=nobody), "connection refused; is `tambur serve` running there?"
    )


def test_publish_takes_lines_from_stdin(server: Server, url: str, stream: str) -> None:
    with subscriber(server, stream) as receiver:
        done = run("publish", stream, "-", url=url, stdin="one\ntwo é\r\n\nfour".encode())
        assert (done.returncode, done.stderr) == (0, "")
        assert [receiver.receive(10).text for _ in range(4)] == ["one", "two é", "", "four"]
        done = run("publish", stream, "-", url=url, stdin=b"one\n\xff\nthree\n")
        assert failed(done, "line 2, after 1 published: a message of bytes must be UTF-8")
        assert receiver.receive(10).text == "one"


def test_publish_draws_a_bar_on_a_terminal(url: str, stream: str, tmp_path: Path) -> None:
    source = tmp_path / "lines"
    source.write_text("x\n" * 50)
    ours, theirs = pty.openpty()
    with source.open() as stdin:
        subprocess.run(
            [sys.executable, "-m", "tambur", "publish", stream, "-"],
            env=environment(url), stdin=stdin, stderr=theirs, check=True, timeout=TIMEOUT_S,
        )  # fmt: skip
    os.close(theirs)
    drawn = os.read(ours, 65536).decode()
    os.close(ours)
    assert re.search(r"\[#{30}\] 100%  50 messages, \d+/s\r\n$", drawn)


def test_listen_prints_what_it_receives(url: str, tambur: Tambur, server: Server, stream: str) -> None:
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


def test_listen_ends_quietly_when_nobody_reads(url: str, tambur: Tambur, stream: str) -> None:
    with running("listen", stream, url=url) as process:
        next(lines(process))
        assert process.stdout is not None
        process.stdout.close()
        tambur.publish(stream, "x")
        assert process.wait(TIMEOUT_S) == 1
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stdout = None


def test_what_listen_cannot_do_is_one_line(url: str) -> None:
    assert failed(run("listen", "private", url=url), "a stream must not be named 'private'")
    assert failed(run("listen", "s", url=url.replace(APP_ID, "other")), "answered 404")
    assert failed(run("listen", "s"), "TAMBUR_URL is not set")


def test_tokens_are_those_of_the_library() -> None:
    url, signer = "http://k:s@h/app/a", TokenSigner("k", "a", "s")
    assert run("token", "auth", "st", "id", url=url).stdout == f"{signer.auth('st', 'id')}\n"
    assert (
        run("token", "presence", "st", "u", "id", url=url).stdout == f"{signer.presence('st', 'u', 'id')}\n"
    )
    assert run("token", "direct", "st", "u", "id", url=url).stdout == f"{signer.direct('st', 'u', 'id')}\n"
    assert failed(run("token", "auth", "st", "a:b", url=url), "a subscriber ID must not contain ':'")


def test_new_app_prints_an_app_for_a_file_and_its_url(tmp_path: Path) -> None:
    path = tmp_path / "tambur.toml"
    outputs = [run("new-app", 'caf"é').stdout for _ in range(2)]
    assert outputs[0] != outputs[1]
    path.write_text(outputs[0])
    (app,) = Config.from_toml(path).apps
    url = re.search(r"TAMBUR_URL=(\S+)", outputs[0])
    assert url is not None
    credentials = Credentials.from_url(url[1])
    assert (app.api_key, app.app_id, app.secrets) == (credentials.api_key, 'caf"é', (credentials.secret,))
    assert len(app.api_key) == 32
    assert len(app.secrets[0]) == 40
    assert failed(run("new-app", "a/b"), "app_id must not contain ':' or '/': 'a/b'")


@pytest.mark.parametrize(
    "words",
    [(), ("nonsense",), ("publish",), ("publish", "s"), ("serve", "--port", "x"), ("serve", "--port", "65536"),
     ("token",), ("token", "auth", "s"), ("token", "presence", "s", "id"), ("listen",), ("demo", "--port", "-1")],
)  # fmt: skip
def test_wrong_usage_is_2(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: tambur")
    assert "Traceback" not in done.stderr


def test_the_installed_command_is_the_module() -> None:
    command = Path(sys.executable).with_name("tambur")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == run("--version").stdout
    assert re.fullmatch(r"tambur \d+\.\d+\.\d+\n", done.stdout)
    assert "demo" in run("--help").stdout


def test_without_the_extras_it_says_what_to_install() -> None:
    code = (
        "import sys\nsys.modules['uvicorn'] = sys.modules['websockets'] = None\n"
        "from tambur.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    for words, extra in ((["serve"], "server"), (["demo"], "server"), (["listen", "s"], "subscriber")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env=environment("http://k:s@h/app/a"), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert failed(done, f"pip install 'tambur[{extra}]'")


def test_doctor_finds_nothing_where_all_is_well(url: str) -> None:
    done = run("doctor", url=url)
    assert done.returncode == 0, done
    checks = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert checks == ["ok      publishing", "ok      clock", "ok      WebSocket", "ok      long polling"]
    assert (SECRET in done.stdout.replace(APP_ID, ""), done.stderr) == (False, "")


def test_doctor_says_what_is_wrong(url: str) -> None:
    def findings(url: str | None) -> str:
        done = run("doctor", url=url)
        assert done.returncode == 1, done
        return done.stdout + done.stderr

    assert "tambur: TAMBUR_URL is not set; it takes the form" in findings(None)
    assert "FAILED  publishing: " in findings(url.replace(SECRET, "wrong"))
    assert "ok      clock" in findings(url.replace(SECRET, "wrong"))
    port = free_port()
    nobody = findings(f"http://{API_KEY}:{SECRET}@127.0.0.1:{port}/app/{APP_ID}")
    assert (
        f"cannot connect to 127.0.0.1:{port}: connection refused; is `tambur serve` running there?" in nobody
    )
    assert nobody.count("\n") == 1
    assert "TLS failed" in findings(url.replace("http:", "https:"))
    assert "FAILED  WebSocket: " in findings(url.replace(f"/app/{APP_ID}", "/app/other"))


def test_doctor_on_a_terminal_is_in_colour(url: str) -> None:
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "tambur", "doctor"],
        env=environment(url), stdout=theirs, check=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    os.close(theirs)
    drawn = os.read(ours, 65536).decode()
    os.close(ours)
    assert drawn.count("\x1b[32mok    \x1b[0m") == 4


def test_doctor_knows_that_long_polling_may_be_off() -> None:
    app = App(API_KEY, APP_ID, (SECRET,), long_polling=False)
    with in_background(Config(apps=(app,), port=0)) as server:
        done = run("doctor", url=f"http://{API_KEY}:{SECRET}@{server.url[7:]}/app/{APP_ID}")
    assert done.returncode == 0, done
    assert "ok      long polling: off for this app\n" in done.stdout


def test_the_examples_of_the_help_are_commands() -> None:
    """Each is understood; what the commands do is tested above."""
    assert set(cli._EXAMPLES) == set(re.findall(r"^    (\S+) ", run("--help").stdout, re.MULTILINE))
    for name, examples in cli._EXAMPLES.items():
        shown = run(name, "--help").stdout
        for example in examples:
            assert f"\n  {example}\n" in shown
            words = shlex.split(example.rpartition("| ")[2].partition(" >")[0])
            assert words[:2] == ["tambur", name]
            assert cli._parser().parse_args(words[1:]).run is not None


def test_what_goes_wrong_is_one_line_whatever_is_answered() -> None:
    refusal = faults.response("403 No", body=b"<html>\r\n<body>\r\n\x1b[31mForbidden\x07</body>\r\n</html>")
    with faults.FaultyServer(refusal) as server:
        done = run("publish", "s", "x", url=f"http://key:hunter2@{server.host}/app/app")
    assert failed(done, "403: <html> <body> \\x1b[31mForbidden\\x07</body> </html>\n")


def test_output_that_cannot_be_written_is_said_in_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tambur", "new-app", "shop"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "tambur: [Errno 28] No space left on device\n")


def test_a_closed_stdin_is_said_so(url: str, stream: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m tambur publish {stream} - <&-"],
        env=environment(url), capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert failed(done, "stdin, which is closed")


def test_a_terminal_need_not_know_every_character(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tambur", "new-app", "café"]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        command, env=ascii_only, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    path = tmp_path / "tambur.toml"
    path.write_text(done.stdout)
    assert Config.from_toml(path).apps[0].app_id == "café"


@pytest.mark.parametrize("name", ["http_proxy", "all_proxy"])
def test_the_demo_needs_no_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert run("demo", "--once").returncode == 0


def test_doctor_asks_no_netrc_for_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login somebody password hunter2\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with faults.FaultyServer(*[faults.response("404 No")] * 9) as server:
        run("doctor", url=f"http://key:secret@{server.host}/app/app")
    assert len(server.received) >= 3
    assert not any(b"\nauthorization:" in request.head.lower() for request in server.received)


def test_ctrl_c_ends_what_waits_for_messages(url: str, stream: str) -> None:
    with running("listen", stream, url=url) as process:
        next(lines(process))
        interrupt(process)


def test_ctrl_c_ends_what_waits_for_input(server: Server, url: str, stream: str) -> None:
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


def interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130
    assert process.stderr is not None
    assert process.stderr.read() == ""
