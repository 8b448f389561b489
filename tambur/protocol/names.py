"""The names of streams, users, subscribers and apps: section 1 of the protocol."""

from __future__ import annotations

import enum
import re
from typing import NamedTuple, TypeAlias

from ..errors import ConfigurationError, InvalidNameError

Name: TypeAlias = str | bytes | int
"""A name or credential as a caller may give it; :func:`to_text` has the rule."""

MAX_NAME_CODE_POINTS = 200

SUBSCRIBER_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
"""A subscriber ID as a server makes it: a UUID. The tokens of an application may name any other text."""


def mask_subscriber_ids(text: str) -> str:
    """Replace each text that has the form of a subscriber ID, for a log.

    Anyone who learns the ID of a subscriber that polls can read its messages.
    """
    return SUBSCRIBER_ID.sub("SUBSCRIBER_ID", text)


# Unicode's categories Cc (control) and Cs (surrogate). Control characters break log lines and terminals.
# Surrogates have no UTF-8 form, and so no token and no URL.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Kind(enum.Enum):
    """The kind of a message, which decides who receives it: the third element of a ``msg`` (section 4)."""

    PUBLIC = "public"
    AUTH = "auth"
    PRIVATE = "private"
    PRESENCE = "presence"
    DIRECT = "direct"


class Destination(NamedTuple):
    """The target of a publish: ``mystream``, ``auth:mystream`` or ``private:SUBSCRIBER_ID``.

    Attributes:
        kind: PUBLIC, AUTH or PRIVATE.
        name: the stream without its prefix; for PRIVATE, the subscriber ID.
    """

    kind: Kind
    name: str


def to_text(value: object) -> str:
    """Return the text of a name or credential, in every form that the 2012 package accepted.

    Parameters:
        value: a ``str``; bytes in UTF-8; a number or an object with its own ``__str__``, which is used
            as ``str()`` gives it.

    Raises:
        ValueError: with the rule that the value breaks, but without the value, which may be a secret.
    """
    if isinstance(value, str):
        # The plain text: Python versions disagree on str() and f-strings of a str enum.
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray)):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError("must be UTF-8") from None
    # None, lists and plain objects have no __str__ of their own. They are mistakes.
    if isinstance(value, (int, float)) or type(value).__str__ is not object.__str__:
        return str(value)
    raise ValueError(f"must be a str, not {type(value).__name__}")


def _to_text(what: str, value: object) -> str:
    if type(value) is str:
        return value
    try:
        return to_text(value)
    except ValueError as error:
        raise InvalidNameError(f"{what} {error}: {value!r:.100}") from None


def _check(what: str, value: object) -> str:
    name = _to_text(what, value)
    if not name:
        raise InvalidNameError(f"{what} must not be empty")
    if len(name) > MAX_NAME_CODE_POINTS:
        raise InvalidNameError(
            f"{what} must have at most {MAX_NAME_CODE_POINTS} characters, not {len(name)}: {name[:40]!r}..."
        )
    # isprintable takes a tenth of the time, and printable text contains nothing forbidden.
    if not name.isprintable() and (found := _FORBIDDEN.search(name)):
        raise InvalidNameError(
            f"{what} must not contain control characters or lone surrogates: "
            f"{found[0]!r} at position {found.start()} of {name!r}"
        )
    return name


def _check_without_colon(what: str, value: object) -> str:
    name = _check(what, value)
    if ":" in name:
        # A token's text joins its fields with ":". A ":" in an ID would move the border between two fields.
        raise InvalidNameError(f"{what} must not contain ':': {name!r}")
    return name


def check_stream(stream: object) -> str:
    """Return the text of a stream's name, which has no prefix.

    Raises:
        InvalidNameError: if the name is invalid.
    """
    name = _check("a stream name", stream)
    if name in ("private", ".", ".."):
        raise InvalidNameError(f"a stream must not be named {name!r}")
    if ":" in name and name.startswith(("auth:", "private:")):
        raise InvalidNameError(
            f"a stream name must not begin with 'auth:' or 'private:' except to publish: {name!r}"
        )
    return name


def check_prefix(prefix: object) -> str:
    """Return the text of the beginning of a stream's name; it may be empty.

    Raises:
        InvalidNameError: if no name can begin so.
    """
    text = _to_text("a prefix", prefix)
    return _check("a prefix", text) if text else ""


def check_user_id(user_id: object) -> str:
    """Return the text of a user ID.

    Raises:
        InvalidNameError: if the ID is invalid.
    """
    return _check_without_colon("a user ID", user_id)


def check_subscriber_id(subscriber_id: object) -> str:
    """Return the text of a subscriber ID.

    Raises:
        InvalidNameError: if the ID is invalid.
    """
    return _check_without_colon("a subscriber ID", subscriber_id)


def check_credential_name(what: str, name: object) -> str:
    """Return the text of an API key or app ID.

    Parameters:
        what: ``"api_key"`` or ``"app_id"``, for the error.

    Raises:
        ConfigurationError: if the name is invalid.
    """
    try:
        checked = _check(what, name)
    except InvalidNameError as error:
        raise ConfigurationError(str(error)) from None
    if ":" in checked or "/" in checked:
        raise ConfigurationError(f"{what} must not contain ':' or '/': {checked!r}")
    if checked in (".", ".."):
        # Every URL library removes such a path segment.
        raise ConfigurationError(f"{what} must not be {checked!r}")
    return checked


def check_destination(destination: object) -> str:
    """Return the text of a publish's destination, prefix included.

    Raises:
        InvalidNameError: if it has none of the three forms of a :class:`Destination`.
    """
    text = _to_text("a stream name", destination)
    parse_destination(text)
    return text


def parse_destination(destination: object) -> Destination:
    """Split a publish's destination into its kind and its name.

    Raises:
        InvalidNameError: if it has none of the three forms of a :class:`Destination`.
    """
    text = _to_text("a stream name", destination)
    prefix, colon, name = text.partition(":")
    if colon and prefix == "auth":
        return Destination(Kind.AUTH, check_stream(name))
    if colon and prefix == "private":
        return Destination(Kind.PRIVATE, check_subscriber_id(name))
    return Destination(Kind.PUBLIC, check_stream(text))
