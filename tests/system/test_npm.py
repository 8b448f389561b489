"""The npm package, its declarations and its size: it takes a checkout, and `npm ci` in it."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import tambur

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "node_modules" / ".bin"
STATIC = "tambur/server/static"
MAX_BYTES = 6 * 1024
USES = (Path(__file__).parent / "tambur_js" / "interface.ts").read_text("utf-8")


def run(*words: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package as `npm pack` builds it from a checkout without node_modules."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in run("git", "ls-files", "-z").split("\0"):
        if name.startswith((STATIC, "package")) or "/" not in name:
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            if name:
                shutil.copy(ROOT / name, checkout / name)
    made = tmp_path_factory.mktemp("application")
    (packed,) = json.loads(run("npm", "pack", "--json", "--pack-destination", str(made), cwd=checkout))
    with tarfile.open(made / packed["filename"]) as archive:
        archive.extractall(made, filter="data")
    (made / "node_modules").mkdir()
    (made / "package").rename(made / "node_modules" / "tambur")
    return made


def test_it_holds_both_scripts_their_types_the_licence_and_the_readme(application: Path) -> None:
    package = application / "node_modules" / "tambur"
    held = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    scripts = {f"{STATIC}/tambur.{ending}" for ending in ("js", "mjs", "d.ts", "d.mts")}
    assert held == scripts | {"LICENSE", "README.md", "package.json"}


def test_its_version_is_that_of_the_python_package() -> None:
    for name in ("package.json", "package-lock.json"):
        described = json.loads((ROOT / name).read_text("utf-8"))
        assert (described["name"], described["version"]) == ("tambur", tambur.__version__)


def test_it_says_what_it_is(application: Path) -> None:
    described = json.loads((application / "node_modules" / "tambur" / "package.json").read_text("utf-8"))
    assert described["license"] == "MIT"
    assert described["sideEffects"] is False
    assert not described.keys() & {"dependencies", "peerDependencies", "scripts"}


def test_importing_it_touches_no_page(application: Path) -> None:
    """As where a page is rendered on a server."""
    code = """
        const before = Object.keys(globalThis);
        const { Connection, TamburError } = await import("tambur");
        const added = Object.keys(globalThis).filter((name) => !before.includes(name));
        console.log(JSON.stringify([typeof Connection, typeof TamburError, added]));
    """
    said = run("node", "--input-type=module", "--eval", code, cwd=application)
    assert json.loads(said) == ["function", "function", []]


def module_uses() -> str:
    """The program interface.ts, as an application that imports the module."""
    _, reference, body = USES.partition(
        '/// <reference path="./node_modules/tambur/tambur/server/static/tambur.d.ts" />\n'
    )
    assert reference
    imports = 'import { Connection, TamburError } from "tambur";\nimport type { Mode, State, Stream, StreamOptions } from "tambur";\n'
    no_global = "// @ts-expect-error - the module defines no global\ntambur.Connection;\n"
    return imports + no_global + re.sub(r"\btambur\.(?=[A-Z])", "", body)


@pytest.mark.parametrize(
    ("name", "module", "module_resolution"),
    [
        ("classic.ts", "nodenext", "nodenext"),  # which names its declarations, so nothing is resolved
        ("module.mts", "nodenext", "nodenext"),
        ("module.mts", "esnext", "bundler"),
    ],
)
def test_its_declarations_compile(application: Path, name: str, module: str, module_resolution: str) -> None:
    (application / name).write_text(USES if name == "classic.ts" else module_uses(), "utf-8")
    run(
        PROGRAMS / "tsc", "--noEmit", "--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess",
        "--types", "", "--target", "es2022", "--lib", "es2022,dom", "--module", module,
        "--moduleResolution", module_resolution, name,
        cwd=application,
    )  # fmt: skip


def test_the_example_of_its_use_uses_every_member() -> None:
    declared = (ROOT / STATIC / "tambur.d.ts").read_text("utf-8")
    members = set(re.findall(r"^    (?:readonly )?(\w+)[?(:]", declared, re.MULTILINE))
    members -= {"new", "prototype", "type", "listener", "options"}
    assert len(members) > 40
    assert {name for name in members if not re.search(rf"\b{name}\b", USES)} == set()


def test_a_bundler_leaves_out_what_is_not_used(application: Path) -> None:
    (application / "unused.js").write_text('import "tambur";\nconsole.log(1);\n')
    run(PROGRAMS / "esbuild", "unused.js", "--bundle", "--format=esm", "--outfile=bundle.js", cwd=application)
    assert "Connection" not in (application / "bundle.js").read_text("utf-8")


@pytest.mark.parametrize("name", ["tambur.js", "tambur.mjs"])
def test_it_stays_small(name: str) -> None:
    minified = run(PROGRAMS / "esbuild", "--minify", f"{STATIC}/{name}")
    size = len(gzip.compress(minified.encode(), 9))
    assert size <= MAX_BYTES
