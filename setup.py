import gzip
import os
import re
import tarfile
from pathlib import Path
from typing import Any

from setuptools import find_namespace_packages, setup
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "tambur/__init__.py").read_text("utf-8"))[1]

SUBSCRIBER = ["websockets>=16"]
SERVER = [
    "uvicorn>=0.54,<1",
    "starlette>=1,<2",
    "httptools>=0.6.3",
    "websockets>=16",
    'tomli>=2; python_version < "3.11"',
]
METRICS = [*SERVER, "prometheus-client>=0.20"]
REDIS = [*SERVER, "redis>=5.0.8"]


class ReproducibleSdist(sdist):
    """Where SOURCE_DATE_EPOCH is set, the same files make the same archive, byte for byte."""

    def make_archive(self, base_name: str, format: str, *options: Any, **more: Any) -> str:  # noqa: A002
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is None or format != "gztar":
            return super().make_archive(base_name, format, *options, **more)

        def normal(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.mtime = int(epoch)
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            return member

        path = Path(f"{base_name}.tar.gz")
        with (
            path.open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=int(epoch)) as compressed,
            tarfile.open(fileobj=compressed, mode="w") as archive,
        ):
            for member in sorted(Path(path.stem.removesuffix(".tar")).rglob("*")):
                archive.add(member, recursive=False, filter=normal)
        return str(path)


setup(
    name="tambur",
    version=VERSION,
    description="Messages to browsers over WebSockets: the Tambur client, and the server to host yourself",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_namespace_packages(include=["tambur", "tambur.*"]),
    include_package_data=True,
    cmdclass={"sdist": ReproducibleSdist},
    install_requires=["requests>=2.28"],
    extras_require={"server": SERVER, "redis": REDIS, "metrics": METRICS, "subscriber": SUBSCRIBER},
    entry_points={
        "console_scripts": ["tambur = tambur.cli:main"],
        "pytest11": ["tambur = tambur.testing"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Framework :: Django",
        "Framework :: Flask",
        "Framework :: Pytest",
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Communications",
        "Topic :: Internet :: WWW/HTTP :: WSGI :: Middleware",
        "Typing :: Typed",
    ],
)
