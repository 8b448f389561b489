"""What streams, users and subscribers may be called, and how a stream stands in a URL.

Section 1 of the protocol (docs/reference/protocol.md).
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from ..errors import ConfigurationError, InvalidNameError

Name: TypeAlias = str | bytes | int
"""How a caller may give a name or credential; :func:`to_text` has the rule."""

MAX_NAME_CODE_POINTS = 200

# Unicode's categories Cc (control) and Cs (surrogate): the first break log lines and terminals,
# the second have no UTF-8 form and so no token and no URL.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Kind(enum.Enum):
    """What a message is, and so who receives it: the third element of a ``msg`` (section 4)."""

    PUBLIC = "public"
    AUTH = "auth"
    PRIVATE = "private"
    PRESENCE = "presence"
    DIRECT = "direct"


class Destination(NamedTuple):
    """Where a publish goes: ``mystream``, ``auth:mystream`` or ``private:SUBSCRIBER_ID``.

    ``kind`` is PUBLIC, AUTH or PRIVATE; ``name`` is the stream, or the subscriber id of a private message.
    """

    kind: Kind
    name: str

    def __str__(self) -> str:
        return self.name if self.kind is Kind.PUBLIC else f"{self.kind.value}:{self.name}"


def to_text(value: object) -> str:
    """Return the text of a name or credential, in every form that the 2012 package took.

    Parameters:
        value: a ``str``; bytes in UTF-8; a number or an object with a ``__str__`` of its own, which count as
            ``str()`` gives them.

    Raises:
        ValueError: the rule that the value breaks, without the value, which may be a secret.
    """
    if isinstance(value, str):
        # The text alone: Python versions disagree on what str() and f-strings make of an enum of strings.
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray)):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError("must be UTF-8") from None
    # None, lists and plain objects have no __str__ of their own, and are mistakes.
    if isinstance(value, (int, float)) or type(value).__str__ is not object.__str__:
        return str(value)
    raise ValueError(f"must be a str, not {type(value).__name__}")


def _check_text(what: str, value: object) -> str:
    if type(value) is str:
        return value
    try:
        return to_text(value)
    except ValueError as error:
        raise InvalidNameError(f"{what} {error}: {value!r:.100}") from None


def _check(what: str, value: object) -> str:
    name = _check_text(what, value)
    if not name:
        raise InvalidNameError(f"{what} must not be empty")
    if len(name) > MAX_NAME_CODE_POINTS:
        raise InvalidNameError(
            f"{what} has {len(name)} characters, at most {MAX_NAME_CODE_POINTS} are allowed: {name[:40]!r}..."
        )
    # What is printable holds nothing forbidden, and is told in a tenth of the time.
    if not name.isprintable() and (found := _FORBIDDEN.search(name)):
        raise InvalidNameError(
            f"{what} holds {found[0]!r} at position {found.start()}; "
            f"control characters and lone surrogates are not allowed: {name!r}"
        )
    return name


def check_stream(stream: object) -> str:
    """Return the text of a stream name (without prefix).

    Raises:
        InvalidNameError: if it may not be one.
    """
    name = _check("a stream", stream)
    if name in ("private", ".", ".."):
        raise InvalidNameError(f"a stream may not be called {name!r}")
    if ":" in name and name.startswith(("auth:", "private:")):
        raise InvalidNameError(f"a stream's own name may not begin with 'auth:' or 'private:': {name!r}")
    return name


def _holds_colon(what: str, name: str) -> InvalidNameError:
    # A token's text joins its fields with ":"; docs/explanation/security.md shows the attack.
    return InvalidNameError(f"{what} may not hold ':': {name!r}")


def check_user_id(user_id: object) -> str:
    """Return the text of a user id.

    Raises:
        InvalidNameError: if it may not be one.
    """
    name = _check("a user id", user_id)
    if ":" in name:
        raise _holds_colon("a user id", name)
    return name


def check_subscriber_id(subscriber_id: object) -> str:
    """Return the text of a subscriber id.

    Raises:
        InvalidNameError: if it may not be one.
    """
    name = _check("a subscriber id", subscriber_id)
    if ":" in name:
        raise _holds_colon("a subscriber id", name)
    return name


def check_credential_name(what: str, name: object) -> str:
    """Return the text of an api_key or app_id; ``what`` says which of them it is.

    Raises:
        ConfigurationError: if it may not be one.
    """
    try:
        checked = _check(what, name)
    except InvalidNameError as error:
        raise ConfigurationError(str(error)) from None
    if ":" in checked or "/" in checked:
        raise ConfigurationError(f"{what} may not hold ':' or '/': {checked!r}")
    if checked in (".", ".."):
        # Every URL library takes such a path segment away.
        raise ConfigurationError(f"{what} may not be {checked!r}")
    return checked


def check_destination(destination: object) -> str:
    """Return the text of what a message is published to, prefix included.

    Raises:
        InvalidNameError: if it has none of the three forms of :func:`parse_destination`.
    """
    text = _check_text("a stream", destination)
    parse_destination(text)
    return text


def parse_destination(destination: object) -> Destination:
    """Take apart what a message is published to.

    Raises:
        InvalidNameError: if it has none of the three forms.
    """
    text = _check_text("a stream", destination)
    prefix, colon, name = text.partition(":")
    if colon and prefix == "auth":
        return Destination(Kind.AUTH, check_stream(name))
    if colon and prefix == "private":
        return Destination(Kind.PRIVATE, check_subscriber_id(name))
    return Destination(Kind.PUBLIC, check_stream(text))


def app_path(app_id: str) -> str:
    """The path that an app is published to, ``/app/APP_ID``."""
    return "/app/" + quote(app_id, safe="")


def stream_path(destination: str) -> str:
    """What follows :func:`app_path` in the URL of a publish: ``/stream/STREAM``.

    ``:`` stays as it is, as the 2012 clients send it; whatever else could end the path or lead
    to another one is percent-encoded.
    """
    return "/stream/" + quote(destination, safe=":")


def subscribe_path(api_key: str, app_id: str) -> str:
    """The path that an app's subscribers connect to, ``/API_KEY/APP_ID``."""
    return f"/{quote(api_key, safe='')}/{quote(app_id, safe='')}"


def split_publish_path(raw_path: bytes) -> tuple[str, bytes] | None:
    """Take apart ``/app/APP_ID/stream/STREAM`` as it stands in a request line.

    All that follows ``/stream/`` is the stream, decoded once: a bare ``/`` and an encoded one
    are the same name.

    Returns:
        The app id and the destination's bytes, or ``None`` for any other path. An app id that is no UTF-8
        is nobody's, so that too is ``None``.
    """
    match = re.fullmatch(rb"/app/([^/]+)/stream/(.*)", raw_path, re.DOTALL)
    if match is None:
        return None
    try:
        return unquote_to_bytes(match[1]).decode(), unquote_to_bytes(match[2])
    except UnicodeDecodeError:
        return None


def split_subscribe_path(raw_path: bytes) -> tuple[str, str] | None:
    """Take apart ``/API_KEY/APP_ID`` as it stands in a request line.

    Returns:
        The api key and the app id, or ``None`` for any other path.
    """
    match = re.fullmatch(rb"/([^/]+)/([^/]+)", raw_path)
    if match is None:
        return None
    try:
        return unquote_to_bytes(match[1]).decode(), unquote_to_bytes(match[2]).decode()
    except UnicodeDecodeError:
        return None
