"""The names of keys and channels in Redis, and the form of messages. docs/how-to/redis.md lists them."""

from __future__ import annotations

from ....protocol.names import Kind
from .. import AppKey, Entry, Publication, direct_log, is_private_log, private_log

_KINDS = {kind.value.encode(): kind for kind in Kind}


def scope(app: AppKey) -> str:
    """The part of a key that names an app. No API key or app ID contains "/" or ":", so it is unique."""
    return f"{app.api_key}/{app.app_id}"


def encode_entry(entry: Entry) -> bytes:
    """The form of an entry. No name contains a line break."""
    return f"{scope(entry.app)}:{entry.stream}\n{entry.user_id}\n{entry.subscriber_id}".encode()


class Keys:
    """The keys and channels of one cluster.

    Parameters:
        database: the number of its database. Redis separates the keys of databases, but not their channels.
    """

    def __init__(self, database: int) -> None:
        self.prefix = f"tambur:{database}:".encode()
        self.links = self.prefix + b"links"
        self.leases = self.prefix + b"leases"
        self.stopped = self.prefix + b"stopped"
        self.shard = self.prefix + b"shard"
        self.nodes = self.prefix + b"nodes"
        self.bytes = self.prefix + b"bytes"

    def claims(self, app: AppKey, timestamp: int) -> bytes:
        """The claims of an app's requests with one timestamp."""
        return self._key("claims", f"{scope(app)}:{timestamp}")

    def node(self, node: str) -> bytes:
        """The set of a node's entries, and the name of the channel that only this node listens to."""
        return self._key("node", node)

    def stream(self, app: AppKey, stream: str) -> bytes:
        """The channel of a stream."""
        return self._key("stream", f"{scope(app)}:{stream}")

    def log(self, app: AppKey, log: str) -> bytes:
        """A list: the kept messages of a log."""
        return self._key("log", f"{scope(app)}:{log}")

    def kept(self, budget: str) -> bytes:
        """The logs of a budget that have messages, by the place of their oldest one or an earlier place."""
        return self._key("kept", budget)

    def present(self, app: AppKey, stream: str) -> bytes:
        """The users of a stream, each with the number of its connections."""
        return self._key("present", f"{scope(app)}:{stream}")

    def events(self, queue: str) -> bytes:
        """The events in a queue of webhooks."""
        return self._key("events", queue)

    def due(self, queue: str) -> bytes:
        """When the events in a queue of webhooks are due."""
        return self._key("due", queue)

    def revoked(self, app: AppKey) -> tuple[bytes, bytes]:
        """The disconnected subscribers of an app, and its disconnected users."""
        return self._key("revoked-subscribers", scope(app)), self._key("revoked-users", scope(app))

    def _key(self, kind: str, rest: str) -> bytes:
        return self.prefix + f"{kind}:{rest}".encode()


def log_of(publication: Publication) -> str:
    """The name of the log that keeps a message."""
    if publication.kind is Kind.PRIVATE:
        return private_log(publication.name)
    if publication.kind is Kind.DIRECT:
        return direct_log(publication.name, publication.user_id or "")
    return publication.name


def encode(publication: Publication) -> bytes:
    """The message for the channel of a publication."""
    app, kind, name, event, user_id, *_ = publication
    excluded = publication.excluded or ""
    if kind is Kind.PRIVATE:
        head = f"private\n{app.api_key}\n{app.app_id}\n{name}\n{excluded}\n"
    else:
        head = f"{kind.value}\n{user_id or ''}\n{excluded}\n"
    return head.encode() + event


def decode_private(data: bytes, place: int) -> Publication:
    """Decode a private message from :func:`encode`."""
    _, api_key, app_id, subscriber_id, excluded, event = data.split(b"\n", 5)
    app = AppKey(api_key.decode(), app_id.decode())
    return Publication(
        app,
        Kind.PRIVATE,
        subscriber_id.decode(),
        event,
        place=place,
        excluded=excluded.decode() or None,
    )


def decode(app: AppKey, stream: str, data: bytes, place: int) -> Publication:
    """Decode a message to a stream from :func:`encode`."""
    kind, user_id, excluded, event = data.split(b"\n", 3)
    user = user_id.decode() if user_id else None
    return Publication(
        app, _KINDS[kind], stream, event, user, 0, place, excluded.decode() if excluded else None
    )


def decode_entry(app: AppKey, log: str, entry: bytes) -> Publication:
    """Decode an entry of a log: the place, a space, and the message."""
    place, _, data = entry.partition(b" ")
    if is_private_log(log):
        return decode_private(data, int(place))
    return decode(app, log.partition("\n")[0], data, int(place))
