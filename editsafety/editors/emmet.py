"""EMMET: a batch of facts written as equality constraints, with the smallest change in the norm of C (see `_spread`).

    A = lambda C + update_norm_lambda I,   X = A^-1 K (K^T A^-1 K + emmet_lambda I)^-1,

so that X^T K = I without damping: every key answers exactly. For one request this is ROME's update with the same key
above and below, and emmet_lambda is left out, as in the published code. Without damping lambda cancels. With it (and no
update_norm_lambda) a batch is MEMIT's update with lambda * emmet_lambda in the place of MEMIT's lambda.

Where we differ from the published code: A^-1 is applied through a Cholesky factor that is kept; the pseudo-inverse of
K^T A^-1 K (when two requests say the same) is noted as `pseudo_inverse`.
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


class EmmetHparams(SpreadHparams, Mom2Hparams):
    """Hyperparameters of EMMET; `mom2_update_weight` is lambda."""

    mom2_update_weight: float = Field(gt=0)
    emmet_lambda: float = Field(ge=0)
    update_norm_lambda: float = Field(default=0.0, ge=0)  # every published configuration

    sought: ClassVar[Mapping[str, tuple[float, ...]]] = {**SpreadHparams.sought, "mom2_update_weight": (0.25, 4)}


class Emmet(SpreadEditor):
    """Equality-constrained Mass Model Editing algorithm for Transformers."""

    Hparams = EmmetHparams
    hparams: EmmetHparams
    traits: ClassVar[Traits] = Traits(
        batch=True,
        paper="A Unified Framework for Model Editing, EMNLP Findings 2024, arXiv 2403.14236",
        reference="https://github.com/scalable-model-editing/unified-model-editing, emmet/ at 23d72b5",
    )

    def answers(self, site: Site, found: Tensor, earlier: Earlier) -> tuple[Tensor, Notes]:
        """X = A^-1 K (K^T A^-1 K + emmet_lambda I)^-1."""
        settings = self.hparams
        weight = settings.mom2_update_weight
        inverse = self.moments.inverse(site, self.name, ridge=settings.update_norm_lambda / weight)
        ridge = settings.emmet_lambda if found.shape[1] > 1 else 0.0
        solved, pseudo = solve.constrained(found, inverse.columns(found) / weight, ridge)
        return solved, {"pseudo_inverse": pseudo}


EDITOR = Emmet
