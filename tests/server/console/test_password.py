"""Hashes of the console's password."""

from __future__ import annotations

import pytest

from tambur.server.console.password import hash_password, parse_hash

from ...support.console import FAST_HASH, PASSWORD


def test_a_hash_matches_its_password_alone() -> None:
    hashed = parse_hash(FAST_HASH)
    assert hashed.matches(PASSWORD.encode())
    assert not hashed.matches(b"correct horsf")
    assert not hashed.matches(b"")


def test_a_short_password_is_refused() -> None:
    with pytest.raises(ValueError, match="the password must have at least 12 bytes, not 11"):
        hash_password("correct hor")


@pytest.mark.parametrize(
    "text",
    [
        "",
        PASSWORD,
        FAST_HASH.replace("scrypt", "bcrypt"),
        FAST_HASH.replace("$2$", "$3$"),
        FAST_HASH.replace("$2$", "$1$"),
        FAST_HASH.replace("$2$", "$2.0$"),
        FAST_HASH.replace("$2$1$", "$2$0$"),
        FAST_HASH.replace("$2$1$1$", "$2$1$65$"),
        FAST_HASH.replace("$2$", f"${2**20}$").replace("$1$1$", "$8$1$"),
        FAST_HASH[:-4],
        FAST_HASH + "$",
        FAST_HASH + "*",
        "$" * 100_000,
    ],
)
def test_any_other_text_is_not_a_hash(text: str) -> None:
    with pytest.raises(ValueError, match="is not a hash made by 'tambur hash-password'"):
        parse_hash(text)
