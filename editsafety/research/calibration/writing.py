"""The file of a calibration: YAML as `--hparams` reads it, the evidence for every number behind it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editsafety import __version__
from editsafety.hyperparameters import Hparams
from editsafety.research.calibration.search import Found, Sought
from editsafety.research.tracing.effects import AverageEffects
from editsafety.tensor_files import write_atomically


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was calibrated, on what, and what came of it."""

    editor: str
    # Its slug, and the fingerprint of its weights.
    model: str
    fingerprint: str
    # All numbers at the beginning, and the names of those that an editor's variant sets by itself.
    start: Hparams
    fixed: frozenset[str]
    # Where they come from: "carried over from ...".
    origin: str
    # Of the MLPs at the subject's last token; None where no layer was sought.
    effects: AverageEffects | None
    # Where the requests come from; how many the search had.
    source: str
    requests: int
    found: Found

    def text(self) -> str:
        """The file."""
        lines = [f"# {line}" for line in self._heading()]
        sought = {one.name: one for one in self.found.sought}
        values = {**self.start.model_dump(mode="json"), **self.found.values}
        lines.append(f"models: [{self.model}]")
        for name, value in values.items():
            field = type(self.start).model_fields[name]
            if name in sought:
                lines.append(f"{name}: {_written(value)}  # {self._evidence(sought[name])}")
            elif name not in self.fixed and (field.is_required() or _plain(value) != _plain(field.default)):
                lines.append(f"{name}: {_written(value)}  # {self.origin}")
        return "\n".join(lines) + "\n"

    def save(self, path: Path) -> None:
        """Write the file. Raises OSError."""
        write_atomically(path, self.text().encode())

    def _heading(self) -> Sequence[str]:
        found = self.found
        verdict = "and so these are they" if found.is_better else "so those of the beginning are kept"
        gain = "better" if found.is_better else "no better"
        return (
            f"{self.editor} on {self.model}, calibrated with editsafety {__version__}.",
            f"Weights: fingerprint {self.fingerprint}.",
            f"Sought with single edits of {self.requests} known facts of {self.source}; score is the harmonic mean of",
            "success, rephrasings that follow and neighbours that stay. On "
            f"{found.before.edits} other facts the numbers found are {gain}, {verdict}:",
            f"  before ({self.origin}): {found.before}; score {found.before.score:.2f}",
            f"  found: {found.after}; score {found.after.score:.2f}",
        )

    def _evidence(self, sought: Sought) -> str:
        scores = [f"{_written(_plain(one.value))}: {one.outcome.score:.2f}" for one in sought.tried]
        told = f"score with {', '.join(scores)}" if len(scores) > 1 else "not sought"
        if sought.left:
            told += f"; no time for {', '.join(_written(_plain(value)) for value in sought.left)}"
        if self.effects is not None and sought.name in type(self.start).layer_numbers:
            peak = self.effects.peak
            effect = f"{self.effects.mean[peak]:.3f} +- {self.effects.stderr[peak]:.3f}"
            facts = f"{self.effects.facts} facts"
            told += f"; causal tracing: MLPs around layer {peak} bring back most ({effect} of the probability, {facts})"
        return told


def _plain(value: Any) -> Any:
    """A value as JSON has it: a tuple is a list there."""
    return json.loads(json.dumps(value))


def _written(value: Any) -> str:
    """A value as YAML reads it back; YAML takes 1e-05 for a word and 1.0e-05 for a number."""
    if isinstance(value, float) and "e" in repr(value):
        mantissa, exponent = repr(value).split("e")
        return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{exponent}"
    return json.dumps(value, ensure_ascii=False)
