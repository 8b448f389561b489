"""Session keys: section 7 of the protocol."""

from __future__ import annotations

import re
import struct
import uuid

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tambur.protocol.session_keys import SessionKey, SessionKeys

from ..support.app import API_KEY, APP_ID, SECRET
from ..support.strategies import credential_names, secrets

KEY = SessionKey("a0629978-28d8-4fd4-b862-f67e9b6dfd8f", 3, 1_764_115_200_000, 1_764_115_650_000)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

session_keys = st.builds(
    SessionKey,
    st.uuids().map(str),
    st.integers(1, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)


def signer(api_key: str = API_KEY, app_id: str = APP_ID, *secrets: str, realm: bytes = b"") -> SessionKeys:
    return SessionKeys(api_key, app_id, secrets or (SECRET,), realm=realm)


@given(credential_names, credential_names, secrets, session_keys)
def test_a_signed_key_decodes_to_its_content(api_key: str, app_id: str, secret: str, key: SessionKey) -> None:
    text = SessionKeys(api_key, app_id, (secret,)).sign(key)
    assert re.fullmatch("[A-Za-z0-9_-]+", text)
    assert SessionKeys(api_key, app_id, (secret,)).verify(text) == key


def test_a_key_is_valid_only_for_its_app_secret_and_realm() -> None:
    text = signer().sign(KEY)
    assert signer().verify(text) == KEY
    assert signer("other-key").verify(text) is None
    assert signer(API_KEY, "other-app").verify(text) is None
    assert signer(API_KEY, APP_ID, "other secret").verify(text) is None
    assert signer(realm=b"another process").verify(text) is None
    assert signer("ab", "c").verify(signer("a", "bc").sign(KEY)) is None
    # A secret is no key itself: it also signs requests and tokens.
    assert signer(API_KEY, APP_ID, "x").verify(signer(API_KEY, "x", APP_ID).sign(KEY)) is None


def test_any_of_the_secrets_checks_a_key_and_the_first_signs() -> None:
    old, new = signer(API_KEY, APP_ID, "old"), signer(API_KEY, APP_ID, "new")
    both = signer(API_KEY, APP_ID, "new", "old")
    assert both.verify(old.sign(KEY)) == both.verify(new.sign(KEY)) == KEY
    assert both.sign(KEY) == new.sign(KEY)


def test_no_changed_character_passes() -> None:
    text = signer().sign(KEY)
    for index in range(len(text)):
        for character in ALPHABET:
            changed = text[:index] + character + text[index + 1 :]
            assert signer().verify(changed) == (KEY if changed == text else None)


@given(st.text(max_size=100))
def test_other_text_is_no_key(text: str) -> None:
    assert signer().verify(text) is None


@given(session_keys, st.sampled_from(["", "=", "==", "\n", " ", "A", "\N{SNOWMAN}"]))
def test_a_key_has_one_spelling(key: SessionKey, more: str) -> None:
    assume(more)
    text = signer().sign(key)
    for other in (text + more, more + text, text[:-1] + more):
        assert signer().verify(other) is None or other == text


def test_an_invalid_subscriber_id_is_not_signed() -> None:
    for subscriber_id in (KEY.subscriber_id.upper(), uuid.UUID(KEY.subscriber_id).hex, "x"):
        with pytest.raises(ValueError):
            signer().sign(KEY._replace(subscriber_id=subscriber_id))
    with pytest.raises(struct.error):
        signer().sign(KEY._replace(number=2**64))
