"""A real nginx in front of a test's server."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def nginx(directory: Path, site: str) -> Iterator[None]:
    """Run nginx with the text of a site, with its files in a directory."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "there is no nginx"
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {directory}/pid; error_log stderr notice; worker_processes 1;\n"
        f"events {{}}\nhttp {{\n{temporary}{site}\n}}\n"
    )
    with subprocess.Popen(
        [program, "-p", str(directory), "-e", "stderr", "-c", str(configuration)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "start worker process" in line:
                break
        else:
            pytest.fail("".join(said))
        log = directory / "stderr.log"
        stderr = process.stderr
        reader = threading.Thread(target=lambda: log.write_text(stderr.read()))  # so that it can always write
        reader.start()
        try:
            yield
        finally:
            process.terminate()
            reader.join()
