"""HardEdit (arXiv 2402.09656): made-up facts after the pattern of HardCF, to collapse models in sequence.

Published on a drive only, so it is not fetched: give the file as `hardedit:PATH`. Accepted in EasyEdit's flat and in
COUNTERFACT's original layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.datasets import Holds, _layouts
from editsafety.request import EditRequest


class HardEdit:
    """Rows without a `case_id` are numbered from 1."""

    holds: ClassVar[Holds] = "requests"

    def read(self, path: Path) -> tuple[EditRequest, ...]:
        """Every row as a request named `hardedit-<case_id>`."""
        return _layouts.either(path, "hardedit")


LOADER = HardEdit()
