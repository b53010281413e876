"""ME-PPL (arXiv 2402.09656): single sentences of seven corpora, 50, 1,000 or 10,000 of them, for perplexity."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.datasets import Holds, rows


class MePpl:
    """A list of {"Corpus", "Text"}. Most texts begin with a space, which is kept: it decides the first token."""

    holds: ClassVar[Holds] = "texts"

    def read(self, path: Path) -> tuple[str, ...]:
        """Every text, in order."""
        return tuple(row.text("Text") for row in rows.read(path))


LOADER = MePpl()
