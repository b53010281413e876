"""What a trace found: effects of every fact, and their averages by layer and by where a token stands."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from editsafety.research.tracing.facts import CLASSES
from editsafety.tensor_files import write_atomically

KINDS = ("state", "mlp", "attention")


@dataclass(frozen=True, slots=True)
class TracedFact:
    """Probabilities of one fact's answer, means over samples of the noise."""

    # Of the request.
    id: str
    # Of the clean run.
    clean: float
    # With the noise.
    corrupted: float
    # Indirect effects by kind and class, one for each layer; a class that the prompt has no token of is left out.
    effects: Mapping[str, Mapping[str, tuple[float, ...]]]


@dataclass(frozen=True, slots=True)
class AverageEffects:
    """Average indirect effects of one kind on tokens of one class, one number for each layer."""

    kind: str
    tokens: str
    # How many facts have such a token.
    facts: int
    # Differences of probabilities.
    mean: tuple[float, ...]
    # Of the mean over facts; 0 for a single fact.
    stderr: tuple[float, ...]

    @property
    def peak(self) -> int:
        """The layer with the largest effect; of equal ones the lowest."""
        return max(range(len(self.mean)), key=self.mean.__getitem__)


@dataclass(frozen=True, slots=True)
class CausalTrace:
    """The traces of several facts, and with what they were made."""

    model: str
    fingerprint: str
    # Decoder blocks.
    layers: int
    # Standard deviation of the noise.
    noise: float
    # Runs with noise of their own, for each fact.
    samples: int
    # Layers whose MLPs or attentions are restored together.
    window: int
    seed: int
    facts: tuple[TracedFact, ...]

    @property
    def total_effect(self) -> float:
        """By how much the noise lowers the probability of the answer, on average."""
        return statistics.fmean(fact.clean - fact.corrupted for fact in self.facts)

    @property
    def averages(self) -> tuple[AverageEffects, ...]:
        """By kind and class, in their order."""
        kinds = [kind for kind in KINDS if kind in self.facts[0].effects]
        return tuple(found for kind in kinds for name in CLASSES if (found := self.average(kind, name)) is not None)

    def average(self, kind: str, tokens: str) -> AverageEffects | None:
        """Of one kind and class; None where no prompt has such a token."""
        rows = [fact.effects[kind][tokens] for fact in self.facts if tokens in fact.effects[kind]]
        if not rows:
            return None
        columns = list(zip(*rows, strict=True))
        spread = [statistics.stdev(one) / sqrt(len(rows)) if len(rows) > 1 else 0.0 for one in columns]
        return AverageEffects(kind, tokens, len(rows), tuple(map(statistics.fmean, columns)), tuple(spread))

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        told = {name: getattr(self, name) for name in ("model", "fingerprint", "layers", "noise", "samples")}
        averages = [asdict(one) for one in self.averages]
        more = {"window": self.window, "seed": self.seed, "total_effect": self.total_effect, "averages": averages}
        return {**told, **more, "facts": [asdict(fact) for fact in self.facts]}

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        write_atomically(path, (json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n").encode())
