"""A look at the weights of an edit: what each changed tensor underwent, and what sort of change that is. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class TensorLook:
    """What an edit does to one weight."""

    # The parameter.
    name: str
    # ||dW||_F; None where it is not finite, or was not measured.
    norm: float | None
    # Of dW; None for what is no matrix, is not finite, or was not measured.
    rank: int | None


@dataclass(frozen=True, slots=True)
class WeightsLook:
    """What an edit does to weights, told without running a text."""

    # In a sentence; empty where nothing was looked at.
    pattern: str = ""
    # What differs, by name.
    tensors: tuple[TensorLook, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"pattern": self.pattern, "tensors": [asdict(one) for one in self.tensors]}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `as_json`; nothing for a record that is older than this. Raises TypeError, KeyError."""
        return cls(row["pattern"], tuple(TensorLook(**one) for one in row["tensors"])) if row else cls()
