"""Mode tokens, which let a subscriber enable a mode: section 3 of the protocol."""

from __future__ import annotations

import enum
import hmac

from .names import Name, check_stream, check_subscriber_id, check_user_id


class Mode(enum.Enum):
    """A mode that a subscriber enables with a token."""

    AUTH = "auth"
    PRESENCE = "presence"
    DIRECT = "direct"


class TokenSigner:
    """Makes and verifies the tokens of one app with one secret.

    A token is the lower-case hexadecimal HMAC-SHA1 of the fields joined with ``:``. Only a stream may contain
    ``:``. Otherwise one token could be valid for two streams.
    """

    __slots__ = ("_hmac",)

    def __init__(self, api_key: str, app_id: str, secret: str) -> None:
        # Every text begins with the same fields, so their state is copied for each token.
        self._hmac = hmac.new(secret.encode(), f"{api_key}:{app_id}:".encode(), "sha1")

    def auth(self, stream: Name, subscriber_id: Name) -> str:
        """Make a token for auth mode.

        Raises:
            InvalidNameError: if the stream or the ID is invalid, as in the other methods.
        """
        return self._sign(f"auth:{check_stream(stream)}:{check_subscriber_id(subscriber_id)}")

    def presence(self, stream: Name, user_id: Name, subscriber_id: Name) -> str:
        """Make a token for presence mode."""
        return self._sign_for_user("presence", stream, user_id, subscriber_id)

    def direct(self, stream: Name, user_id: Name, subscriber_id: Name) -> str:
        """Make a token for direct mode."""
        return self._sign_for_user("direct", stream, user_id, subscriber_id)

    def sign(self, mode: Mode, stream: Name, subscriber_id: Name, user_id: Name | None = None) -> str:
        """Make a token for any mode.

        Parameters:
            mode: the mode that the token enables.
            stream: the stream's name, without prefix.
            subscriber_id: the ID of the connection.
            user_id: the user in presence and direct mode; ``None`` for auth mode, which has no users.

        Raises:
            InvalidNameError: if a name is invalid.
        """
        if mode is Mode.AUTH:
            return self.auth(stream, subscriber_id)
        return self._sign_for_user(mode.value, stream, user_id, subscriber_id)

    def _sign_for_user(self, mode: str, stream: Name, user_id: Name | None, subscriber_id: Name) -> str:
        user = check_user_id(user_id)
        return self._sign(f"{mode}:{check_stream(stream)}:{user}:{check_subscriber_id(subscriber_id)}")

    def _sign(self, text: str) -> str:
        mac = self._hmac.copy()
        mac.update(text.encode())
        return mac.hexdigest()

    def verify(
        self, token: str, mode: Mode, stream: str, subscriber_id: str, user_id: str | None = None
    ) -> bool:
        """Whether ``token`` is the one that :meth:`sign` makes, compared in constant time.

        Raises:
            InvalidNameError: if a name is invalid.
        """
        expected = self.sign(mode, stream, subscriber_id, user_id)
        # A token may contain any text, lone surrogates included.
        return hmac.compare_digest(expected.encode(), token.encode("utf-8", "surrogatepass"))
