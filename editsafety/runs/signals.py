"""Signals: figures of an edit that are known before any text is run, and on which side each speaks of collapse.

The one list of them. What measures them (`measures/weights`), asks them (`judging/alarms`) or lists them
(`research/hardcases/mining`) reads it here. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["above", "below"]


@dataclass(frozen=True, slots=True)
class Signal:
    """One figure; its side is known from the literature, not read off the data."""

    # The name of its measurement, or of the note that an editor leaves.
    name: str
    # What the figure is counted in; "1" for a number without a unit.
    unit: str
    # On which side of a threshold a collapse lies.
    collapse: Direction
    # Whether its sign says nothing: then it is judged by its size, and written |name|.
    by_size: bool = False
    # Whether it becomes a measurement of its own in every record.
    measured: bool = True

    def __str__(self) -> str:
        return f"|{self.name}|" if self.by_size else self.name


# Figures of dW = W_after - W, which `measures/weights` computes.
DELTA = (
    Signal("delta_norm", "frobenius", "above"),
    Signal("delta_relative", "ratio", "above"),
    Signal("delta_per_entry", "frobenius/entry", "above"),
    Signal("delta_large_share", "share", "above"),
    Signal("spectral_norm", "spectral", "above"),
    Signal("norm_growth", "ratio", "above"),
)

# What editors note about themselves.
NOTED = (
    Signal("numerator", "norm", "above"),
    Signal("update_norm", "frobenius", "above", measured=False),  # delta_norm is the same figure, of any editor
    Signal("first_token", "bool", "above"),
    Signal("denominator", "1", "below", by_size=True),
    Signal("key_cosine", "cosine", "below"),
)

# Figures of another kind: not of an edit, but of how far the weights have moved after all edits of a sequence. The walk
# computes them (`lab/walk_drift`), and no single edit has them.
DRIFT = (
    Signal("drift_relative", "ratio", "above"),
    Signal("drift_growth", "ratio", "above"),
    Signal("drift_spectral", "ratio", "above"),
    Signal("drift_condition", "ratio", "above"),
    Signal("drift_overlap", "share", "below"),
)

# What only a step of a course has: figures of the walk itself, and of no measure.
WALK = ("recent", "kept", *(signal.name for signal in DRIFT))

# What a step of a course has beside the measures of the model alone: what limits on courses may be on.
STEP = (*WALK, "generalisation", "locality", "locality_tokens", "weights_finite")

EVERY = (*DELTA, *NOTED, *DRIFT)
