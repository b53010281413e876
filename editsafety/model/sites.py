"""Site: where a weight is and which way round it is stored.

Everything outside this file handles weights as `[d_out, d_in]`. The layout comes from the *class* of the module:
transformers' `Conv1D` keeps `[d_in, d_out]`, linear layers `[d_out, d_in]`. A name cannot tell (gpt2 and gpt_neo share
`transformer.h.L.mlp.c_proj`, stored opposite ways) and a shape cannot either (a square weight fits both ways).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Layout(Enum):
    """How a projection keeps its weight."""

    OUT_IN = "out_in"
    IN_OUT = "in_out"


@dataclass(frozen=True, slots=True)
class Site:
    """The weight of one projection module."""

    # The full name of the module.
    module: str
    # Which way round it is stored.
    layout: Layout
    # What it gives.
    d_out: int
    # What it takes.
    d_in: int

    @property
    def parameter(self) -> str:
        """The parameter's full name."""
        return f"{self.module}.weight"

    def canonical(self, stored: Tensor) -> Tensor:
        """View a stored weight as `[d_out, d_in]`."""
        return stored if self.layout is Layout.OUT_IN else stored.T

    def stored(self, canonical: Tensor) -> Tensor:
        """View a `[d_out, d_in]` weight the way the module keeps it."""
        return canonical if self.layout is Layout.OUT_IN else canonical.T
