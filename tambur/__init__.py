"""Publish messages to browsers over WebSockets::

from tambur import Tambur

tambur = Tambur.from_env()
tambur.publish("news", "Hello, everybody")
"""

__version__ = "1.0.0"

from .errors import (
    AppNotFoundError,
    CommandRefusedError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidMessageError,
    InvalidNameError,
    MessagesMissedError,
    MessageTooLargeError,
    PublishError,
    RateLimitedError,
    RejectedError,
    SubscriberClosedError,
    SubscriberError,
    SubscriberTimeoutError,
    TamburError,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
    WebhookVerificationError,
)
from .publisher.queries import History, KeptMessage, StreamInfo
from .tambur import Tambur

__all__ = [
    "AppNotFoundError",
    "CommandRefusedError",
    "ConfigurationError",
    "ConnectionFailedError",
    "History",
    "InvalidMessageError",
    "InvalidNameError",
    "KeptMessage",
    "MessageTooLargeError",
    "MessagesMissedError",
    "PublishError",
    "RateLimitedError",
    "RejectedError",
    "StreamInfo",
    "SubscriberClosedError",
    "SubscriberError",
    "SubscriberTimeoutError",
    "Tambur",
    "TamburError",
    "TimedOutError",
    "UnauthorizedError",
    "UnavailableError",
    "WebhookVerificationError",
    "__version__",
]
