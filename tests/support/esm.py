"""The ES module of tambur.js, which is made from the classic script: ``python -m tests.support.esm`` writes it.

A module cannot be a classic script too: ``import.meta`` and ``export`` are syntax errors there. The two differ in how they
find out where they were loaded from, and in how they give away their names. All else is the same text.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

STATIC = Path(str(resources.files("tambur.server"))) / "static"

_NOTE = "// Made from {} by: python -m tests.support.esm\n"
_SCRIPT_END = "})(document.currentScript?.src || location.href);\n"
_MODULE_END = r"""// A bundle, or a copy on another server, does not tell where the Tambur server is.
})(/^https?:\/\/[^/]+\/tambur\.mjs([?#]|$)/.test(import.meta.url) ? import.meta.url : null);

export const { Connection, TamburError } = tambur;
"""
_NAMESPACE = "declare namespace tambur {\n"


def make_module(script: str) -> str:
    """Make the text of tambur.mjs from that of tambur.js."""
    body = script.removesuffix(_SCRIPT_END)
    assert body != script, f"tambur.js must end with {_SCRIPT_END}"
    return _NOTE.format("tambur.js") + body + _MODULE_END


def make_declarations(script: str) -> str:
    """Make the text of tambur.d.mts from that of tambur.d.ts: each member of the namespace becomes an export."""
    _, found, members = script.partition(_NAMESPACE)
    assert found, f"tambur.d.ts must declare {_NAMESPACE}"
    body = re.sub("^  ", "", members.removesuffix("}\n"), flags=re.MULTILINE)
    body = re.sub(r"^(?=(?:type|interface) )", "export ", body, flags=re.MULTILINE)
    body = re.sub(r"^(?=const )", "export declare ", body, flags=re.MULTILINE)
    return _NOTE.format("tambur.d.ts") + "/** The interface of the module tambur. */\n\n" + body


def made() -> dict[Path, str]:
    """Create both files: their paths and their content."""
    return {
        STATIC / "tambur.mjs": make_module((STATIC / "tambur.js").read_text("utf-8")),
        STATIC / "tambur.d.mts": make_declarations((STATIC / "tambur.d.ts").read_text("utf-8")),
    }


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, "utf-8")
