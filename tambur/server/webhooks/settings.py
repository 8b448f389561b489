"""The settings of one endpoint of webhooks."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ...protocol.webhooks import MAX_SECRET_BYTES, MIN_SECRET_BYTES, TYPES, decode_secret
from ..settings import SettingError, require


@dataclass(frozen=True)
class Webhook:
    """An endpoint of the app that receives events: one ``[[apps.webhooks]]``.

    Attributes:
        url: where the requests go.
        secret: signs them; ``whsec_`` and 24 to 64 bytes in base64.
        events: the types that it receives.
    """

    url: str
    secret: str = field(repr=False)
    events: tuple[str, ...] = TYPES

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            is_valid = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
            is_valid = is_valid and "@" not in parts.netloc and "#" not in self.url
            (parts.hostname or "").encode("idna")  # as a look-up does
        except ValueError:  # of the port, of an IPv6 address, or of a part of the host name
            is_valid = False
        require(
            is_valid and self.url.isascii() and self.url.isprintable() and " " not in self.url,
            "url",
            "must be an http or https URL in ASCII, without a user name, a password and a fragment"
            # Otherwise part of it may be a password.
            + (f", not {self.url!r}" if "@" not in self.url else ""),
        )
        try:
            size = len(decode_secret(self.secret))
        except ValueError as error:
            raise SettingError("secret", str(error)) from None
        require(
            MIN_SECRET_BYTES <= size <= MAX_SECRET_BYTES,
            "secret",
            f"must hold {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, not {size}",
        )
        require(self.events, "events", "must name at least one type")
        for name in self.events:
            require(name in TYPES, "events", f"takes {' and '.join(map(repr, TYPES))}, not {name!r}")
