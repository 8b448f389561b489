"""Each command, as a process."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tambur import Tambur
from tambur.credentials import Credentials
from tambur.server import Config, Server
from tambur.tokens import TokenSigner

from .conftest import API_KEY, APP_ID, SECRET, subscriber

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
def running(*words: str, url: str | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tambur", *words],
        env=environment(url),
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
        "import sys\nfrom tambur import cli\nfrom tambur.server.hub import _Stream\n"
        "start_writing = _Stream.start_writing\n"
        "def leak(self):\n    self.auth.update(self.outboxes)\n    start_writing(self)\n"
        "_Stream.start_writing = leak\nsys.exit(cli.main(['demo', '--once']))"
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
        assert "publish refused with 401: wrong signature" in err


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
    assert failed(run("serve", "--broker", "kafka://h", "--port", "0"), "the broker must be")
    assert failed(run("serve", url="http://h"), "TAMBUR_URL: the URL must have the form")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        assert failed(run("serve", "--port", port), f"port {port}: Address already in use")


def test_publish_and_what_it_cannot_do(server: Server, url: str, stream: str) -> None:
    with subscriber(server, stream) as receiver:
        done = run("publish", stream, "é 🥁", url=url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert receiver.receive(10).text == "é 🥁"
    assert failed(run("publish", "private", "x", url=url), "a stream may not be called 'private'")
    assert failed(run("publish", "s", "x"), "TAMBUR_URL is not set")
    assert failed(run("publish", "s", "x", url=url.replace(APP_ID, "other")), "404: there is no app 'other'")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://k:s@127.0.0.1:{listener.getsockname()[1]}/app/a"
    assert failed(run("publish", "s", "x", url=nobody), "Connection refused; is it running")


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
    assert failed(run("listen", "private", url=url), "a stream may not be called 'private'")
    assert failed(run("listen", "s", url=url.replace(APP_ID, "other")), "answered 404")
    assert failed(run("listen", "s"), "TAMBUR_URL is not set")


def test_tokens_are_those_of_the_library() -> None:
    url, signer = "http://k:s@h/app/a", TokenSigner("k", "a", "s")
    assert run("token", "auth", "st", "id", url=url).stdout == f"{signer.auth('st', 'id')}\n"
    assert (
        run("token", "presence", "st", "u", "id", url=url).stdout == f"{signer.presence('st', 'u', 'id')}\n"
    )
    assert run("token", "direct", "st", "u", "id", url=url).stdout == f"{signer.direct('st', 'u', 'id')}\n"
    assert failed(run("token", "auth", "st", "a:b", url=url), "a subscriber id may not hold ':'")


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
    assert failed(run("new-app", "a/b"), "app_id may not hold ':' or '/': 'a/b'")


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
