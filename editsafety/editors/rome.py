"""ROME as published: u from the mean over prefixed prompts, the denominator from the bare prompt (see `rome_family`).

W' k_0 = v* holds exactly for the bare key k_0. The mismatch of the keys is what makes some edits collapse a model; it
is kept on purpose. `c_rome` is the cure.
"""

from __future__ import annotations

from typing import ClassVar

from editsafety.editors import Traits
from editsafety.editors.rome_family import RankOneEditor


class Rome(RankOneEditor):
    """Rank-One Model Editing with the keys of the published code."""

    overrides: ClassVar[dict[str, str]] = {"keys": "mixed"}
    traits: ClassVar[Traits] = Traits(
        paper="Locating and Editing Factual Associations in GPT, NeurIPS 2022, arXiv 2202.05262",
        reference="https://github.com/kmeng01/rome, rome/ at 0874014",
    )


EDITOR = Rome
