"""The signed body of one publish, by each."""

# Each function imports what it measures: a worker has one of them only.
# ruff: noqa: PLC0415

from __future__ import annotations

import json

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


def tambur(content: str, size: str) -> Call:
    """The body of a publish, signed."""
    from tambur.protocol import oauth as signing

    statement = (
        "sign(base_string_url(url), message, api_key=key, secret=secret, timestamp=1700000000, nonce=nonce)"
    )
    names = {
        "sign": signing.sign_publish,
        "base_string_url": signing.base_string_url,
        "url": URL,
        "message": message(content, size),
        "key": API_KEY,
        "secret": SECRET,
        "nonce": "3b5b1a3c5f0e4c1f9c2d0a7e6b8d4f10",
    }
    return Call(statement, names)


def oauthlib(content: str, size: str) -> Call:
    """The same: the signed body of a request, whose parameters it has collected and added its own to."""
    from oauthlib.oauth1 import SIGNATURE_TYPE_BODY, Client

    client = Client(API_KEY, client_secret=SECRET, signature_type=SIGNATURE_TYPE_BODY)
    body = {"api_version": "1.0", "message": message(content, size)}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    names = {"sign": client.sign, "url": URL, "body": body, "headers": headers}
    return Call("sign(url, 'POST', body, headers)", names)
