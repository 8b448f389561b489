"""The progress bar of ``tambur publish STREAM -``."""

from __future__ import annotations

import os
import stat
import time
from typing import TextIO

WIDTH = 30
REDRAW_S = 0.1


class Progress:
    """A line of progress on a terminal.

    Parameters:
        input_fd: the file descriptor of the input. If it is a regular file, its size makes a bar possible.
        output: the stream to draw on; nothing is drawn unless it is a terminal.
    """

    def __init__(self, input_fd: int, output: TextIO) -> None:
        status = os.fstat(input_fd)
        self._total_bytes = status.st_size if stat.S_ISREG(status.st_mode) else 0
        self._output = output if output.isatty() else None
        self._bytes = 0
        self._messages = 0
        self._started_at = self._drawn_at = time.monotonic()

    def __enter__(self) -> Progress:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, size: int) -> None:
        """Count one more published message, whose line had ``size`` bytes."""
        self._bytes += size
        self._messages += 1
        if time.monotonic() - self._drawn_at >= REDRAW_S:
            self._draw()

    def close(self) -> None:
        """Draw a last time, and end the line."""
        if self._output is not None:
            self._draw()
            self._output.write("\n")
            self._output = None

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        if self._output is None:
            return
        per_s = self._messages / max(self._drawn_at - self._started_at, 1e-9)
        line = f"{self._messages} messages, {per_s:.0f}/s"
        if self._total_bytes:
            done = min(1.0, self._bytes / self._total_bytes)
            bar = "#" * round(WIDTH * done)
            line = f"[{bar:<{WIDTH}}] {done:4.0%}  {line}"
        self._output.write(f"\r\x1b[K{line}")
        self._output.flush()
