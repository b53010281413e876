"""Our own layout of texts: JSON lines with a field "text", or a .txt file with one text per line."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.datasets import Holds, rows


class Texts:
    """Texts for perplexity, exactly as they are written; blank lines of a .txt file are skipped."""

    holds: ClassVar[Holds] = "texts"

    def read(self, path: Path) -> tuple[str, ...]:
        """Every text, in order."""
        if path.suffix != ".txt":
            return tuple(row.text("text") for row in rows.read(path))
        lines = [line.removesuffix("\r") for line in rows.text_of(path).split("\n")]
        return tuple(
            rows.DataRow(f"{path.name}:{number}", number, {"text": line}).text("text")
            for number, line in enumerate(lines, 1)
            if line.strip()
        )


LOADER = Texts()
