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
    def __init__(self, api_key: str, app_id: str, secret: str) -> None:
        self._prefix = f"{api_key}:{app_id}"
        self._secret = secret.encode()

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, f"{self._prefix}:{text}".encode(), hashlib.sha1).hexdigest()

    def auth(self, stream: str, subscriber_id: str) -> str:
        return self._sign(f"auth:{check_stream(stream)}:{check_subscriber_id(subscriber_id)}")

    def presence(self, stream: str, user_id: str, subscriber_id: str) -> str:
        return self._sign(
            f"presence:{check_stream(stream)}:{check_user_id(user_id)}:{check_subscriber_id(subscriber_id)}"
        )

    def direct(self, stream: str, user_id: str, subscriber_id: str) -> str:
        return self._sign(
            f"direct:{check_stream(stream)}:{check_user_id(user_id)}:{check_subscriber_id(subscriber_id)}"
        )

    def verify(
        self, token: str, mode: Mode, stream: str, subscriber_id: str, user_id: str | None = None
    ) -> bool:
        if mode is Mode.AUTH:
            expected = self.auth(stream, subscriber_id)
        elif mode is Mode.PRESENCE:
            expected = self.presence(stream, user_id or "", subscriber_id)
        else:
            expected = self.direct(stream, user_id or "", subscriber_id)
        return hmac.compare_digest(expected.encode(), token.encode("utf-8", "surrogatepass"))
