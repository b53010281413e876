"""COUNTERFACT (ROME, arXiv 2202.05262): 21,919 counterfactual statements, in the original or EasyEdit's flat layout."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.datasets import Holds, _layouts
from editsafety.datasets.request import EditRequest


class CounterFact:
    """Original rows have one rephrasing or more and ten neighbours, flat rows at most one of each."""

    holds: ClassVar[Holds] = "requests"

    def read(self, path: Path) -> tuple[EditRequest, ...]:
        """Every row as a request named `counterfact-<case_id>`."""
        return _layouts.either(path, "counterfact")


LOADER = CounterFact()
