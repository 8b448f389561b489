"""Mode tokens: what an application gives to a client that it vouches for. Section 3 of the protocol."""

from __future__ import annotations

import enum
import hashlib
import hmac

from .names import check_stream, check_subscriber_id, check_user_id


class Mode(enum.Enum):
    """What a client turns on with a token."""

    AUTH = "auth"
    PRESENCE = "presence"
    DIRECT = "direct"


class TokenSigner:
    """Makes and checks the tokens of one app with one secret.

    A token is the lower-case hexadecimal HMAC-SHA1 over the fields joined with ``:``. A stream may hold
    ``:``, so no other field may: else a token for one stream would be one for another, too.
    """

    __slots__ = ("_hmac",)

    def __init__(self, api_key: str, app_id: str, secret: str) -> None:
        # Copied for each token: the key and what every text begins with are hashed once.
        self._hmac = hmac.new(secret.encode(), f"{api_key}:{app_id}:".encode(), hashlib.sha1)

    def sign(self, mode: Mode, stream: str, subscriber_id: str, user_id: str | None = None) -> str:
        """Make a token.

        Parameters:
            stream: its name, without prefix.
            user_id: whom the client is to be, ``None`` for the auth mode, which has no users.

        Raises:
            InvalidNameError: if one of them may not be one.
        """
        user = "" if mode is Mode.AUTH else f"{check_user_id(user_id)}:"
        signed = self._hmac.copy()
        signed.update(
            f"{mode.value}:{check_stream(stream)}:{user}{check_subscriber_id(subscriber_id)}".encode()
        )
        return signed.hexdigest()

    def auth(self, stream: str, subscriber_id: str) -> str:
        """Make a token for the auth mode."""
        return self.sign(Mode.AUTH, stream, subscriber_id)

    def presence(self, stream: str, user_id: str, subscriber_id: str) -> str:
        """Make a token for the presence mode."""
        return self.sign(Mode.PRESENCE, stream, subscriber_id, user_id)

    def direct(self, stream: str, user_id: str, subscriber_id: str) -> str:
        """Make a token for the direct mode."""
        return self.sign(Mode.DIRECT, stream, subscriber_id, user_id)

    def verify(
        self, token: str, mode: Mode, stream: str, subscriber_id: str, user_id: str | None = None
    ) -> bool:
        """Whether ``token`` is the one that :meth:`sign` makes; the time taken does not tell how near it is.

        Raises:
            InvalidNameError: if a name may not be one.
        """
        expected = self.sign(mode, stream, subscriber_id, user_id)
        # Whatever else is in a token is simply wrong, lone surrogates included.
        return hmac.compare_digest(expected.encode(), token.encode("utf-8", "surrogatepass"))
