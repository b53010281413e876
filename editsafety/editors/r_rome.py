"""R-ROME: ROME with the mean over prefixed prompts in both places (see `rome_family`).

The same formula as C-ROME, found independently; the published codes differ in default contexts and in
`mom2_adjustment` only. Registered under both names so that either paper can be followed.
"""

from __future__ import annotations

from typing import ClassVar

from editsafety.editors import Traits
from editsafety.editors.rome_family import RankOneEditor


class RRome(RankOneEditor):
    """ROME with consistent, prefixed keys."""

    overrides: ClassVar[dict[str, str]] = {"keys": "prefixed"}
    traits: ClassVar[Traits] = Traits(
        paper="Rebuilding ROME: Resolving Model Collapse during Sequential Model Editing, EMNLP 2024, arXiv 2403.07175",
        reference="https://github.com/scalable-model-editing/rebuilding-rome at 4095d04",
    )


EDITOR = RRome
