"""Log lines: an event, then facts as ``key=value``. Each record is one line, whatever the values contain."""

from __future__ import annotations

import json
import logging
import re
import time

from ..protocol.names import mask_subscriber_ids

MAX_VALUE_CODE_POINTS = 300
"""How much of a value the log shows, since strangers choose some of them."""

# Printable ASCII except space, ", = and the backslash.
_BARE = re.compile(r"[!#-<>-\[\]-~]+")


def line(event: str, **facts: object) -> str:
    """Make the message of a log record.

    Parameters:
        event: the name of the event, always in the same words.
        facts: facts that are ``None`` are left out. A value with other than plain characters becomes a JSON
            string, so that a line break in it does not break the line.
    """
    return " ".join([event, *(f"{k}={_value(str(v))}" for k, v in facts.items() if v is not None)])


def _value(text: str) -> str:
    text = mask_subscriber_ids(text)
    if len(text) > MAX_VALUE_CODE_POINTS:
        text = f"{text[:MAX_VALUE_CODE_POINTS]}..."
    return text if _BARE.fullmatch(text) else json.dumps(text)


class Formatter(logging.Formatter):
    """Writes each record as one line: time in UTC, level, logger, message and traceback."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        # A traceback and the messages of some libraries have several lines.
        text = mask_subscriber_ids(super().format(record))
        return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
