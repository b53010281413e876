"""HardCF (arXiv 2402.09656): the COUNTERFACT cases of which a single ROME edit collapses a model.

Published on a drive only, so it is not fetched: give the file as `hardcf:PATH`. Accepted in COUNTERFACT's original and
in EasyEdit's flat layout. The pattern is a prompt that begins with a one-token subject ("Twitter was acquired by").
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.datasets import Holds, _layouts
from editsafety.request import EditRequest


class HardCF:
    """COUNTERFACT cases; their `case_id` is kept in the id."""

    holds: ClassVar[Holds] = "requests"

    def read(self, path: Path) -> tuple[EditRequest, ...]:
        """Every row as a request named `hardcf-<case_id>`."""
        return _layouts.either(path, "hardcf")


LOADER = HardCF()
