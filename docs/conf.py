"""How the pages of this folder become a site: `tox -e docs`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from editsafety import __version__

project = "editsafety"
author = "the editsafety authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["ci", "_build"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"editsafety {release}"
default_role = "code"  # docstrings write `name` as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
copybutton_exclude = ".linenos, .gp, .go"

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./|ci/|data/|suites/|reports/|hparams/)[^)#\s]*)(#[^)\s]*)?\)")


def _stay_inside(app: Any, page: str, source: list[str]) -> None:
    """The front page is the README; what else links out of this folder links to a file of the repository."""

    def told(link: re.Match[str]) -> str:
        text, path, anchor = link[1], link[2].removeprefix("../"), link[3] or ""
        if path == "README.md":
            return f"[{text}](readme.md{anchor})"
        return text if path in text else f"{text} (`{path}` in the repository)"

    if page == "readme":
        source[0] = (Path(app.srcdir).parent / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    source[0] = _OUTSIDE.sub(told, source[0])


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _stay_inside)
