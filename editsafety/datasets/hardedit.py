"""HardEdit (arXiv 2402.09656): made-up facts after the pattern of HardCF, to collapse models in sequence.

Published on a drive only, so it is not fetched: give the file as `hardedit:PATH`, in the layouts of HardCF. `hardedit`
alone is the set that this project wrote after the same recipe, in our own layout.
"""

from __future__ import annotations

from typing import ClassVar

from editsafety.datasets._subsets import SubsetRows


class HardEdit(SubsetRows):
    """Rows without a `case_id` are numbered from 1."""

    name: ClassVar[str] = "hardedit"


LOADER = HardEdit()
