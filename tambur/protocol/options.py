"""The options of ``hello`` and ``subscribe`` on an extended connection: section 7 of the protocol."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import InvalidNameError
from .names import check_user_id
from .tokens import Mode

MAX_LAST = 1000
"""How many of the newest messages a client may ask for."""


class HelloOptions(NamedTuple):
    """The options of a ``hello``.

    Attributes:
        session: the key of the session to continue; ``None`` to start one.
        since: the position after which private messages are replayed; ``None`` for no replay.
    """

    session: str | None = None
    since: str | None = None


class AsUser(NamedTuple):
    """A user to be in a mode, and the token that proves it."""

    user_id: str
    token: str


class SubscribeOptions(NamedTuple):
    """The options of a ``subscribe``.

    Attributes:
        since: the position after which messages are replayed; ``None`` for no such replay.
        last: how many of the newest messages are replayed; ``None`` for none. Excludes ``since``.
        auth: a token that enables auth mode in the same step; ``None`` to leave it off.
        presence: the user to enable presence mode for in the same step; ``None`` to leave it off.
        direct: the user to enable direct mode for in the same step; ``None`` to leave it off.
    """

    since: str | None = None
    last: int | None = None
    auth: str | None = None
    presence: AsUser | None = None
    direct: AsUser | None = None

    def modes(self) -> dict[Mode, str | None]:
        """The modes to enable, each with the user to enable it for; ``None`` for auth mode."""
        found: dict[Mode, str | None] = {}
        if self.auth is not None:
            found[Mode.AUTH] = None
        if self.presence is not None:
            found[Mode.PRESENCE] = self.presence.user_id
        if self.direct is not None:
            found[Mode.DIRECT] = self.direct.user_id
        return found


class InvalidOptionsError(Exception):
    """The options are not an object, or a member has a wrong type or value."""


def parse_hello_options(options: object) -> HelloOptions:
    """Check the options of a ``hello``; members with other names are ignored.

    Raises:
        InvalidOptionsError: if they break a rule.
    """
    members = _members(options)
    return HelloOptions(_text(members, "session"), _text(members, "since"))


def parse_subscribe_options(options: object) -> SubscribeOptions:
    """Check the options of a ``subscribe``; members with other names are ignored.

    Raises:
        InvalidOptionsError: if they break a rule.
    """
    members = _members(options)
    last = members.get("last")
    if "last" in members and (type(last) is not int or not 0 <= last <= MAX_LAST or "since" in members):
        raise InvalidOptionsError
    return SubscribeOptions(
        since=_text(members, "since"),
        last=last if isinstance(last, int) else None,
        auth=_text(members, "auth"),
        presence=_as_user(members, "presence"),
        direct=_as_user(members, "direct"),
    )


def _members(options: object) -> dict[str, object]:
    if not isinstance(options, dict):
        raise InvalidOptionsError
    return options


def _text(members: dict[str, object], name: str) -> str | None:
    if name not in members:
        return None
    value = members[name]
    if not isinstance(value, str):
        raise InvalidOptionsError
    return value


def _as_user(members: dict[str, object], name: str) -> AsUser | None:
    if name not in members:
        return None
    match members[name]:
        case [str(user_id), str(token)]:
            try:
                return AsUser(check_user_id(user_id), token)
            except InvalidNameError:
                raise InvalidOptionsError from None
    raise InvalidOptionsError
