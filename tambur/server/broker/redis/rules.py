"""How much of each log Redis keeps, as the configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...config import App, Limits
from ...history import DIRECT_SHARE
from .. import AppKey, is_direct_log, is_private_log
from .keys import scope

MAX_FLOOR_BYTES = 400
"""The most bytes of Redis that the floor of a log takes."""

QUIET_SHARE = 4
"""The floors of quiet logs take at most this share of ``max_history_bytes``: a quarter."""

_US = 1_000_000  # microseconds in a second


class Rule(NamedTuple):
    """The limits of one log.

    Attributes:
        budget: the name of the budget that counts its bytes.
        max_messages: how many messages it may have.
        ttl: how long a message is kept, in microseconds.
        max_bytes: how many bytes all logs of the budget may have.
    """

    budget: str
    max_messages: int
    ttl: int
    max_bytes: int


class Rules:
    """The rules of all logs.

    Parameters:
        apps: the apps of the cluster.
        limits: the limits for all logs for which an app has no rule of its own.
    """

    def __init__(self, apps: Sequence[App], limits: Limits) -> None:
        self.limits = limits
        self.apps = [app.key for app in apps]
        self.max_floors = max(1, limits.max_history_bytes // QUIET_SHARE // MAX_FLOOR_BYTES)
        self._defaults: dict[AppKey, Rule] = {}
        self._own = {
            app.key: [
                (
                    kept,
                    Rule(
                        f"{scope(app.key)}:{kept.streams}",
                        kept.messages,
                        round(kept.ttl_s * _US),
                        kept.max_bytes,
                    ),
                )
                for kept in app.history
            ]
            for app in apps
            if app.history
        }

    def of(self, app: AppKey, log: str) -> Rule:
        """The rule of a log."""
        if is_direct_log(log):
            return self._direct(app)
        if app in self._own and not is_private_log(log):
            for kept, rule in self._own[app]:
                if kept.matches(log):
                    return rule
        return self._default(app)

    def has_own(self, app: AppKey) -> bool:
        """Whether an app has rules of its own."""
        return app in self._own

    def budgets(self, app: AppKey) -> list[Rule]:
        """One rule of each budget of an app."""
        return [self._default(app), self._direct(app), *(rule for _, rule in self._own.get(app, ()))]

    def _default(self, app: AppKey) -> Rule:
        rule = self._defaults.get(app)
        if rule is None:
            limits = self.limits
            ttl = round(limits.history_ttl_s * _US)
            rule = self._defaults[app] = Rule(
                scope(app), limits.history_messages, ttl, limits.max_history_bytes
            )
        return rule

    def _direct(self, app: AppKey) -> Rule:
        budget, max_messages, ttl, max_bytes = self._default(app)
        return Rule(f"{budget}/direct", max_messages, ttl, max_bytes // DIRECT_SHARE)
