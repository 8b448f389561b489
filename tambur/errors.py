"""All exceptions of this package::

    TamburError
     +- ConfigurationError (ValueError)             missing or invalid credentials, host, URL, settings
     +- InvalidNameError (ValueError)               stream, user ID, subscriber ID
     +- InvalidMessageError (ValueError)            not UTF-8, or cannot be encoded
     +- PublishError (requests.RequestException)    .stream .attempts .may_have_been_delivered
     |   +- ConnectionFailedError (requests.ConnectionError)
     |   +- TimedOutError (requests.Timeout)
     |   +- RejectedError (requests.HTTPError)      .status .reason .retry_after
     |       +- UnauthorizedError                   401
     |       +- AppNotFoundError                    404
     |       +- MessageTooLargeError                413
     |       +- RateLimitedError                    429
     |       +- UnavailableError                    502, 503, 504
     +- WebhookVerificationError
     +- SubscriberError
         +- CommandRefusedError                     .command .result
         +- SubscriberClosedError (ConnectionError) .code .reason
         +- SubscriberTimeoutError (TimeoutError)
         +- MessagesMissedError                     .streams

The 2012 package raised the exceptions of requests, so ``except`` clauses written for it still catch. No text
of an exception contains a secret or a signature.
"""

from __future__ import annotations

import errno
import socket
import ssl

import requests


class TamburError(Exception):
    """The base of all exceptions of this package."""


class ConfigurationError(TamburError, ValueError):
    """Credentials, a host, a URL or a setting is missing or invalid."""


class InvalidNameError(TamburError, ValueError):
    """A stream name, user ID or subscriber ID is invalid (section 1 of the protocol)."""


class InvalidMessageError(TamburError, ValueError):
    """A message cannot be sent: it is not UTF-8, or cannot be encoded as text."""


class PublishError(TamburError, requests.RequestException):
    """A publish, a query or a disconnect that the server did not confirm.

    Attributes:
        stream: the destination, prefix included; the stream of a query; ``""`` without any.
        attempts: how many times the request was sent, at least 1.
        may_have_been_delivered: false if the server has certainly not delivered the message. Then publishing
            again cannot deliver it twice. Of a disconnect, whether it may have taken effect.
        response: the last :class:`requests.Response`; ``None`` if no answer arrived.
    """

    def __init__(
        self,
        message: str,
        *,
        stream: str = "",
        attempts: int = 1,
        may_have_been_delivered: bool = True,
        response: requests.Response | None = None,
    ) -> None:
        super().__init__(message, response=response)
        self.stream = stream
        self.attempts = attempts
        self.may_have_been_delivered = may_have_been_delivered


class ConnectionFailedError(PublishError, requests.ConnectionError):
    """The server cannot be reached, or the connection broke before the answer."""


class TimedOutError(PublishError, requests.Timeout):
    """The server did not accept a connection, or did not answer, in time."""


class RejectedError(PublishError, requests.HTTPError):
    """The server answered with a status other than 2xx, or with an HTML page.

    Attributes:
        status: the HTTP status code.
        reason: the beginning of the answer's body.
        retry_after: seconds to wait before another attempt; ``None`` if the server sent no value.
    """

    def __init__(
        self,
        message: str,
        *,
        stream: str = "",
        attempts: int = 1,
        may_have_been_delivered: bool = True,
        response: requests.Response | None = None,
        status: int = 0,
        reason: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            message,
            stream=stream,
            attempts=attempts,
            may_have_been_delivered=may_have_been_delivered,
            response=response,
        )
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class UnauthorizedError(RejectedError):
    """401: unknown key, wrong secret, or wrong clock; the reason says which."""


class AppNotFoundError(RejectedError):
    """404: the server has no such app."""


class MessageTooLargeError(RejectedError):
    """413: the message exceeds the server's limit."""


class RateLimitedError(RejectedError):
    """429: the app publishes faster than the server allows; see ``retry_after``."""


class UnavailableError(RejectedError):
    """502, 503 or 504: the server, its broker or a proxy in front of it is temporarily unavailable."""


class WebhookVerificationError(TamburError):
    """A request is not a webhook of your server: its signature or its form is wrong, or it is too old."""


class SubscriberError(TamburError):
    """The base of the subscriber's exceptions."""


class CommandRefusedError(SubscriberError):
    """The server refused a command.

    Attributes:
        command: the command's name, such as ``"set_mode"``.
        result: the server's reason, such as ``"invalid_token"`` (section 4 of the protocol).
    """

    def __init__(self, message: str, *, command: str = "", result: str = "") -> None:
        super().__init__(message)
        self.command = command
        self.result = result


class SubscriberClosedError(SubscriberError, ConnectionError):
    """The subscriber is not connected, or its connection ended.

    Attributes:
        code: the WebSocket close code, or the HTTP status that refused the connection; ``None`` if the
            connection broke, or could not be made.
        reason: the server's text beside the code.
    """

    def __init__(self, message: str, *, code: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class SubscriberTimeoutError(SubscriberError, TimeoutError):
    """Nothing arrived in time."""


class MessagesMissedError(SubscriberError):
    """After a reconnect, messages may be missing: the server cannot show that it has sent all of them.

    The subscriber is connected, and continues. Load the state of these streams anew.

    Attributes:
        streams: their names; ``"private"`` for private messages.
    """

    def __init__(self, message: str, *, streams: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.streams = streams


_UNKNOWN_ISSUER = (18, 19, 20, 21)
"""OpenSSL's codes for a certificate that no known authority has issued."""


def explain_connection_error(error: BaseException, *, ca_variable: str = "") -> str:
    """Say why a connection could not be made or broke, and what to check.

    Parameters:
        error: the exception of the socket or of TLS.
        ca_variable: the environment variable that names a file of trusted certificate authorities.
    """
    match error:
        case ConnectionRefusedError():
            return "connection refused; is `tambur serve` running there?"
        case socket.gaierror():
            return f"cannot resolve the host name ({_reason(error)}); is it spelled correctly?"
        case ssl.SSLCertVerificationError():
            why = getattr(error, "verify_message", None) or _reason(error)
            is_own = ca_variable and getattr(error, "verify_code", None) in _UNKNOWN_ISSUER
            hint = f"; if you issued it, name your authority's file in {ca_variable}" if is_own else ""
            return f"TLS failed: certificate verify failed: {why}{hint}"
        case ssl.SSLError():
            return f"TLS failed: {_reason(error)}; does the server use TLS on this port?"
        case ConnectionResetError() if not error.strerror:
            return "the server closed it"
        case OSError() if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT):
            return f"{_reason(error)}; is the host reachable from here?"
        case _:
            return _reason(error)


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError) and getattr(error, "reason", None):
        return str(error.reason).replace("_", " ").lower()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    # The text may quote a proxy's URL, and with it a password.
    return type(error).__name__
