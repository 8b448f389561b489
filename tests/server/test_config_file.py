"""The hints that follow a setting or table that a configuration file should not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tambur import ConfigurationError
from tambur.server import Config

APP = '[[apps]]\napi_key = "k"\napp_id = "a"\nsecrets = ["s"]\n'

HINTS = [
    ("[server]\nprot = 2\n" + APP, "tls_key, workers; did you mean 'port'?"),
    (APP + "secret = 's'\n", "max_publishes_per_s, secrets; did you mean 'secrets'?"),
    ("[[app]]\n", "line 1: unknown table 'app'; the tables are apps, limits, server; did you mean 'apps'?"),
    ("[server]\nheartbeat_s = 1\n" + APP, "tls_key, workers; it belongs in [limits]"),
    ("[limits]\nstreams = 1\n" + APP, "; it belongs in [[apps.history]]"),
    ("[server]\nlog_level = 'debug'\n" + APP, "line 2: unknown setting 'log_level'; known here are broker"),
    ("port = 1\n" + APP, "line 1: 'port' stands outside of all tables; it belongs in [server]"),
    ("x = 1\n" + APP, "line 1: 'x' stands outside of all tables; the tables are apps, limits, server"),
    ("[server.limits]\nheartbeat_s = 1\n" + APP, "tls_key, workers; it is a table of its own"),
]


@pytest.mark.parametrize(("text", "said"), HINTS, ids=[said for _, said in HINTS])
def test_an_unknown_name_is_answered_with_what_may_have_been_meant(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "tambur.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError) as caught:
        Config.from_toml(path)
    assert said in str(caught.value)
