"""Reading the logs in Redis. The script ``read.lua`` has the form of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from .. import AppKey, BrokerUnavailableError, Publication
from . import scripts
from .keys import decode_entry, scope
from .link import RETRY_AFTER_S, Link
from .rules import Rules
from .shard import Shard

NO_PLACE = 2**53 - 1
"""Above all places: Redis' scripts know integers up to it."""


class Log(NamedTuple):
    """The name of one log."""

    app: AppKey
    name: str


class Part(NamedTuple):
    """Some consecutive entries of a log.

    Attributes:
        floor: the entries are all that the log ever had above this place.
        is_whole: whether the log has no older entries.
        newest_first: the entries.
    """

    floor: int
    is_whole: bool
    newest_first: Sequence[Publication]


class Read(NamedTuple):
    """The answer to one read.

    Attributes:
        last: the last place of the shard. The node has received everything up to it.
        parts: what was read; ``None`` for a log of a session that another node continues. Logs for which
            the answer had no room are missing.
    """

    last: int
    parts: dict[Log, Part | None]


class LogReader:
    """Reads logs.

    Parameters:
        shard: the Redis.
        rules: how long entries are kept.
    """

    def __init__(self, shard: Shard, rules: Rules) -> None:
        self._shard = shard
        self._rules = rules

    async def read(
        self,
        link: Link,
        wanted: Iterable[tuple[Log, int, int]],
        on_last: Callable[[int], None] = lambda _: None,
    ) -> Read:
        """Read the newest entries of logs, about 1 MiB.

        Parameters:
            wanted: logs, each with two places: entries above the first one and up to the second one are read.
            on_last: called with the last place, in its turn among the messages.

        Raises:
            BrokerUnavailableError: nothing was read.
        """
        shard, asked = self._shard, list(wanted)
        arguments: list[Any] = []
        for log, since, upper in asked:
            arguments += [scope(log.app), log.name, self._rules.of(*log).ttl, since, upper]
        head, reached = shard.ask_place(link, on_last)
        command = scripts.READ(
            shard.keys.prefix, shard.epoch.name, shard.node, shard.node_key, head, *arguments, keys=()
        )
        answer = await link.call(*command)
        if answer == 0:
            # No reply follows among the messages. The node enters again, and learns the new epoch.
            error = BrokerUnavailableError("Redis lost messages", RETRY_AFTER_S)
            link.fail(error)
            raise error
        last = await reached
        parts: dict[Log, Part | None] = {}
        for (log, _, _), found in zip(asked, answer[1:], strict=True):
            if found == 1:
                parts[log] = None
            elif found != 0:
                parts[log] = parse_part(log, found)
        return Read(last, parts)


def parse_part(log: Log, found: Sequence[Any]) -> Part:
    """Decode what a script has read of a log."""
    floor, is_whole, entries = found
    return Part(int(floor), bool(is_whole), [decode_entry(*log, entry) for entry in entries])
