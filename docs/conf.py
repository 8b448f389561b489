"""Settings of Sphinx: ``sphinx-build -W docs site`` makes the site."""

from tambur import __version__

project = "Tambur"
copyright = "2012 Tambur.io"  # noqa: A001 - Sphinx calls it that
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}

html_theme = "furo"
html_title = f"Tambur {version}"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # the fields of a NamedTuple are documented by themselves already
