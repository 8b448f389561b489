"""``tambur doctor``."""

from __future__ import annotations

import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

import pytest

from tambur.server import App, Config, in_background

from ...support import faults
from ...support.app import API_KEY, APP, APP_ID, SECRET, tambur_url
from ...support.command import call, run, run_on_terminal
from ...support.ports import free_port
from ...support.strange_server import HOSTILE


def test_every_check_passes_on_a_good_server(url: str) -> None:
    done = run("doctor", url=url)
    assert done.returncode == 0, done
    checks = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert checks == ["ok      publishing", "ok      clock", "ok      WebSocket", "ok      long polling"]
    assert (SECRET in done.stdout.replace(APP_ID, ""), done.stderr) == (False, "")


def test_a_failed_check_says_why(url: str) -> None:
    def findings(url: str | None) -> str:
        done = call("doctor", url=url)
        assert done.returncode == 1, done
        return done.stdout + done.stderr

    assert "tambur: TAMBUR_URL is not set; it must have the form" in findings(None)
    assert "FAILED  publishing: " in findings(url.replace(SECRET, "wrong"))
    assert "ok      clock" in findings(url.replace(SECRET, "wrong"))
    port = free_port()
    nobody = findings(f"http://{API_KEY}:{SECRET}@127.0.0.1:{port}/app/{APP_ID}")
    assert (
        f"cannot connect to 127.0.0.1:{port}: connection refused; is `tambur serve` running there?" in nobody
    )
    assert nobody.count("\n") == 1
    assert "TLS failed" in findings(url.replace("http:", "https:"))
    wrong_app = findings(url.replace(f"/app/{APP_ID}", "/app/other"))
    assert "FAILED  publishing: " in wrong_app
    assert "FAILED  WebSocket: " in wrong_app
    assert "FAILED  long polling: the server has no app 'other' with this API key" in wrong_app


def test_doctor_on_a_terminal_is_in_colour(url: str) -> None:
    assert run_on_terminal("doctor", url=url, stream="stdout").count("\x1b[32mok    \x1b[0m") == 4


def test_an_app_may_have_long_polling_off() -> None:
    app = App(API_KEY, APP_ID, (SECRET,), long_polling=False)
    with in_background(Config(apps=(app,), port=0)) as server:
        done = call("doctor", url=tambur_url(server))
    assert done.returncode == 0, done
    assert "ok      long polling: off for this app\n" in done.stdout


def test_doctor_sends_no_password_from_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login netrc-user password hunter2\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    refusal = faults.response("404 No", "Tambur-Refused: unknown_app")
    with faults.FaultyServer(*[refusal] * 9) as server:
        call("doctor", url=f"http://key:secret@{server.host}/app/app")
    assert len(server.received) >= 3
    assert not any(b"\nauthorization:" in request.head.lower() for request in server.received)


def test_an_app_may_allow_some_origins_only() -> None:
    app = App(API_KEY, APP_ID, (SECRET,), allowed_origins=("https://www.example.com",))
    with in_background(Config(apps=(app,), port=0)) as server:
        done = call("doctor", url=tambur_url(server))
    assert done.returncode == 0, done
    assert (
        "ok      long polling: not tried, since only pages of the allowed origins may poll\n" in done.stdout
    )


def test_a_host_that_is_not_public_is_reported(url: str) -> None:
    config = Config(apps=(APP,), port=0, public_hosts=("tambur.example.com",))
    with in_background(config) as server:
        done = call("doctor", url=tambur_url(server))
    assert done.returncode == 1
    assert "FAILED  publishing: " in done.stdout
    assert "is not among this server's public_hosts" in done.stdout


STRANGERS = {
    "a web server": faults.response("404 Not Found", body=b"<h1>Not Found</h1>"),
    "a captive portal": faults.response("200 OK", "Content-Type: text/html", body=b"<h1>Please log in</h1>"),
    "a server that accepts everything": faults.ok,
    "another site": faults.response("302 Found", "Location: https://example.com/"),
    "a malformed redirect": faults.response("302 Found", "Location: http://[:::x"),
    "a server with basic authentication": faults.response("401 Unauthorized", "WWW-Authenticate: Basic"),
    "a script without JSON": faults.response("200 OK", body=b"/**/f(1, no JSON)"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_server_that_is_not_tambur_fails_before_anything_is_published(stranger: str) -> None:
    with faults.FaultyServer(*[STRANGERS[stranger]] * 9) as server:
        done = call("doctor", url=f"http://key:secret@{server.host}/app/app")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"FAILED  server: {server.host} is not a Tambur server, since it answered ")
    assert done.stdout.count("\n") == 1
    assert [request.head.split()[0] for request in server.received] == [b"GET"]


def test_a_file_server_is_not_tambur(tmp_path: Path) -> None:
    """Not even one that has a copy of tambur.js."""
    (tmp_path / "tambur.js").write_bytes((resources.files("tambur.server") / "static/tambur.js").read_bytes())
    handler = functools.partial(QuietFiles, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            done = call("doctor", url=f"http://key:secret@127.0.0.1:{server.server_address[1]}/app/app")
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == 1
    assert "is not a Tambur server, since it answered a subscriber's first request with 404; " in done.stdout
    assert "ok" not in done.stdout.split()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass  # nobody reads it


def test_the_error_of_a_proxy_without_its_server_is_reported() -> None:
    with faults.FaultyServer(*[faults.response("502 Bad Gateway")] * 9) as server:
        done = call("doctor", url=f"http://key:secret@{server.host}/app/app")
    assert "FAILED  publishing: " in done.stdout
    assert "answered 502" in done.stdout
    assert "ok      long polling" not in done.stdout


@pytest.mark.parametrize(
    "value",
    [f"id:{HOSTILE}", "id:../x", 7, {"a": []}, [HOSTILE * 1000]],
    ids=["controls", "path", "number", "object", "long"],
)
def test_a_hostile_answer_is_shown_as_printable_text(value: object) -> None:
    body = f"/**/f(1, {json.dumps(value)})".encode()
    answer = faults.response("200 OK", "Date: Mon, 99 Nov 99999 00:00:00 GMT", body=body)
    with faults.FaultyServer(*[answer] * 20) as server:
        done = call("doctor", url=f"http://key:secret@{server.host}/app/app")
    assert done.returncode == 1
    findings = done.stdout.splitlines()
    assert findings[-1].startswith("FAILED  long polling: the server sent an invalid subscriber ID: ")
    assert all(finding.isprintable() and len(finding) < 1000 for finding in findings)


def test_an_endless_answer_is_cut_off() -> None:
    endless = faults.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 2_000_000)
    with faults.FaultyServer(endless, endless, endless) as server:
        done = call("doctor", url=f"http://key:secret@{server.host}/app/app")
    assert f"FAILED  clock: the answer of {server.host} does not end; is the host right?" in done.stdout
