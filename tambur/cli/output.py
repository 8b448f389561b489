"""Values on stdout, each as one printable line."""

from __future__ import annotations

import codecs
import sys
from typing import Any

from ..printable import json_line


def print_json(value: Any) -> None:
    """Print a value as a line of JSON. It has non-ASCII text only if stdout takes UTF-8."""
    is_utf8 = sys.stdout is None or codecs.lookup(sys.stdout.encoding).name == "utf-8"
    print(json_line(value, ascii_only=not is_utf8), flush=True)
