"""Trials: what single edits with given numbers come to on known facts. Each is kept, so that a search goes on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from editsafety import editors, measures
from editsafety.artifacts import ArtifactKey, ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor
from editsafety.edits.seal import Keepsake
from editsafety.errors import EditorError
from editsafety.lab.attempt import Questions, attempt, compute
from editsafety.lab.bench import Bench
from editsafety.model.handle import ModelHandle
from editsafety.progress import Progress, Task

ASKED = ("efficacy", "generalisation", "locality")
VERSION = 1  # of what is kept
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What single edits came to, means over requests; rates from 0 to 1."""

    # The new target is said when asked as the request asks.
    efficacy: float
    # It is said in answer to rephrasings.
    generalisation: float
    # Neighbours are answered as before.
    locality: float
    # Edits, and how many of them their editor could not make; these count as 0 in every figure.
    edits: int
    failed: int = 0

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, float]]) -> Outcome:
        """The means of the figures of several edits; no figures are those of an edit that failed."""
        means = {name: statistics.fmean(row.get(name, 0.0) for row in rows) for name in ASKED}
        return cls(**means, edits=len(rows), failed=sum(not row for row in rows))

    @property
    def score(self) -> float:
        """The harmonic mean of the three, as ROME's score S: no one of them makes up for another."""
        rates = (self.efficacy, self.generalisation, self.locality)
        return statistics.harmonic_mean(rates)

    def __str__(self) -> str:
        rates = f"success {self.efficacy:.2f}, rephrased {self.generalisation:.2f}, neighbours {self.locality:.2f}"
        return f"{rates}{f', {self.failed} of {self.edits} edits failed' if self.failed else ''}"


@dataclass
class Trials:
    """An editor on a model, with whatever numbers."""

    handle: ModelHandle
    # An editor's name.
    editor: str
    # All of its numbers, to begin with.
    start: Values
    artifacts: ArtifactStore
    seed: int = 0
    # Seconds that an edit took with everything that is asked of it, one for each that was made or found.
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        chosen = tuple(map(measures.load, ASKED))
        self.kind = editors.load(self.editor).Hparams
        self.bench = Bench(self.handle, (), (), 64, Keepsake.of(self.handle, most_bytes=0), chosen)
        self._code = editors.code_version(self.editor)

    def prepare(self, where: str | None, layers: Sequence[Any], progress: Progress) -> None:
        """What the editor needs for these values of the number `where`; several layers in one pass over the texts."""
        several = any(isinstance(some, tuple) for some in layers)
        values = [sorted({layer for some in layers for layer in some})] if several else layers
        for changes in [{where: value} for value in values] if where else [{}]:
            editor = self.make(changes)
            if editor.missing() is not None:
                editor.prepare(progress)

    def outcome(self, changes: Values, requests: Iterable[EditRequest], task: Task) -> Outcome:
        """What the numbers come to with these changes; every request is edited by itself. A step for each."""
        rows = []
        for request in requests:
            rows.append(self._figures(changes, request))
            task.step(request.id)
        return Outcome.of(rows)

    def make(self, changes: Values) -> Editor:
        """The editor with these changes to its numbers. Raises UsageError for a number that it does not take."""
        return editors.make(self.editor, self.handle, self.artifacts, changes={**self.start, **changes}, seed=self.seed)

    def _figures(self, changes: Values, request: EditRequest) -> Mapping[str, float]:
        """The three rates of one edit; none for one that failed."""
        editor = self.make(changes)
        numbers = editor.hparams.model_dump(mode="json")
        asked = {"editor": self.editor, "code": self._code, "numbers": numbers, "request": request.digest()}
        versions = {one.name: one.version for one in self.bench.measures}
        settings = {**asked, "seed": self.seed, "measures": versions, "version": VERSION}
        key = ArtifactKey("trial", self.handle.identity, settings)
        kept = self.artifacts.get(key)
        if kept is None:
            started = time.monotonic()
            found = self._measured(editor, request)
            found["seconds"] = time.monotonic() - started
            kept = {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}
            self.artifacts.put(key, kept)
        found = {name: float(value) for name, value in kept.items()}
        self.seconds.append(found.pop("seconds"))
        return found

    def _measured(self, editor: Editor, request: EditRequest) -> dict[str, float]:
        before = self.bench.unedited((request,))
        try:
            made = compute(self.handle, editor, (request,))
        except EditorError:  # numbers that are too large leave no finite vector; told as a failed edit
            return {}
        step, _ = attempt(self.bench, made, [Questions((request,), before)])
        values = {name: step.found[name].value for name in ASKED}
        return {name: value for name, value in values.items() if value is not None}
