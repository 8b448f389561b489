"""``api_host`` and ``TAMBUR_URL``."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tambur import ConfigurationError
from tambur.credentials import ENVIRONMENT_VARIABLE, Credentials, base_url, check_secret, is_host

from .support.strategies import credential_names, secrets


@pytest.mark.parametrize(
    ("api_host", "ssl", "url"),
    [
        ("api.tambur.io", False, "http://api.tambur.io"),
        ("api.tambur.io", True, "https://api.tambur.io"),
        ("localhost:8080", False, "http://localhost:8080"),
        ("[::1]:8080", False, "http://[::1]:8080"),
        ("[::1]", True, "https://[::1]"),
        ("http://h:1", False, "http://h:1"),
        ("http://h/", False, "http://h"),
        ("https://h", False, "https://h"),
        ("https://h", True, "https://h"),
        ("my_service", False, "http://my_service"),
        ("bücher.example", False, "http://bücher.example"),
    ],
)
def test_api_host_is_a_host_or_a_base_url(api_host: str, ssl: bool, url: str) -> None:
    assert base_url(api_host, ssl=ssl) == url


@pytest.mark.parametrize(
    "api_host",
    [
        "",
        " ",
        "h h",
        "h:",
        "h:x",
        "h:0",
        "h:65536",
        "h:-1",
        "ws://h",
        "ftp://h",
        "h/path",
        "http://h/app/x",
        "h?x",
        "h#x",
        "[::1",
        "::1",
        "http://",
        "h\n",
        "h:８０",
        None,
        7,
    ],
)
def test_an_invalid_host_is_refused(api_host: Any) -> None:
    with pytest.raises(ConfigurationError, match="api_host"):
        base_url(api_host)


def test_an_http_url_with_ssl_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ssl=True contradicts"):
        base_url("http://h", ssl=True)


def test_a_password_in_api_host_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="from_url") as caught:
        base_url("http://key:hunter2@h/app/x")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("h", True),
        ("h:80", True),
        ("[::1]:80", True),
        ("", False),
        ("h/x", False),
        ("http://h", False),
        ("h<", False),
        ("h, i", False),
        ("[::1]:", False),
        ("[::1]x:80", False),
        ("h" * 254 + ":65535", True),
        ("h" * 255 + ":65535", False),
    ],
)
def test_is_host(text: str, expected: bool) -> None:
    assert is_host(text) is expected


def test_a_long_host_takes_no_more_time_than_a_short_one() -> None:
    """CPU time: 16 times as much for 4 times the length would mean that the work is quadratic."""

    def cpu_s(length: int) -> float:
        started = time.thread_time()
        assert not is_host("[v1." + ":" * length)
        with pytest.raises(ConfigurationError):
            base_url("[v1." + ":" * length)
        return time.thread_time() - started

    # The least of some: whatever else happens only adds to one.
    long, short = (min(cpu_s(length) for _ in range(5)) for length in (16_000, 4_000))
    assert long < 8 * short + 0.01


@given(
    credential_names,
    credential_names,
    secrets,
    st.sampled_from(["http://h", "https://h:8443", "http://[::1]:1"]),
)
def test_a_url_keeps_all_credentials(api_key: str, app_id: str, secret: str, base: str) -> None:
    credentials = Credentials(api_key=api_key, app_id=app_id, secret=secret, base_url=base)
    assert vars(Credentials.from_url(credentials.to_url())) == vars(credentials)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "must begin with"),
        ("key:hunter2@h/app/x", "must begin with"),
        ("ftp://key:hunter2@h/app/x", "must begin with"),
        ("http://h/app/x", "API_KEY:SECRET@ is missing"),
        ("http://key@h/app/x", "API_KEY:SECRET@ is missing"),
        ("http://key:hunter2@h", "path must be"),
        ("http://key:hunter2@h/app/", "path must be"),
        ("http://key:hunter2@h/app/x/y", "path must be"),
        ("http://key:hunter2@h/api/x", "path must be"),
        ("http://key:hunter2@h:x/app/x", "host or port"),
        ("http://key:hunter2@/app/x", "host or port"),
        ("http://key:hun#ter2@h/app/x", "query or fragment"),
        ("http://key:hunter2@h/app/x?y", "query or fragment"),
        ("http://key:hunter2%FF@h/app/x", "not UTF-8"),
        ("http://key:hunter2@h/app/a%3Ab", "must not contain"),
        (None, "must be a str"),
    ],
)
def test_the_error_of_a_malformed_url_does_not_show_its_secret(url: Any, rule: str) -> None:
    with pytest.raises(ConfigurationError, match=rule) as caught:
        Credentials.from_url(url)
    assert "hun" not in str(caught.value)


def test_the_repr_does_not_show_the_secret() -> None:
    assert "hunter2" not in repr(Credentials(api_key="k", app_id="a", secret="hunter2", base_url="http://h"))


@pytest.mark.parametrize("bad", ["", None, b"hunter2\xff", ["hunter2"], "hunter2\ud800"])
def test_the_error_of_an_invalid_secret_does_not_show_it(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="secret") as caught:
        check_secret(bad)
    assert "hunter2" not in str(caught.value)


def test_the_environment_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "https://k:s@h/app/a")
    assert vars(Credentials.from_env()) == vars(Credentials("k", "a", "s", "https://h"))
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "https://k:s@h/app")
    with pytest.raises(ConfigurationError, match="^TAMBUR_URL: the URL must have the form"):
        Credentials.from_env()
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    with pytest.raises(ConfigurationError, match="TAMBUR_URL is not set.*new-app"):
        Credentials.from_env()
