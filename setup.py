import re
from pathlib import Path

from setuptools import find_packages, setup

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
REDIS = [*SERVER, "redis>=5.0.8"]

setup(
    name="tambur",
    version=VERSION,
    description="Messages to browsers over WebSockets: the Tambur client, and the server to host yourself",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["tambur", "tambur.*"]),
    include_package_data=True,
    install_requires=["requests>=2.28"],
    extras_require={"server": SERVER, "redis": REDIS, "subscriber": SUBSCRIBER},
    entry_points={"console_scripts": ["tambur = tambur.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Framework :: Django",
        "Framework :: Flask",
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP :: WSGI :: Middleware",
        "Typing :: Typed",
    ],
)
