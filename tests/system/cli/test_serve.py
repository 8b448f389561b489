"""``tambur serve``."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

from tambur.credentials import Credentials
from tambur.server import Config

from ...support.command import TIMEOUT_S, call, failed, lines, run, running


def test_without_configuration_the_server_makes_an_app_and_prints_its_url() -> None:
    with running("serve", "--port", "0") as process:
        output = lines(process)
        exported = re.fullmatch(r"export TAMBUR_URL=(\S+)", next(output))
        assert exported is not None
        credentials = Credentials.from_url(exported[1])
        assert next(output) == f"Tambur is listening on {credentials.base_url}"
        assert call("publish", "s", "x", url=exported[1]).returncode == 0
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert " INFO tambur.server: made an app for this run alone to_keep_one=" in err
    assert credentials.secret not in err


def test_the_environment_names_the_app_and_no_output_shows_its_secret() -> None:
    given = "https://key:hunter2@elsewhere.example:1/app/app"
    with running("serve", "--port", "0", url=given) as process:
        line = next(lines(process))
        assert line.startswith("Tambur is listening on http://127.0.0.1:")
        host = line.rpartition("//")[2]
        assert call("publish", "s", "x", url=f"http://key:hunter2@{host}/app/app").returncode == 0
        assert failed(
            call("publish", "s", "x", url=f"http://key:wrong@{host}/app/app"), "401: wrong signature"
        )
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert "hunter2" not in line + out + err
        assert (
            ' INFO tambur.server: publish refused status=401 app=app stream=s reason="wrong signature' in err
        )


def test_serve_logs_publishes_for_debugging() -> None:
    with running(
        "serve", "--port", "0", "--log-level", "debug", url="http://key:hunter2@h/app/app"
    ) as process:
        host = next(lines(process)).rpartition("//")[2]
        assert call("publish", "Auth:s", "x", url=f"http://key:hunter2@{host}/app/app").returncode == 0
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=TIMEOUT_S)
    (line,) = err.splitlines()
    assert line.endswith(
        " DEBUG tambur.server: publish accepted app=app stream=Auth:s outcome=delivered nodes=0"
    )


def test_a_file_names_the_apps_and_the_command_line_overrides_it(tmp_path: Path) -> None:
    made = call("new-app", "shop")
    path = tmp_path / "tambur.toml"
    path.write_text(f"[server]\nport = 1\nhost = '203.0.113.1'\n{made.stdout}")
    exported = re.search(r"TAMBUR_URL=http://(\S+)@127.0.0.1:8080/app/shop", made.stdout)
    assert exported is not None
    with running(
        "serve", "--config", str(path), "--port", "0", "--host", "127.0.0.1", url="nonsense"
    ) as process:
        host = next(lines(process)).rpartition("//")[2]
        assert call("publish", "s", "x", url=f"http://{exported[1]}@{host}/app/shop").returncode == 0


def test_credentials_of_a_file_outlive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "tambur.toml"
    assert call("new-app", "shop", "--output", str(path)).returncode == 0
    (app,) = Config.from_toml(path).apps
    for _ in range(2):
        with running("serve", "--config", str(path), "--port", "0") as process:
            host = next(lines(process)).rpartition("//")[2]
            url = f"http://{app.api_key}:{app.secrets[0]}@{host}/app/shop"
            assert call("publish", "s", "x", url=url).returncode == 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_S) == 0


def test_an_error_of_serve_is_one_line(tmp_path: Path) -> None:
    assert failed(run("serve", "--host", "0.0.0.0"), "to listen on 0.0.0.0, which others can reach")
    assert failed(run("serve", "--config", str(tmp_path / "none.toml")), "cannot read")
    (tmp_path / "bad.toml").write_text("\nport = 1\n")
    assert failed(
        run("serve", "--config", str(tmp_path / "bad.toml")), "line 2: 'port' stands outside of all tables"
    )
    assert failed(run("serve", "--broker", "kafka://h", "--port", "0"), "broker must be")
    assert failed(run("serve", url="http://h"), "TAMBUR_URL: the URL must have the form")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        assert failed(run("serve", "--port", port), f"port {port}: Address already in use")
