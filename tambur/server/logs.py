"""Lines of the log: what happened, then facts as ``key=value``; whatever values hold, a line stays one."""

from __future__ import annotations

import json
import logging
import re
import time

from ..protocol.names import SUBSCRIBER_ID

MAX_VALUE_CODE_POINTS = 300
"""How much of a value is logged: some come from strangers."""

# Printable ASCII but space, ", = and the backslash.
_BARE = re.compile(r"[!#-<>-\[\]-~]+")


def line(event: str, **facts: object) -> str:
    """One line of the log, without its time.

    Parameters:
        event: what happened, in words that are the same each time.
        facts: left out where ``None``; a value that holds anything but plain characters is written as a JSON
            string, so that a line break in it is no line break of the log.
    """
    return " ".join([event, *(f"{k}={_value(str(v))}" for k, v in facts.items() if v is not None)])


def mask_subscriber_ids(text: str) -> str:
    """Replace everything that has the form of a subscriber ID, wherever it stands.

    Anyone who learns the ID of a subscriber that polls can read its messages.
    """
    return SUBSCRIBER_ID.sub("SUBSCRIBER_ID", text)


def _value(text: str) -> str:
    text = mask_subscriber_ids(text)
    if len(text) > MAX_VALUE_CODE_POINTS:
        text = f"{text[:MAX_VALUE_CODE_POINTS]}..."
    return text if _BARE.fullmatch(text) else json.dumps(text)


class Formatter(logging.Formatter):
    """One line a record, whoever logs it: time in UTC, level, logger, message, and what was raised."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        # What a library says over several lines, such as a traceback, is one line like the rest.
        text = mask_subscriber_ids(super().format(record))
        return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
