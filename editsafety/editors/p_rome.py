"""p-ROME: ROME with the bare prompt's key in both places (see `rome_family`).

v* is still optimised over all contexts; only the keys are bare.
"""

from __future__ import annotations

from typing import ClassVar

from editsafety.editors import Traits
from editsafety.editors.rome_family import RankOneEditor


class PRome(RankOneEditor):
    """ROME with consistent, bare keys."""

    overrides: ClassVar[dict[str, str]] = {"keys": "prompt"}
    traits: ClassVar[Traits] = Traits(
        paper="Rebuilding ROME: Resolving Model Collapse during Sequential Model Editing, EMNLP 2024, arXiv 2403.07175",
        reference="https://github.com/scalable-model-editing/rebuilding-rome at 4095d04, enable_prompt_keys",
    )


EDITOR = PRome
