"""Fact: something that a run knows beside its records. What kinds there are is in `facts`. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class RunFact:
    """Base class: `kind` is where it is kept, `name` which one of its kind it is."""

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Empty where there is one of its kind."""
        return ""


@dataclass(frozen=True)
class OfModel(RunFact):
    """A fact about a model."""

    model: str  # short name

    @property
    def name(self) -> str:
        """The model."""
        return self.model


@dataclass(frozen=True)
class OfBlock(RunFact):
    """A fact about an editor on a model."""

    model: str  # short names
    editor: str

    @property
    def name(self) -> str:
        """Both."""
        return f"{self.model}:{self.editor}"
