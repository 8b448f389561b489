"""The command line: which parts to run, and which file gets the results."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from . import connections, console, delivery, publish, sessions
from .peers import MissingError
from .report import Section, machine

PARTS: dict[str, Callable[..., Section]] = {
    "publish": publish.publish,
    "batch": publish.batch,
    "fanout": delivery.fanout,
    "burst": delivery.burst,
    "signed": delivery.signed,
    "memory": delivery.memory,
    "connections": connections.connections,
    "sessions": sessions.sessions,
    "failover": sessions.failover,
    "history": sessions.history,
    "console": console.console,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure Tambur beside its alternatives. It installs nothing, and reports what is missing.",
        epilog="PEERS_PYTHON names a Python that has the peers' packages, NODE_PATH the directory of Node's.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: to see that it works")
    arguments = parser.parse_args()
    for name in arguments.parts:
        if name not in PARTS:
            parser.error(f"unknown part {name!r}; the parts are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes that were started end, too
    print(f"# Performance\n\n{machine()}\n", flush=True)
    for name in arguments.parts or PARTS:
        print(f"-- {name}", file=sys.stderr, flush=True)
        try:
            section = PARTS[name](quick=arguments.quick)
        except (MissingError, RuntimeError) as error:
            section = Section(name.capitalize(), f"Not measured: {error}")
        print(section.markdown(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
