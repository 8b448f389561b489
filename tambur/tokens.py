"""Mode tokens: what an application gives to a client that it vouches for. Section 3 of the protocol."""

from __future__ import annotations

import enum
import hashlib
import hmac

from .names import check_stream, check_subscriber_id, check_user_id

_BLOCK_BYTES = 64  # of SHA-1


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

    __slots__ = ("_inner", "_outer")

    def __init__(self, api_key: str, app_id: str, secret: str) -> None:
        key = secret.encode()
        if len(key) > _BLOCK_BYTES:
            key = hashlib.sha1(key, usedforsecurity=False).digest()
        key = key.ljust(_BLOCK_BYTES, b"\0")
        # The two hashes of RFC 2104, copied for each token: the key and what every text begins with are
        # hashed once, at half the price of an hmac object's copy.
        self._inner = hashlib.sha1(bytes(byte ^ 0x36 for byte in key), usedforsecurity=False)
        self._inner.update(f"{api_key}:{app_id}:".encode())
        self._outer = hashlib.sha1(bytes(byte ^ 0x5C for byte in key), usedforsecurity=False)

    def auth(self, stream: str, subscriber_id: str) -> str:
        """Make a token for the auth mode.

        Raises:
            InvalidNameError: if one of them may not be one, as in the other methods.
        """
        return self._sign(f"auth:{check_stream(stream)}:{check_subscriber_id(subscriber_id)}")

    def presence(self, stream: str, user_id: str, subscriber_id: str) -> str:
        """Make a token for the presence mode."""
        return self._sign_for_user("presence", stream, user_id, subscriber_id)

    def direct(self, stream: str, user_id: str, subscriber_id: str) -> str:
        """Make a token for the direct mode."""
        return self._sign_for_user("direct", stream, user_id, subscriber_id)

    def sign(self, mode: Mode, stream: str, subscriber_id: str, user_id: str | None = None) -> str:
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

    def _sign_for_user(self, mode: str, stream: str, user_id: str | None, subscriber_id: str) -> str:
        user_id = check_user_id(user_id)
        return self._sign(f"{mode}:{check_stream(stream)}:{user_id}:{check_subscriber_id(subscriber_id)}")

    def _sign(self, text: str) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return outer.hexdigest()

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
