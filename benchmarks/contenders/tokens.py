"""One token that lets a subscriber into something, by each."""

# Each function imports what it measures: a worker has one of them only.
# ruff: noqa: PLC0415

from __future__ import annotations

from ..worker import Call
from .publishers import API_KEY, APP_ID, SECRET

SUBSCRIBER_ID = "a0629978-28d8-4fd4-b862-f67e9b6dfd8f"


def hmac_new() -> Call:
    """The standard library alone: the text joined and hashed, nothing checked."""
    import hashlib
    import hmac

    names = {
        "new": hmac.new,
        "sha1": hashlib.sha1,
        "api_key": API_KEY,
        "app_id": APP_ID,
        "secret": SECRET,
        "stream": "test",
        "subscriber_id": SUBSCRIBER_ID,
    }
    text = "f'{api_key}:{app_id}:auth:{stream}:{subscriber_id}'"
    return Call(f"new(secret.encode(), {text}.encode(), sha1).hexdigest()", names)


def tambur() -> Call:
    from tambur import Tambur

    client = Tambur(API_KEY, APP_ID, SECRET, "127.0.0.1:8080")
    names = {"client": client, "stream": "test", "subscriber_id": SUBSCRIBER_ID}
    return Call("client.generate_auth_token(stream, subscriber_id)", names)


def itsdangerous() -> Call:
    from itsdangerous import Signer

    names = {"signer": Signer(SECRET), "stream": "test", "subscriber_id": SUBSCRIBER_ID}
    return Call("signer.get_signature(f'auth:{stream}:{subscriber_id}')", names)


def pusher() -> Call:
    from pusher import Pusher

    client = Pusher("1", API_KEY, SECRET)
    names = {"client": client, "channel": "private-test", "socket_id": "1234.5678"}
    return Call("client.authenticate(channel, socket_id)", names)
