"""The signature of one publish, by each."""

# Each function imports what it measures: a worker has one of them only.
# ruff: noqa: PLC0415

from __future__ import annotations

import json
from typing import Any

from ..worker import Call
from .publishers import API_KEY, APP_ID, SECRET

URL = f"http://127.0.0.1:8080/app/{APP_ID}/stream/news"

MESSAGES = {
    "ASCII": "0123456789 " * 400,
    "JSON": json.dumps([{"id": n, "text": "some text", "read": False} for n in range(200)]),
    "non-ASCII": "Žluťoučký kůň příliš, ďábelské ódy. 東京の空 " * 120,
}


def message(content: str, size: str) -> str:
    """A message of about so many bytes of UTF-8."""
    return MESSAGES[content].encode()[: int(size)].decode("utf-8", "ignore")


def _parameters(content: str, size: str) -> list[tuple[str, str]]:
    return [
        ("api_version", "1.0"),
        ("message", message(content, size)),
        ("oauth_consumer_key", API_KEY),
        ("oauth_nonce", "3b5b1a3c5f0e4c1f9c2d0a7e6b8d4f10"),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", "1700000000"),
        ("oauth_version", "1.0"),
    ]


def tambur(content: str, size: str) -> Call:
    from tambur import signing

    names: dict[str, Any] = {
        "parameters": _parameters(content, size),
        "canonical_query_string": signing.canonical_query_string,
        "signature_base_string": signing.signature_base_string,
        "base_string_url": signing.base_string_url,
        "sign": signing.sign,
        "url": URL,
        "secret": SECRET,
    }
    return Call(
        "sign(signature_base_string(base_string_url(url), canonical_query_string(parameters)), secret)", names
    )


def oauthlib(content: str, size: str) -> Call:
    """The steps of its client that make a signature, of parameters that it has collected already."""
    from oauthlib.oauth1.rfc5849 import signature

    names: dict[str, Any] = {
        "parameters": _parameters(content, size),
        "normalize": signature.normalize_parameters,
        "base_string_uri": signature.base_string_uri,
        "signature_base_string": signature.signature_base_string,
        "sign": signature.sign_hmac_sha1,
        "url": URL,
        "secret": SECRET,
    }
    return Call(
        "sign(signature_base_string('POST', base_string_uri(url), normalize(parameters)), secret, None)",
        names,
    )


def oauthlib_client(content: str, size: str) -> Call:
    """Its public call: a whole request signed."""
    from oauthlib.oauth1 import SIGNATURE_TYPE_BODY, Client

    client = Client(API_KEY, client_secret=SECRET, signature_type=SIGNATURE_TYPE_BODY)
    body = {"api_version": "1.0", "message": message(content, size)}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return Call(
        "sign(url, 'POST', body, headers)",
        {"sign": client.sign, "url": URL, "body": body, "headers": headers},
    )


def tambur_request(content: str, size: str) -> Call:
    """Ours in the same sense: a whole request signed, ready to send."""
    from tambur import Tambur

    client = Tambur(API_KEY, APP_ID, SECRET, "127.0.0.1:8080")
    names = {"build": client.build_request, "message": message(content, size)}
    return Call("build('news', message, 1700000000, '3b5b1a3c5f0e4c1f9c2d0a7e6b8d4f10')", names)
