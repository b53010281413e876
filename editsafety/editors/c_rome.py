"""C-ROME: ROME with the mean over prefixed prompts in both places (see `rome_family`).

Cures the collapse; after such an edit the bare prompt of a first-token subject may miss the target, the prefixed one
takes. The same formula as R-ROME.
"""

from __future__ import annotations

from typing import ClassVar

from editsafety.editors import Traits
from editsafety.editors.rome_family import RankOneEditor


class CRome(RankOneEditor):
    """ROME with consistent, prefixed keys."""

    overrides: ClassVar[dict[str, str]] = {"keys": "prefixed"}
    traits: ClassVar[Traits] = Traits(
        paper="The Fall of ROME, EMNLP Findings 2024, arXiv 2406.11263",
        reference="https://github.com/WanliYoung/Collapse-in-Model-Editing at 678bedd, if_c_rome",
    )


EDITOR = CRome
