"""The command line: which parts to run, and where the page goes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from . import compute, delivery, growth, memory, nodes, publish, slow
from .page import write
from .peers import ROOT, MissingError
from .report import Section

PARTS: dict[str, Callable[..., Section]] = {
    "publish": publish.publish,
    "environment": publish.environment,
    "threads": publish.threads,
    "signing": compute.signing,
    "token": compute.token,
    "import": compute.imports,
    "fanout": delivery.fanout,
    "burst": delivery.burst,
    "latency": delivery.latency,
    "signed": delivery.signed,
    "slow": slow.slow,
    "memory": memory.memory,
    "nodes": nodes.nodes,
    "growth": growth.growth,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure Tambur beside what one would use instead. It installs nothing, and says what is missing.",
        epilog="PEERS_PYTHON names a Python that has the peers' packages, NODE_PATH the directory of Node's.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: to see that it works")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="write what is printed to FILE, and a plot beside it"
    )
    arguments = parser.parse_args()
    for name in arguments.parts:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}; the parts are {', '.join(PARTS)}")
    load_before = os.getloadavg()[0]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that every process that was started ends, too
    page = arguments.page
    if page is None and not arguments.parts and not arguments.quick:
        page = ROOT / "docs" / "explanation" / "performance.md"
    sections = []
    for name in arguments.parts or PARTS:
        print(f"-- {name}", file=sys.stderr, flush=True)
        try:
            section = PARTS[name](quick=arguments.quick)
        except (MissingError, RuntimeError) as error:
            section = Section(name.capitalize(), f"Not measured: {error}")
        sections.append(section)
        print(section.markdown(), flush=True)
        if page is not None:
            write(page, sections, load_before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
