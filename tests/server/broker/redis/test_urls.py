"""The URL of a broker."""

from __future__ import annotations

import pytest

from tambur import ConfigurationError
from tambur.server.broker.redis.urls import RedisUrl, parse_url


def redis(
    *hosts: tuple[str, int],
    service: str | None = None,
    database: int = 0,
    user: tuple[str | None, str | None] = (None, None),
    tls: dict[str, str] | None = None,
) -> RedisUrl:
    return RedisUrl(hosts, service, database, *user, tls)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memory://", None),
        ("memory:", None),
        ("redis://h", redis(("h", 6379))),
        ("redis://h/", redis(("h", 6379))),
        ("redis://10.0.0.1:7000/3", redis(("10.0.0.1", 7000), database=3)),
        ("redis://[::1]:7000", redis(("::1", 7000))),
        ("redis://:p%40s%2Fs%3A@h", redis(("h", 6379), user=(None, "p@s/s:"))),
        ("redis://user:pass@h", redis(("h", 6379), user=("user", "pass"))),
        ("rediss://h", redis(("h", 6379), tls={})),
        ("rediss://h/1?ssl_ca_certs=/a%20b", redis(("h", 6379), database=1, tls={"ssl_ca_certs": "/a b"})),
        (
            "redis+sentinel://:p@a,b:1,[::1]/main/2",
            redis(
                ("a", 26379), ("b", 1), ("::1", 26379), service="main", database=2, user=(None, "p")
            ),
        ),
        ("redis+sentinel://a/main", redis(("a", 26379), service="main")),
        ("redis+sentinel://a/main-1/", redis(("a", 26379), service="main-1")),
    ],
)  # fmt: skip
def test_the_parts_of_a_url(url: str, expected: RedisUrl | None) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "", "memory", "redis", "redis://", "redis:h", "kafka://:hunter2@h", "http://:hunter2@h", "REDIS://:hunter2@h",
        "redis://:hunter2@", "redis://:hunter2@h:0", "redis://:hunter2@h:70000", "redis://:hunter2@h:port",
        "redis://:hunter2@h/one", "redis://:hunter2@h/1/2", "redis://:hunter2@h,i", "redis://:hunter2@[h]",
        "redis://:hunter2@h#0", "redis://:hunter2@h?db=1", "redis://:hunter2@h?ssl_ca_certs=/a", "redis://h i",
        "rediss://:hunter2@h?ssl_cert_reqs=none", "rediss://:hunter2@h?decode_responses=true",
        "redis://user@h", "redis://:hunter2/@h", "redis://:hunter2:@h", "redis://:hunter2@@h", "redis://:hunter2#@h",
        "redis+sentinel://:hunter2@h", "redis+sentinel://:hunter2@h/1", "redis+sentinel://:hunter2@h/1/main",
        "redis+sentinel://:hunter2@,/main", "rediss+sentinel://:hunter2@h/main", "redis://:hunter2@h\n",
        "redis://:hunter2@a..b", f"redis://:hunter2@{'h' * 64}",
    ],
)  # fmt: skip
def test_an_invalid_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the broker must be 'memory://' or have the form") as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)
