"""The trace of a refused command in the counters, the log and the console."""

from __future__ import annotations

import logging

from ..protocol.messages import Command, SetMode
from .counters import Counts
from .subscriptions import Result


def record_refused(counts: Counts, app_id: str, command: Command, result: Result) -> None:
    """Log a command that is refused for what it asks. Only an invalid token is worth a line at INFO.

    Parameters:
        counts: where an invalid token is counted.
        app_id: the app of the connection.
        command: the command.
        result: the result in its ack.
    """
    facts: dict[str, object] = {"app": app_id, "stream": getattr(command, "stream", None)}
    if result is Result.INVALID_TOKEN:
        counts.refused[result.value] += 1
        mode = command.mode.value if isinstance(command, SetMode) else None
        counts.log_refusal("token refused", facts | {"mode": mode})
    else:
        facts = {"command": type(command).__name__, **facts, "reason": result.value}
        counts.log_refusal("command refused", facts, logging.DEBUG)


def record_unavailable(counts: Counts, app_id: str, command: Command, reason: Exception) -> None:
    """Log a command that is refused because the broker is unavailable.

    Parameters:
        counts: as for :func:`record_refused`.
        app_id: the app of the connection.
        command: the command.
        reason: why the broker is unavailable.
    """
    facts = {
        "command": type(command).__name__,
        "app": app_id,
        "stream": getattr(command, "stream", None),
        "reason": reason,
    }
    counts.log_refusal("command refused", facts, logging.WARNING)
