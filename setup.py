"""The metadata is in pyproject.toml."""

import gzip
import os
import tarfile
import time
from typing import Any

from setuptools import setup
from setuptools.command.sdist import sdist


class ReproducibleSdist(sdist):
    """The same files make the same archive if SOURCE_DATE_EPOCH is set. setuptools keeps times and owners."""

    def make_archive(self, base_name: str, _: str, *, base_dir: str, **__: Any) -> str:
        mtime = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))

        def normal(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.mtime = mtime
            member.mode = 0o755 if member.mode & 0o100 else 0o644
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            return member

        with (
            gzip.GzipFile(f"{base_name}.tar.gz", "wb", mtime=mtime) as file,
            tarfile.open(fileobj=file, mode="w") as archive,
        ):
            archive.add(base_dir, filter=normal)
        return f"{base_name}.tar.gz"


setup(cmdclass={"sdist": ReproducibleSdist})
