"""Tolerance: by how much a figure may be worse than the accepted one, and what it means if it is. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Tier = Literal["blocking", "warning", "informative"]
Number = Field(default=0.0, allow_inf_nan=False, strict=True, ge=0)


class Tolerance(BaseModel):
    """What a figure may lose: the larger of an absolute and a relative part, and never less than the run's own noise.

    A loss past it counts only if the cases show it (see `paired`); blocking ones turn the exit code to 12.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    better: Literal["higher", "lower"]
    absolute: float = Number
    relative: float = Number  # of the accepted figure
    each: bool = False  # whether every case is compared by itself, too: for figures that repeat exactly
    tier: Tier = "blocking"
    why: str

    def of(self, accepted: float, noise: float) -> float:
        """How much worse than the accepted figure is still the same."""
        return max(self.absolute, self.relative * abs(accepted), noise)

    def loss(self, before: float, now: float) -> float:
        """How much worse it is; below 0 where it is better."""
        return before - now if self.better == "higher" else now - before
