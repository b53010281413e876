"""HardCF (arXiv 2402.09656): the COUNTERFACT cases of which a single ROME edit collapses a model.

Published on a drive only, so it is not fetched: give the file as `hardcf:PATH`. Its code reads EasyEdit's rows (prompt,
subject, target_new, rephrase_prompt, locality_prompt, locality_ground_truth); these, COUNTERFACT's original layout, and
subsets for each model are accepted (see `_subsets.py`), and so are the "collapse cases" and "normal cases" of arXiv
2406.11263. The pattern is a prompt that begins with a one-token subject ("Twitter was acquired by").
"""

from __future__ import annotations

from typing import ClassVar

from editsafety.datasets._subsets import SubsetRows


class HardCF(SubsetRows):
    """COUNTERFACT cases; their `case_id` is kept in the id, and so is the name of a subset."""

    name: ClassVar[str] = "hardcf"


LOADER = HardCF()
