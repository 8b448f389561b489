"""Where that is found which we are measured against, and how to install it. Nothing is installed here.

Python packages are looked for in the Python that runs the benchmarks, then in the one that ``PEERS_PYTHON``
names (some peers need other versions of packages than Tambur does); Node's in ``NODE_PATH``; programs in
``PATH``.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


class MissingError(Exception):
    """Something that a benchmark needs is not here; the text says what, and how to install it.

    The functions below raise it.
    """


@functools.cache
def python_with(module: str, package: str) -> str:
    """The path of a Python that can import ``module``."""
    for python in filter(None, (sys.executable, os.environ.get("PEERS_PYTHON"))):
        if (
            subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True).returncode
            == 0
        ):
            return python
    raise MissingError(f"`pip install {package}` into the Python that `PEERS_PYTHON` names")


@functools.cache
def python_version_of(python: str, package: str) -> str:
    """The version of an installed distribution."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@functools.cache
def node_with(module: str) -> str:
    """The path of a Node that can load ``module``."""
    node = program("node", "nodejs")
    if subprocess.run([node, "-e", f"require({module!r})"], check=False, capture_output=True).returncode:
        raise MissingError(f"`npm install {module}` into a directory whose `node_modules` is in `NODE_PATH`")
    return node


@functools.cache
def program(name: str, package: str) -> str:
    """The path of a program, also of one in Debian's directory for daemons or beside ``PEERS_PYTHON``."""
    beside = Path(os.environ.get("PEERS_PYTHON", sys.executable)).parent
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", str(beside)])
    found = shutil.which(name, path=path)
    if found is None:
        raise MissingError(f"install {package}, so that `{name}` is in `PATH`")
    return found


def nginx_with_nchan() -> str:
    """The path of an nginx that can load nchan."""
    if not NCHAN_MODULE.exists():
        raise MissingError("`apt-get install libnginx-mod-nchan`")
    return program("nginx", "nginx")


@functools.cache
def compiled(name: str) -> Path:
    """One of the C programs beside this file, compiled for as long as this process runs."""
    compiler = program(os.environ.get("CC", "cc"), "gcc")
    made = Path(_build_directory().name) / name
    subprocess.run([compiler, "-O2", "-Wall", "-o", made, HERE / "c" / f"{name}.c"], check=True)
    return made


@functools.cache
def _build_directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tambur-benchmarks-")
