"""AlphaEdit: MEMIT's update, projected so that keys of ordinary text give what they gave before (see `_spread`).

    [P (K K^T + M) + L2 I] X = P K

P projects onto the directions that ordinary keys hardly use (`editing/nullspace`); M holds the keys of earlier edits of
a sequence, each on the model that its edit left behind, so that they keep their answers. A batch's own keys enter M
after its edit. P is symmetric and idempotent, so X lies in its range and solves

    [L2 I + P (K K^T + M) P] X = P K,

a symmetric system of the form of MEMIT's with P K for K, whose small version `editing/solve` has.

Where we differ from the published code: the system is solved in float64, not float32, and it is that symmetric one, not
a general one of the size of the layer; a layer without any eigenvalue below `nullspace_threshold` is refused when P is
made, where theirs then edits nothing, silently; M belongs to a sequence (`Edit.carry`), not to a process; the model is
left as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from editsafety.editing import solve
from editsafety.editing.nullspace import NullSpaces, Precision
from editsafety.editing.solve import Earlier
from editsafety.editors import Traits
from editsafety.editors._spread import Notes, SpreadEditor, SpreadHparams
from editsafety.hyperparameters import Published
from editsafety.model.sites import Site
from editsafety.progress import Progress


class AlphaEditHparams(SpreadHparams):
    """Hyperparameters of AlphaEdit: the threshold is in the unit of C's eigenvalues, L2 in that of squared keys.

    `nullspace_precision`: "float32" is the published SVD, with its rounding next to the threshold; see `nullspace`.
    """

    nullspace_threshold: float = Field(gt=0)
    L2: float = Field(gt=0)
    nullspace_precision: Precision = "float64"

    sought: ClassVar[Mapping[str, tuple[float, ...]]] = {**SpreadHparams.sought, "L2": (0.25, 4)}
    published: ClassVar[Published] = replace(SpreadHparams.published, implied={"nullspace_precision": "float32"})


class AlphaEdit(SpreadEditor):
    """Null-space constrained editing."""

    Hparams = AlphaEditHparams
    hparams: AlphaEditHparams
    traits: ClassVar[Traits] = Traits(
        batch=True,
        paper="AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models, ICLR 2025, arXiv 2410.02355",
        reference="https://github.com/jianghoucheng/AlphaEdit, AlphaEdit/ at f5248d3",
    )

    @property
    def protects(self) -> bool:
        """Always: M is a part of the method."""
        return True

    @cached_property
    def spaces(self) -> NullSpaces:
        """The projections P that these hyperparameters ask for."""
        threshold, precision = self.hparams.nullspace_threshold, self.hparams.nullspace_precision
        return NullSpaces(self.handle, self.artifacts, self.moments, threshold, self.name, precision)

    def missing(self) -> str | None:
        """The second moments and their null spaces, unless they are there."""
        return self.spaces.missing(self.sites)

    def prepare(self, progress: Progress | None = None, corpus: Path | None = None) -> None:
        """Sample the context templates, make the second moments and P (from `corpus`, if given)."""
        self.groups()
        self.spaces.prepare(self.sites, progress, corpus)

    def answers(self, site: Site, found: Tensor, earlier: Earlier) -> tuple[Tensor, Notes]:
        """X = [L2 I + P (K K^T + M) P]^-1 P K; notes how many directions P has, and what it leaves of the keys."""
        space, weight = self.spaces.of(site), self.hparams.L2
        projected = space.project(found)
        solved = solve.regularised(
            projected,
            earlier.projected(space.project),
            solve=lambda columns: columns / weight,
            matrix=lambda: weight * torch.eye(site.d_in, dtype=projected.dtype, device=projected.device),
        )
        left = projected.norm(dim=0) / found.norm(dim=0).to(projected)
        return solved, {"null_space": space.dimensions, "key_in_null_space": float(left.min())}


EDITOR = AlphaEdit
