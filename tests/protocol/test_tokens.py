"""Mode tokens: section 3 of the protocol."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tambur import InvalidNameError, Tambur
from tambur.protocol.tokens import Mode, TokenSigner

from ..support.app import API_KEY, APP_ID, SECRET
from ..support.strategies import credential_names, ids, secrets, streams

SUBSCRIBER = "a0629978-28d8-4fd4-b862-f67e9b6dfd8f"


def test_tokens_are_the_protocols_known_answers() -> None:
    tambur = Tambur(API_KEY, APP_ID, SECRET)
    assert tambur.generate_auth_token("test", SUBSCRIBER) == "2f25ad1ce5afab906cc582b6254a912590c60f73"
    assert (
        tambur.generate_presence_token("test", "test_user", SUBSCRIBER)
        == "dcadf9659116ebbe024a4cd5ae12bde48d95408e"
    )
    assert (
        tambur.generate_direct_token("test", "test_user", SUBSCRIBER)
        == "2403374744295f5d22e3f999d4eb85b3f689c6b2"
    )


@given(credential_names, credential_names, secrets, streams, ids, ids)
def test_a_token_is_the_hmac_of_the_joined_fields(
    api_key: str, app_id: str, secret: str, stream: str, user: str, subscriber: str
) -> None:
    signer = TokenSigner(api_key, app_id, secret)

    def expected(*fields: str) -> str:
        return hmac.new(secret.encode(), ":".join(fields).encode(), hashlib.sha1).hexdigest()

    assert signer.auth(stream, subscriber) == expected(api_key, app_id, "auth", stream, subscriber)
    for mode, sign in ((Mode.PRESENCE, signer.presence), (Mode.DIRECT, signer.direct)):
        token = sign(stream, user, subscriber)
        assert token == expected(api_key, app_id, mode.value, stream, user, subscriber)
        assert signer.verify(token, mode, stream, subscriber, user)
        assert not signer.verify(token, mode, stream + "x", subscriber, user)
        assert not signer.verify(token, mode, stream, subscriber, user + "x")
        assert not signer.verify(token, mode, stream, subscriber + "x", user)
        assert not TokenSigner(api_key, app_id, secret + "x").verify(token, mode, stream, subscriber, user)
        other = Mode.DIRECT if mode is Mode.PRESENCE else Mode.PRESENCE
        assert not signer.verify(token, other, stream, subscriber, user)


def test_no_subscriber_id_makes_a_token_for_another_stream() -> None:
    """The token for ``lobby`` and ``vip:S`` would be that for ``lobby:vip`` and ``S``."""
    tambur = Tambur(API_KEY, APP_ID, SECRET)
    assert tambur.generate_auth_token("lobby:vip", "S")
    with pytest.raises(InvalidNameError, match="subscriber ID must not contain ':': 'vip:S'"):
        tambur.generate_auth_token("lobby", "vip:S")


@pytest.mark.parametrize("method", ["generate_presence_token", "generate_direct_token"])
def test_no_user_id_makes_a_token_for_another_stream(method: str) -> None:
    """User ``x:alice`` on ``room`` would be user ``alice`` on ``room:x``."""
    generate = getattr(Tambur(API_KEY, APP_ID, SECRET), method)
    assert generate("room:x", "alice", "S")
    with pytest.raises(InvalidNameError, match="user ID must not contain ':': 'x:alice'"):
        generate("room", "x:alice", "S")
    with pytest.raises(InvalidNameError, match="subscriber ID"):
        generate("room", "alice", "x:S")


@pytest.mark.parametrize("stream", ["", "auth:x", "private", None])
def test_an_invalid_stream_gets_no_token(stream: Any) -> None:
    with pytest.raises(InvalidNameError):
        Tambur(API_KEY, APP_ID, SECRET).generate_auth_token(stream, SUBSCRIBER)


def test_a_stream_with_a_prefix_gets_no_token() -> None:
    with pytest.raises(InvalidNameError, match="must not begin with 'auth:'"):
        Tambur(API_KEY, APP_ID, SECRET).generate_auth_token("auth:test", SUBSCRIBER)


@given(st.text())
def test_no_other_text_is_a_valid_token(token: str) -> None:
    assert not TokenSigner("k", "a", "s").verify(token, Mode.AUTH, "test", "S")


def test_a_token_in_upper_case_is_invalid() -> None:
    signer = TokenSigner("k", "a", "s")
    assert not signer.verify(signer.auth("test", "S").upper(), Mode.AUTH, "test", "S")


def test_the_repr_of_a_signer_does_not_show_the_secret() -> None:
    assert "hunter2" not in repr(TokenSigner("k", "a", "hunter2"))
