"""The Lua scripts of the Redis broker. Redis runs each as one atomic step.

Each file of ``lua/`` is a script or a part of several. Its first line may name the parts that it ``needs``.

A connection's presence is an entry, ``SCOPE\\nUSER_ID\\nSUBSCRIBER_ID`` with the scope
``API_KEY/APP_ID:STREAM``. No name contains a line break. Every entry stands in the set of the node that has
the connection, and is counted for its user in the hash of its stream. docs/how-to/redis.md lists all keys.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

from ....protocol.session_keys import KEYS_OF_CONNECTION
from ..webhooks import MAX_AGE_S

MAX_READ_BYTES = 1024 * 1024
"""Bytes of entries that one script reads; everything else in Redis waits for it."""

TENDED_AT_ONCE = 100
"""Logs, entries of a log, and floors that one script looks at to find expired ones."""

_CONSTANTS = {
    "EVENTS_S": MAX_AGE_S,  # for which events wait for webhooks
    "MAX_READ_BYTES": MAX_READ_BYTES,
    "TENDED_AT_ONCE": TENDED_AT_ONCE,
    "ENTRY_BYTES": 16,  # of an entry of a log, beside its text
    "KEYS_OF_CONNECTION": KEYS_OF_CONNECTION,
    "LOG_BYTES": 400,  # of a log, without its entries and twice its name
}
_NEEDS = "-- needs: "
_DIRECTORY = resources.files("tambur.server.broker.redis") / "lua"


class Script:
    """One script. Redis knows it by the digest of its text.

    Parameters:
        names: the files of the script, in their order. Files that they need precede them, once.
    """

    def __init__(self, *names: str) -> None:
        constants = "".join(f"local {name} = {value}\n" for name, value in _CONSTANTS.items())
        parts: dict[str, str] = {}
        for name in names:
            _collect(name, parts)
        self.text = constants + "".join(parts.values())
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, *arguments: Any, keys: tuple[bytes, ...]) -> tuple[Any, ...]:
        """The command that runs it."""
        return ("EVALSHA", self.digest, len(keys), *keys, *arguments)


def _collect(name: str, parts: dict[str, str]) -> None:
    text = _DIRECTORY.joinpath(f"{name}.lua").read_text("utf-8")
    first_line = text.partition("\n")[0]
    if first_line.startswith(_NEEDS):
        for needed in first_line.removeprefix(_NEEDS).split(", "):
            if needed not in parts:
                _collect(needed, parts)
    parts[name] = text


SEND = Script("send")
NODES = Script("nodes")
DIRECT = Script("direct")
PUBLISH = Script("publish")
BATCH = Script("batch")
ENTER = Script("enter", "renew")
LEASE = Script("fence", "renew")
JOIN = Script("join")
PRESENT = Script("present")
LEAVE = Script("leave")
SWEEP = Script("sweep")
NEED = Script("need")
READ = Script("read")
TEND = Script("tend")
REFILE = Script("refile")
RESUME = Script("resume")
REVOKE = Script("revoke")
OWN = Script("own")
TAKE = Script("take")
FINISH = Script("finish")
RETRY = Script("retry")

ALL = (
    *(SEND, NODES, DIRECT, PUBLISH, BATCH, ENTER, LEASE, JOIN, PRESENT, LEAVE, SWEEP),
    *(NEED, READ, TEND, REFILE, RESUME, REVOKE, OWN, TAKE, FINISH, RETRY),
)
