"""HardEdit (arXiv 2402.09656): made-up facts after the pattern of HardCF, to collapse models in sequence.

Published on a drive only, so it is not fetched: give the file as `hardedit:PATH`, in the layouts of HardCF. `hardedit`
alone is the set that this project wrote after the same recipe, in our own layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.datasets import Holds, _subsets
from editsafety.datasets.request import EditRequest


class HardEdit:
    """Rows without a `case_id` are numbered from 1."""

    holds: ClassVar[Holds] = "requests"

    def read(self, path: Path) -> tuple[EditRequest, ...]:
        """Every row as a request named `hardedit-<case_id>`."""
        return _subsets.read(path, "hardedit")


LOADER = HardEdit()
