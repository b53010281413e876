"""WikiBigEdit (arXiv 2503.05683): changes of Wikidata as questions, in EasyEdit's flat layout."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.datasets import Holds, _layouts
from editsafety.datasets.request import EditRequest


class WikiBigEdit:
    """The target is true and new; there is no old one. Rows are numbered from 1."""

    holds: ClassVar[Holds] = "requests"

    def read(self, path: Path) -> tuple[EditRequest, ...]:
        """Every row as a request named `wikibigedit-<number>`."""
        return _layouts.either(path, "wikibigedit")


LOADER = WikiBigEdit()
