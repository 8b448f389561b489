"""The configuration, and the errors for mistakes in it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from tambur import ConfigurationError
from tambur.credentials import Credentials
from tambur.protocol.webhooks import TYPES
from tambur.server import App, Config, Limits
from tambur.server.broker.redis.urls import parse_url
from tambur.server.config import KeptStreams
from tambur.server.webhooks.settings import Webhook

from ..support import documentation
from ..support.console import FAST_HASH

DOCUMENTATION = documentation.text("configuration.md")
APP = '[[apps]]\napi_key = "k"\napp_id = "a"\nsecrets = ["hunter2"]\n'
SECRET = "whsec_" + "A" * 32
WEBHOOK = APP + f"[[apps.webhooks]]\nurl = 'https://h/'\nsecret = '{SECRET}'\n"


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "tambur.toml"
    path.write_text(text, "utf-8")
    return Config.from_toml(path)


def test_the_smallest_file_is_one_app(tmp_path: Path) -> None:
    assert load(tmp_path, APP) == Config(apps=(App("k", "a", ("hunter2",)),))


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    text = (
        '[server]\nhost = "::1"\nport = 0\nbroker = "memory://"\npublic_hosts = ["h", "h:80"]\n'
        'tls_cert = "cert.pem"\ntls_key = "key.pem"\n'
        "coalesce_window_ms = 0\nnode_timeout_s = 5\n"
        "[limits]\nmax_message_bytes = 1\nping_interval_s = 1\nping_timeout_s = 1.5\n"
        + APP
        + 'allowed_origins = ["https://h"]\nmax_publishes_per_s = 2\nlong_polling = false\n'
    )
    assert load(tmp_path, text) == Config(
        apps=(App("k", "a", ("hunter2",), ("https://h",), 2.0, long_polling=False),),
        host="::1",
        port=0,
        tls_cert="cert.pem",
        tls_key="key.pem",
        public_hosts=("h", "h:80"),
        coalesce_window_ms=0.0,
        node_timeout_s=5.0,
        limits=Limits(max_message_bytes=1, ping_interval_s=1.0, ping_timeout_s=1.5),
    )


def test_the_history_of_streams_can_be_set_for_each_app(tmp_path: Path) -> None:
    text = APP + (
        "[[apps.history]]\nstreams = 'room-*'\nmessages = 200\nttl_s = 86400\nmax_bytes = 1024\n"
        "[[apps.history]]\nstreams = '*'\nmessages = 0\n"
        "[[apps]]\napi_key = 'k'\napp_id = 'b'\nsecrets = ['s']\n"
    )
    first, second = load(tmp_path, text).apps
    assert first.history == (KeptStreams("room-*", 200, 86400.0, 1024), KeptStreams("*", 0))
    assert second.history == ()


def test_webhooks_can_be_set_for_each_app(tmp_path: Path) -> None:
    text = WEBHOOK + "events = ['user.left']\n" + WEBHOOK.replace('"a"', '"b"').replace("/'", ":8080/x?y=1'")
    first, second = load(tmp_path, text).apps
    assert first.webhooks == (Webhook("https://h/", SECRET, ("user.left",)),)
    assert second.webhooks == (Webhook("https://h:8080/x?y=1", SECRET, ("user.joined", "user.left")),)
    assert SECRET not in repr(first)


@pytest.mark.parametrize(
    "url",
    ["", "h", "//h/", "ftp://h/", "https:///x", "https://h:0/", "https://h:x/", "https://h:99999/", "https://[::1/", "https://ä/", "https://h/ x", "https://h/\n", "https://h/#x", "https://a..b/", f"https://{'h' * 64}/"],
)  # fmt: skip
def test_the_url_of_a_webhook_is_checked(url: str) -> None:
    with pytest.raises(ConfigurationError, match="url must be an http or https URL in ASCII") as caught:
        Webhook(url, SECRET)
    assert str(caught.value).endswith(f", not {url!r}")


def test_a_url_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="without a user name, a password") as caught:
        Webhook("https://user:hunter2@h/", SECRET)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("secret", "rule"),
    [
        ("hunter2", "secret must be 'whsec_' and some bytes in base64"),
        ("whsec_hunter2!", "secret must be 'whsec_' and some bytes in base64"),
        ("whsec_" + "A" * 28, "secret must hold 24 to 64 bytes, not 21"),
        ("whsec_" + "A" * 88, "secret must hold 24 to 64 bytes, not 66"),
    ],
)
def test_the_secret_of_a_webhook_is_checked(tmp_path: Path, secret: str, rule: str) -> None:
    with pytest.raises(ConfigurationError, match=f"line 7: {rule}") as caught:
        load(tmp_path, WEBHOOK.replace(SECRET, secret))
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("room-*", ["room-", "room-1", "room-*", "room-\n"], ["room", "a room-1", "Room-1"]),
        ("*", ["", "x"], []),
        ("room", ["room"], ["rooms", "a room", ""]),
        ("*-eu", ["-eu", "a-eu", "-eu-eu"], ["-eu-", "eu"]),
        ("a*b*c", ["abc", "a-b-b-c", "abcbc"], ["ab", "acb", "abcd"]),
        ("aa*aa", ["aaaa", "aa-aa"], ["aaa", "aa"]),
        ("**", ["", "x"], []),
        ("r.[a-z]*", ["r.[a-z]1"], ["r.a", "rxa"]),
    ],
)
def test_only_a_star_in_a_pattern_stands_for_something_else(
    pattern: str, fitting: list[str], others: list[str]
) -> None:
    kept = KeptStreams(pattern)
    assert [name for name in [*fitting, *others] if kept.matches(name)] == fitting


MISTAKES = [
    ("[server\n", "line 1"),
    ("\n\n[sever]\n" + APP, "line 3: unknown table 'sever'; the tables are apps, limits, server"),
    (
        "[server]\nport = 1\nprot = 2\n" + APP,
        "line 3: unknown setting 'prot'; known here are broker, coalesce_window_ms, console_host",
    ),
    ("[server]\nport = '8080'\n" + APP, "line 2: port must be an integer, not '8080'"),
    ("[server]\nport = true\n" + APP, "line 2: port must be an integer, not True"),
    ("[server]\nport = 70000\n" + APP, "line 2: port must be 0 to 65535, not 70000"),
    (
        "[server]\nbroker = 'redis://h'\nworkers = 3\nconsole_port = 65534\n" + APP,
        "line 4: console_port must leave a port for each of 3 workers, from 65534 up to 65535",
    ),
    ("[server]\nconsole_port = -1\n" + APP, "line 2: console_port must be 0 to 65535, not -1"),
    ("[server]\nport = 1\nconsole_host = ''\n" + APP, "line 3: console_host must not be empty"),
    (
        "[server]\nconsole_port = 1\nconsole_host = '0.0.0.0'\n" + APP,
        "line 3: console_host needs a console_password on 0.0.0.0, which others can reach; 'tambur hash",
    ),
    (
        f"[server]\nconsole_port = 1\nconsole_password = '{FAST_HASH}'\nconsole_host = '::'\n" + APP,
        "line 4: console_host needs a tls_cert on ::, which others can reach; or, to send the password",
    ),
    (
        "[server]\nconsole_password = 'hunter2'\n" + APP,
        "line 2: console_password is not a hash made by 'tambur hash-password'",
    ),
    ("[server]\nconsole_password = 1\n" + APP, "line 2: console_password must be a string"),
    ("[server]\ntls_key = 'key.pem'\n" + APP, "line 2: tls_key needs a tls_cert"),
    ("[server]\nhost = ''\n" + APP, "line 2: host must not be empty"),
    ("[server]\ncoalesce_window_ms = -1\n" + APP, "line 2: coalesce_window_ms must be 0 to 1000, not -1.0"),
    (
        "[server]\nnode_timeout_s = 0.5\n" + APP,
        "line 2: node_timeout_s must be at least 1 and finite, not 0.5",
    ),
    (
        "[server]\nport = 1\nbroker = 'redis://u:hunter2@'\n" + APP,
        "line 3: broker must be 'memory://' or have the form",
    ),
    ("[server]\nworkers = 0\n" + APP, "line 2: workers must be 1 to 1000, not 0"),
    (
        "[server]\nport = 1\nworkers = 2\n" + APP,
        "line 3: workers must be 1, not 2, with the broker 'memory://'",
    ),
    ("server = 1\n" + APP, "line 1: server must be a table"),
    (
        "[server]\n# hosts\npublic_hosts = [\n  'h',\n  'http://h',\n]\nport = 1\n" + APP,
        "line 3: public_hosts takes host or host:port, lower-case, not 'http://h'",
    ),
    ("[server]\npublic_hosts = ['H']\n" + APP, "line 2: public_hosts takes"),
    ("[server]\npublic_hosts = [1]\n" + APP, "line 2: public_hosts must be an array of strings, not [1]"),
    (
        "[limits]\nmax_message_bytes = 0\n" + APP,
        "line 2: max_message_bytes must be above 0 and finite, not 0",
    ),
    ("[limits]\nmax_message_bytes = 1.5\n" + APP, "line 2: max_message_bytes must be an integer, not 1.5"),
    ("[limits]\nping_interval_s = inf\n" + APP, "line 2: ping_interval_s must be above 0 and finite"),
    ("[limits]\nping_timeout_s = 5\n" + APP, "line 2: ping_timeout_s must be above ping_interval_s (25.0)"),
    (
        "[limits]\nping_interval_s = 70\n" + APP,
        "line 1: ping_timeout_s must be above ping_interval_s (70.0), not 60.0",
    ),
    ("[server]\nport = 1\n", "line 1: apps must hold at least one app"),
    ("", "line 1: apps must hold at least one app"),
    ("apps = 3\n", "line 1: apps must be an array of tables, each headed [[apps]]"),
    ("[apps]\napi_key = 'k'\n", "line 1: apps must be an array of tables"),
    (APP + APP, "line 1: apps holds the app 'a' twice with the same api_key"),
    (APP + "\n[[apps]]\napi_key = 'k'\napp_id = 'b'\n", "line 6: secrets is missing"),
    (APP + "\n[[apps]]\nsecrets = ['s']\n", "line 6: api_key is missing"),
    (
        APP + "\n[[apps]]\napi_key = 'k'\napp_id = 'b:c'\nsecrets = ['s']\n",
        "line 8: app_id must not contain ':'",
    ),
    (APP.replace('"a"', '""'), "line 3: app_id must not be empty"),
    (APP.replace('"a"', "7"), "line 3: app_id must be a string, not 7"),
    (APP.replace('["hunter2"]', '"hunter2"'), "line 4: secrets must be an array of strings"),
    (APP.replace('["hunter2"]', "[]"), "line 4: secrets must hold at least one secret"),
    (
        APP.replace('["hunter2"]', '["hunter2", ""]'),
        "line 4: secrets holds one that cannot be: the secret must",
    ),
    (APP + 'allowed_origins = ["www.example.com"]\n', "line 5: allowed_origins takes origins such as"),
    (APP + 'allowed_origins = ["https://h/path"]\n', "line 5: allowed_origins takes origins such as"),
    (APP + "max_publishes_per_s = 0\n", "line 5: max_publishes_per_s must be above 0 and finite, not 0.0"),
    ("[limits]\nsession_ttl_s = 1e17\n" + APP, "line 2: session_ttl_s must be at most 3153600000, a hundred"),
    ("[limits]\npresence_linger_s = 1e17\n" + APP, "line 2: presence_linger_s must be at most 3153600000"),
    (
        "[server]\nnode_timeout_s = 1e17\n" + APP,
        "line 2: node_timeout_s must be at most 3153600000, a hundred",
    ),
    (APP + "[[apps.history]]\nstreams = '*'\nttl_s = 1e17\n", "line 7: ttl_s must be at most 3153600000, a"),
    (APP + "[[apps.history]]\nmessages = 1\n", "line 5: streams is missing"),
    (APP + "[[apps.history]]\nstreams = ''\n", "line 6: streams must not be empty"),
    (APP + "[[apps.history]]\nstreams = '*'\nmessages = -1\n", "line 7: messages must be at least 0, not -1"),
    (
        APP + "[[apps.history]]\nstreams = '*'\nttl_s = 0\n",
        "line 7: ttl_s must be above 0 and finite, not 0.0",
    ),
    (
        APP + "[[apps.history]]\nstreams = '*'\nmax_bytes = 0\n",
        "line 7: max_bytes must be above 0 and finite, not 0",
    ),
    (
        APP + "[[apps.history]]\nstream = '*'\n",
        "line 6: unknown setting 'stream'; known here are max_bytes, messages",
    ),
    (APP + f"[[apps.webhooks]]\nsecret = '{SECRET}'\n", "line 5: url is missing"),
    (APP + "[[apps.webhooks]]\nurl = 'https://h/'\n", "line 5: secret is missing"),
    (
        WEBHOOK + "events = ['user.came']\n",
        "line 8: events takes 'user.joined' and 'user.left', not 'user.came'",
    ),
    (WEBHOOK + "events = []\n", "line 8: events must name at least one type"),
    (WEBHOOK + "event = []\n", "line 8: unknown setting 'event'; known here are events, secret, url"),
    (WEBHOOK + WEBHOOK.removeprefix(APP), "line 5: webhooks names the url 'https://h/' twice"),
    (
        APP + "webhooks = 'https://h/'\n",
        "line 5: webhooks must be an array of tables, each headed [[apps.webhooks]]",
    ),
    (
        "[limits]\nmax_webhook_events = 0\n" + APP,
        "line 2: max_webhook_events must be above 0 and finite, not 0",
    ),
    (APP + "history = 3\n", "line 5: history must be an array of tables, each headed [[apps.history]]"),
    (APP + "[apps.history]\nstreams = '*'\n", "line 5: history must be an array of tables"),
    ("[limits]\nhistory_messages = -1\n" + APP, "line 2: history_messages must be at least 0, not -1"),
    (
        "[limits]\npresence_linger_s = -1\n" + APP,
        "line 2: presence_linger_s must be at least 0 and finite, not -1.0",
    ),
    (APP + "long_polling = 'no'\n", "line 5: long_polling must be true or false, not 'no'"),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_a_mistake_is_answered_with_file_line_and_rule(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)
    assert str(tmp_path / "tambur.toml") in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_app_made_in_python_takes_the_credentials_of_a_publisher() -> None:
    app = App(b"k", 7, (b"hunter2", 12345))  # type: ignore[arg-type]
    assert (app.api_key, app.app_id, app.secrets) == ("k", "7", ("hunter2", "12345"))


def test_one_secret_that_is_not_in_a_tuple_is_refused() -> None:
    """Each of its characters would be a secret."""
    with pytest.raises(ConfigurationError, match="must be a tuple of secrets"):
        App("k", "a", "hunter2")  # type: ignore[arg-type]


def test_a_mistake_in_a_long_file_is_found_in_time(tmp_path: Path) -> None:
    apps = "".join(APP.replace('"a"', f'"a{i}"') for i in range(300))
    with pytest.raises(ConfigurationError, match="line 1205: unknown setting 'x'"):
        load(tmp_path, apps + APP + "x = 1\n")


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*nowhere.toml: No such file or directory$"):
        Config.from_toml(tmp_path / "nowhere.toml")
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="cannot read .*utf-8"):
        Config.from_toml(tmp_path / "latin")


@pytest.mark.parametrize(
    "line",
    ["broker = ['redis://:hunter2@h']", "broker = {url = 'redis://:hunter2@h'}", "broker = 'redis://:hunter2@h:x'",
     "broker = 'kafka://u:hunter2@h'", "[[apps]]\nsecrets = 'hunter2'", "[[apps]]\nsecrets = [['hunter2']]",
     "[[apps]]\nsecrets = {s = 'hunter2'}", "[[apps]]\nsecrets = ['hunter2\\uD800']", "[[apps]]\nsecrets = ['hunter2']\nsecrets = 1"],
)  # fmt: skip
def test_no_mistake_shows_a_secret(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigurationError, match="line|tambur.toml") as caught:
        load(tmp_path, f"[server]\n{line}\n")
    assert "hunter2" not in str(caught.value)


def test_no_repr_shows_a_secret() -> None:
    app = App("k", "a", ("hunter2",))
    assert app.signers
    config = Config(apps=(app,), broker="redis://:hunter2@h", console_password=FAST_HASH)
    assert FAST_HASH not in repr(config)
    assert "hunter2" not in repr(app) + repr(config) + repr(parse_url(config.broker))


def test_only_the_key_secret_and_app_id_of_a_tambur_url_are_used() -> None:
    credentials = Credentials.from_url("https://k:s@example.com:9/app/a")
    config = Config.from_credentials(credentials, port=1)
    assert config == Config(apps=(App("k", "a", ("s",)),), port=1)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("[::1]", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.com", False)],
)  # fmt: skip
def test_loopback_is_what_nobody_else_can_reach(host: str, expected: bool) -> None:
    assert Config(apps=(App("k", "a", ("s",)),), host=host).is_loopback is expected


def test_origins_are_compared_whole() -> None:
    app = App("k", "a", ("s",), allowed_origins=("https://www.example.com",))
    assert app.allows_origin("https://www.example.com")
    assert app.allows_origin("HTTPS://WWW.Example.com")
    assert app.allows_origin(None)
    for origin in (
        "http://www.example.com",
        "https://example.com",
        "https://www.example.com.evil.example",
        "null",
        "",
    ):
        assert not app.allows_origin(origin)
    assert App("k", "a", ("s",)).allows_origin("null")


def documented(section: str) -> dict[str, str]:
    text = DOCUMENTATION.split(f"## `{section}`")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("section", "cls"),
    [
        ("[server]", Config),
        ("[limits]", Limits),
        ("[[apps]]", App),
        ("[[apps.history]]", KeptStreams),
        ("[[apps.webhooks]]", Webhook),
    ],
)
def test_every_setting_is_documented_with_its_default(section: str, cls: Any) -> None:
    rows = documented(section)
    fields = {
        f.name: f for f in dataclasses.fields(cls) if f.name not in ("apps", "limits", "history", "webhooks")
    }
    assert set(rows) == set(fields)
    words = {
        "required": dataclasses.MISSING,
        "any": None,
        "no limit": None,
        "no TLS": None,
        "no console": None,
        "no password": None,
        "`false`": False,
        "`tls_cert`": None,
        "`[]`": (),
        "all": TYPES,
        "`true`": True,
    }
    for name, written in rows.items():
        default = fields[name].default
        if written in words:
            assert default == words[written] or default is words[written], name
        else:
            assert written.strip("`") == (f'"{default}"' if isinstance(default, str) else str(default)), name


def test_the_documented_example_loads(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", DOCUMENTATION, re.DOTALL)
    assert example is not None
    config = load(tmp_path, example[1])
    assert [app.app_id for app in config.apps] == ["shop", "chat"]
    assert len(config.apps[0].secrets) == 2
