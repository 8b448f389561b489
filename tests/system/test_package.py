"""The distributions. These tests need a checkout, and do not run away from one."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import tambur

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory)


def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "tambur"
    # Only tracked files, as in a fresh clone.
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in filter(None, tracked):
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", made, source],
        check=True,
        capture_output=True,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1353628800"},
    )
    return made


def test_the_same_source_makes_the_same_archives(
    dist: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    again = build(tmp_path_factory)
    names = {path.name for path in dist.iterdir()}
    assert len(names) == 2
    assert {path.name for path in again.iterdir()} == names
    for name in names:
        assert (dist / name).read_bytes() == (again / name).read_bytes(), name


def test_the_description_of_the_package_renders(dist: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, dist.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    shipped = {str(path.relative_to(ROOT)) for path in (ROOT / "tambur").rglob("*") if path.is_file()}
    shipped = {name for name in shipped if "__pycache__" not in name}
    assert {name for name in names(wheel) if ".dist-info/" not in name} == shipped
    assert "tambur/py.typed" in shipped
    assert any(name.endswith("/LICENSE") for name in names(wheel))


def test_the_source_distribution_holds_all_files_for_building_and_testing(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    left_out = {name for name in tracked if name.startswith((".", "benchmarks/"))} | {"MANIFEST.in"}
    assert set(tracked) - left_out <= held


def test_requests_is_the_only_dependency_without_extras(wheel: Path) -> None:
    required = metadata(wheel).get_all("Requires-Dist") or []
    assert [r for r in required if "extra ==" not in r] == ["requests>=2.28"]
    assert set(metadata(wheel).get_all("Provides-Extra") or []) == {
        "server",
        "redis",
        "metrics",
        "subscriber",
    }


def test_ci_has_the_oldest_version_of_each_dependency(wheel: Path) -> None:
    requirements = map(Requirement, metadata(wheel).get_all("Requires-Dist") or [])
    oldest = {
        canonicalize_name(requirement.name): Version(specifier.version)
        for requirement in requirements
        for specifier in requirement.specifier
        if specifier.operator == ">="
    }
    lines = (ROOT / ".ci/oldest.txt").read_text("utf-8").splitlines()
    pinned = {
        canonicalize_name(name): Version(version)
        for name, equals, version in (line.partition("==") for line in lines)
        if equals
    }
    assert oldest.items() <= pinned.items()


def test_the_metadata_say_what_it_is(wheel: Path) -> None:
    said = metadata(wheel)
    assert said["Version"] == tambur.__version__
    assert said["License"] == "MIT" or said["License-Expression"] == "MIT"
    assert said["Requires-Python"] == ">=3.10"
    assert str(said.get_payload()).startswith("# Tambur\n")
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## {re.escape(tambur.__version__)} ", changelog, re.MULTILINE)


OF_REQUESTS = {"requests", "certifi", "charset-normalizer", "idna", "urllib3"}


def pack(name: str, directory: Path) -> None:
    """Make a wheel of a package of this environment, so that an install takes no network."""
    found = distribution(name)
    tag = re.search(r"^Tag: (\S+)$", found.read_text("WHEEL") or "", re.MULTILINE)
    assert tag is not None
    stem = f"{found.name.replace('-', '_')}-{found.version}"
    with zipfile.ZipFile(directory / f"{stem}-{tag[1]}.whl", "w") as archive:
        for file in found.files or []:
            if not {"..", "__pycache__"} & set(file.parts):
                archive.write(str(file.locate()), str(file))


def test_a_plain_install_brings_requests_and_nothing_else_of_ours(wheel: Path, tmp_path: Path) -> None:
    for name in OF_REQUESTS:
        pack(name, tmp_path)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin/python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--find-links", tmp_path, wheel], check=True)
    code = (
        "from importlib.metadata import distributions\nfrom tambur import Tambur\n"
        "print(*(found.metadata['Name'] for found in distributions()))\nprint(Tambur('k', 'a', 's', 'h').url)"
    )
    said = subprocess.run(
        [python, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    ).stdout
    installed, url = said.splitlines()
    assert {canonicalize_name(name) for name in installed.split()} == OF_REQUESTS | {"tambur"}
    assert url == "http://h/app/a"
