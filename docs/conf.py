"""How the pages of this folder become a site: `tox -e docs`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
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

_COMMENT = re.compile(r"    # (.*)")
_FIELD = re.compile(r"    (\w+): [^#]+(?:# (.*))?")
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


def _describe_fields(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """What comments say of the fields of a dataclass stands beside their names."""
    if what == "class" and dataclasses.is_dataclass(value):
        lines += ["", *(f":param {field}: {said}" for field, said in _commented_fields(value)), ""]


def _commented_fields(kind: type) -> Iterator[tuple[str, str]]:
    """The fields with a comment above or behind them, and what it says."""
    above: list[str] = []
    for line in inspect.getsource(kind).splitlines():
        if comment := _COMMENT.fullmatch(line):
            above.append(comment[1])
            continue
        if (field := _FIELD.fullmatch(line)) and (said := " ".join(above) or field[2]):
            yield field[1], said
        above.clear()


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _describe_fields, priority=600)  # after napoleon has been there
    app.connect("source-read", _stay_inside)
