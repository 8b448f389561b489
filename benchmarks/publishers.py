"""One publish of a 128-byte message through each library's public call, over a connection that stays open."""

# Each function imports what it measures: a worker has one of them only.
# ruff: noqa: PLC0415

from __future__ import annotations

from urllib.parse import urlsplit

from .workers import Call

API_KEY = "30af96de47e3c58329045ff136a4a3ea"
APP_ID = "ws-bot-1"
SECRET = "wsbot"  # noqa: S105 - nobody else's
MESSAGE = "0123456789abcdef" * 8

TAMBUR_ANSWER = "HTTP/1.1 204 No Content\r\n\r\n"


def _json_answer(body: str, status: str = "200 OK") -> str:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"


PUSHER_ANSWER = _json_answer("{}")
CENT_ANSWER = _json_answer('{"result":{}}')
ABLY_ANSWER = _json_answer("{}", "201 Created")


def tambur(url: str) -> Call:
    from tambur import Tambur

    client = Tambur(API_KEY, APP_ID, SECRET, url)
    return Call("client.publish('news', message)", {"client": client, "message": MESSAGE})


PAIRS = [(f"stream-{i % 100}", MESSAGE) for i in range(10_000)]
SIZES = {"tambur_loop": 500, "tambur_many": 10_000, "pusher_batch": 10}


def tambur_loop(url: str) -> Call:
    from tambur import Tambur

    return Call(
        "for p in pairs: client.publish(*p)", {"client": Tambur.from_url(url), "pairs": PAIRS[:500]}, 1
    )


def tambur_many(url: str) -> Call:
    from tambur import Tambur

    return Call("client.publish_many(pairs)", {"client": Tambur.from_url(url), "pairs": PAIRS}, 1)


def pusher_batch(url: str) -> Call:
    events = [{"channel": stream, "name": "message", "data": text} for stream, text in PAIRS[:10]]
    return Call("client.trigger_batch(events)", pusher(url).names | {"events": events})


def requests_oauthlib(url: str) -> Call:
    """How the package of 2012 published: a connection for each message, signed by requests-oauthlib."""
    import requests
    from requests_oauthlib import OAuth1

    def publish(stream: str, message: str) -> bool:
        response = requests.post(  # noqa: S113 - neither had it a timeout
            f"{url}/app/{APP_ID}/stream/{stream}",
            data={"api_version": "1.0", "message": message},
            auth=OAuth1(API_KEY, client_secret=SECRET, signature_type="BODY"),
        )
        response.raise_for_status()
        return True

    return Call("publish('news', message)", {"publish": publish, "message": MESSAGE})


def pusher(url: str) -> Call:
    from pusher import Pusher

    where = urlsplit(url)
    client = Pusher("1", API_KEY, SECRET, ssl=False, host=where.hostname, port=where.port)
    return Call("client.trigger('news', 'message', message)", {"client": client, "message": MESSAGE})


def ably(url: str) -> Call:
    from ably.sync import AblyRestSync

    where = urlsplit(url)
    client = AblyRestSync(token="app.token", endpoint=where.hostname, port=where.port, tls=False)  # noqa: S106
    channel = client.channels.get("news")
    return Call("channel.publish('message', message)", {"channel": channel, "message": MESSAGE})


def cent(url: str) -> Call:
    from cent import Client, PublishRequest

    client = Client(f"{url}/api", API_KEY)
    names = {"client": client, "PublishRequest": PublishRequest, "message": MESSAGE}
    return Call("client.publish(PublishRequest(channel='news', data=message))", names)
