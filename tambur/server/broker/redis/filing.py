"""Each log is filed under the budget that counts its bytes. A changed configuration may name another one."""

from __future__ import annotations

import itertools

from .. import AppKey
from . import scripts
from .keys import Keys, scope
from .link import Link
from .rules import Rules

NAMES_READ_AT_ONCE = 1000
"""About how many names of logs one call reads."""

LOGS_AT_ONCE = 20
"""Logs that one script files anew. It reads all their messages, and everything else in Redis waits for it."""


async def refile(link: Link, keys: Keys, rules: Rules) -> None:
    """File each log that has messages under the budget that the rules name.

    Otherwise new rules would count only for streams without messages, and those of an entry that was removed
    would stay for ever.
    """
    found = [name.decode() for name in await link.call("HKEYS", keys.bytes)]
    for app in rules.apps:
        # Those of direct messages, with "/", never change.
        of_app = [name for name in found if name == scope(app) or name.startswith(f"{scope(app)}:")]
        if not rules.has_own(app) and of_app in ([], [scope(app)]):
            continue  # there is only one, and it may have very many logs
        for budget in of_app:
            await _refile(link, keys, rules, app, budget)


async def _refile(link: Link, keys: Keys, rules: Rules, app: AppKey, budget: str) -> None:
    arguments = keys.prefix, scope(app), budget
    cursor = b""
    while cursor != b"0":
        scan = "ZSCAN", keys.kept(budget), cursor or b"0", "COUNT", NAMES_READ_AT_ONCE
        cursor, names_and_places = await link.call(*scan)
        names = [name.decode() for name in names_and_places[::2]]
        moving = [(name, other) for name in names if (other := rules.of(app, name).budget) != budget]
        for i in range(0, len(moving), LOGS_AT_ONCE):
            pairs = itertools.chain.from_iterable(moving[i : i + LOGS_AT_ONCE])
            await link.call(*scripts.REFILE(*arguments, *pairs, keys=()))
    await link.call(*scripts.REFILE(*arguments, keys=()))  # forgets the bytes of an empty budget
