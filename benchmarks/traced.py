"""``tambur`` with every allocation traced: at SIGUSR1 it prints what is allocated, as JSON, by file."""

from __future__ import annotations

import gc
import json
import signal
import sys
import tracemalloc
from collections import Counter
from pathlib import PurePath

sys.modules["uvloop"] = None  # type: ignore[assignment]  # as if it weren't installed

from tambur.cli import main  # noqa: E402 - after that


def report(*_: object) -> None:
    gc.collect()
    sizes: Counter[str] = Counter()
    for statistic in tracemalloc.take_snapshot().statistics("filename"):
        sizes["/".join(PurePath(statistic.traceback[0].filename).parts[-2:])] += statistic.size
    print(json.dumps(sizes), flush=True)


if __name__ == "__main__":
    tracemalloc.start()
    signal.signal(signal.SIGUSR1, report)
    sys.exit(main())
