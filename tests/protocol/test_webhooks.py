"""The form and the signature of webhooks."""

from __future__ import annotations

import base64

import pytest

from tambur.protocol.webhooks import decode_secret, is_signed, make_headers, make_id, sign

KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def test_a_secret_is_decoded_with_and_without_padding() -> None:
    key = b"x" * 25
    encoded = base64.b64encode(key).decode()
    assert encoded.endswith("==")
    assert decode_secret(f"whsec_{encoded}") == decode_secret(f"whsec_{encoded.rstrip('=')}") == key


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "secret", "whsec_%", "whsec_a", "whsec_ä", SECRET[6:], f"{SECRET}\n"]
)
def test_a_malformed_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="^must be 'whsec_' and some bytes in base64$"):
        decode_secret(secret)


def test_a_signature_depends_on_each_part() -> None:
    parts: list[tuple[bytes, str, int, bytes]] = [
        (KEY, "msg_1", 1, b"{}"), (KEY[1:], "msg_1", 1, b"{}"), (KEY, "msg_2", 1, b"{}"),
        (KEY, "msg_1", 2, b"{}"), (KEY, "msg_1", 1, b"{ }"),
    ]  # fmt: skip
    signatures = [sign(*part) for part in parts]
    assert len(set(signatures)) == len(parts)
    for signature in signatures:
        assert is_signed(signature, *parts[0]) is (signature == signatures[0])
    assert is_signed(" ".join(signatures[::-1]), *parts[0])
    assert is_signed(f"v1a,x v1, {signatures[0]} \udcff".replace("\udcff", "ä"), *parts[0])
    for wrong in ("", "v1", signatures[0][3:], signatures[0].replace("v1,", "v2,"), f"{signatures[0]}="):
        assert not is_signed(wrong, *parts[0])


def test_the_headers_of_a_request() -> None:
    assert make_headers(KEY, "msg_1", 5, b"{}") == {
        "Content-Type": "application/json",
        "webhook-id": "msg_1",
        "webhook-timestamp": "5",
        "webhook-signature": sign(KEY, "msg_1", 5, b"{}"),
    }


def test_an_id_is_the_same_for_the_same_event_only() -> None:
    made = make_id("user.left", 7, "app", "a", "b")
    assert made == make_id("user.left", 7, "app", "a", "b")
    assert made.startswith("msg_7_")
    assert "." not in made
    assert made not in {make_id("user.joined", 7, "app", "a", "b"), make_id("user.left", 7, "app", "b", "a")}
