"""MEMIT: a batch of facts in one least-squares update per layer, spread over several layers (see `_spread`).

    X = (lambda C + K K^T)^-1 K

weighs the new facts against what ordinary text does in the layer: the larger `mom2_update_weight` (lambda), the less is
written. The keys are the same everywhere, so that k^T (lambda C)^-1 k is a quadratic form and no denominator vanishes.

`protect_earlier` is MEMIT_seq of AlphaEdit's repository (f5248d3; as published it crashes): M, the keys of earlier
edits on the model that they left behind, joins lambda C + K K^T. Off, every edit of a sequence knows the current model
and nothing of the edits before it, as published.

Where we differ from the published code: a system of the size of the batch is solved in place of one of the size of the
layer (see `editing/solve`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from editsafety.editing import solve
from editsafety.editing.moments import Mom2Hparams
from editsafety.editing.solve import Earlier
from editsafety.editors import Traits
from editsafety.editors._spread import Notes, SpreadEditor, SpreadHparams
from editsafety.model.sites import Site


class MemitHparams(SpreadHparams, Mom2Hparams):
    """Hyperparameters of MEMIT; `mom2_update_weight` is lambda."""

    mom2_update_weight: float = Field(gt=0)
    protect_earlier: bool = False

    sought: ClassVar[Mapping[str, tuple[float, ...]]] = {**SpreadHparams.sought, "mom2_update_weight": (0.25, 4)}


class Memit(SpreadEditor):
    """Mass-Editing Memory in a Transformer."""

    Hparams = MemitHparams
    hparams: MemitHparams
    traits: ClassVar[Traits] = Traits(
        batch=True,
        paper="Mass-Editing Memory in a Transformer, ICLR 2023, arXiv 2210.07229",
        reference="https://github.com/kmeng01/memit, memit/ at 80426fd",
    )

    @property
    def protects(self) -> bool:
        """As `protect_earlier` says."""
        return self.hparams.protect_earlier

    def answers(self, site: Site, found: Tensor, earlier: Earlier) -> tuple[Tensor, Notes]:
        """X = (lambda C + M + K K^T)^-1 K, equation 14 of the paper."""
        weight = self.hparams.mom2_update_weight
        inverse = self.moments.inverse(site, self.name)
        solved = solve.regularised(
            inverse.widened(found),
            earlier if self.protects else Earlier(),
            solve=lambda columns: inverse.columns(columns) / weight,
            matrix=lambda: self.moments.matrix(site, self.name) * weight,
        )
        return solved, {}


EDITOR = Memit
