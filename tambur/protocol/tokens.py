"""Mode tokens: what an application gives to a client that it vouches for. Section 3 of the protocol."""

from __future__ import annotations

import enum
import hmac

from .hmac_sha1 import HmacSha1
from .names import Name, check_stream, check_subscriber_id, check_user_id


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

    __slots__ = ("_hash",)

    def __init__(self, api_key: str, app_id: str, secret: str) -> None:
        self._hash = HmacSha1(secret.encode(), f"{api_key}:{app_id}:".encode()).hash

    def auth(self, stream: Name, subscriber_id: Name) -> str:
        """Make a token for the auth mode.

        Raises:
            InvalidNameError: if one of them may not be one, as in the other methods.
        """
        return self._hash(f"auth:{check_stream(stream)}:{check_subscriber_id(subscriber_id)}").hexdigest()

    def presence(self, stream: Name, user_id: Name, subscriber_id: Name) -> str:
        """Make a token for the presence mode."""
        return self._sign_for_user("presence", stream, user_id, subscriber_id)

    def direct(self, stream: Name, user_id: Name, subscriber_id: Name) -> str:
        """Make a token for the direct mode."""
        return self._sign_for_user("direct", stream, user_id, subscriber_id)

    def sign(self, mode: Mode, stream: Name, subscriber_id: Name, user_id: Name | None = None) -> str:
        """Make a token.

        Parameters:
            stream: its name, without prefix.
            user_id: whom the client is to be, ``None`` for the auth mode, which has no users.

        Raises:
            InvalidNameError: if one of them may not be one.
        """
        if mode is Mode.AUTH:
            return self.auth(stream, subscriber_id)
        return self._sign_for_user(mode.value, stream, user_id, subscriber_id)

    def _sign_for_user(self, mode: str, stream: Name, user_id: Name | None, subscriber_id: Name) -> str:
        user = check_user_id(user_id)
        text = f"{mode}:{check_stream(stream)}:{user}:{check_subscriber_id(subscriber_id)}"
        return self._hash(text).hexdigest()

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
