"""Settings of Sphinx: ``sphinx-build -W docs site`` makes the site."""

import re

from sphinx.application import Sphinx

from tambur import __version__

project = "Tambur"
copyright = "2012 Tambur.io"  # noqa: A001 - Sphinx calls it that
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}

html_theme = "furo"
html_title = f"Tambur {version}"
html_static_path = ["static"]
html_css_files = ["narrow.css"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # the fields of a NamedTuple are documented by themselves already

TITLE = re.compile(r'^```(\w+) title="([^"]+)"$', re.MULTILINE)


def show_file_names(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Show the title of a snippet above it: the file that the snippet belongs in."""
    source[0] = TITLE.sub(r"```{code-block} \1\n:caption: \2\n", source[0])


def setup(app: Sphinx) -> None:
    app.connect("source-read", show_file_names)
