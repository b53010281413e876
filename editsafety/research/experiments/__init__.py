"""The papers' experiments, one per file: each a function from a model to a table and the sentence that it shows.

A file here or an entry point in group `editsafety.experiments`; it ends in `EXPERIMENT = TheClass()`. What is a command
of its own (`ELSEWHERE`) is not repeated here, only named.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

from editsafety import discovery
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor
from editsafety.errors import DataError, UnknownNameError, UsageError
from editsafety.judging.checks import ratio
from editsafety.lab.bench import Bench
from editsafety.lab.lab import Lab
from editsafety.model.handle import ModelHandle
from editsafety.numbers import exact
from editsafety.progress import Progress
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.measurement import Measurement
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store

Cell = str | float | None
ALWAYS = ("rome", "c_rome")  # whatever else was asked for: the papers are about these two
BUTTERFLY = "The Butterfly Effect of Model Editing, arXiv 2402.09656"
FALL = "The Fall of ROME, arXiv 2406.11263"
HARMS = "Model Editing Harms General Abilities, arXiv 2401.04700"

# Experiments of the papers that are commands of their own: (paper, what it is, command).
_EDITORS = " ".join(f"--editor {name}" for name in ("ft", "mend", "rome", "memit"))
ELSEWHERE: dict[str, tuple[str, str, str]] = {
    "correlation": (f"{BUTTERFLY}, figure 2", "perplexity against abilities", "editsafety surrogate RUN_FOLDER"),
    "sequential": (
        f"{BUTTERFLY}, figure 4",
        "perplexity against the number of edits",
        f"editsafety sequence --model MODEL {_EDITORS} --stream hard",
    ),
    "hardcf": (
        f"{BUTTERFLY}, HardCF",
        "the edits of a pool that collapse a model",
        "editsafety mine --model MODEL --pool POOL -o FILE",
    ),
    "keys": (f"{FALL}, t-SNE maps", "where the keys lie", "editsafety keys --model MODEL --map FILE.png --by tsne"),
}


@dataclass(frozen=True, slots=True)
class Result:
    """What an experiment came to."""

    # Its name.
    experiment: str
    # That of the model.
    model: str
    # Of the columns.
    headings: tuple[str, ...]
    # Of the table; a cell is a text, a number, or None for what was not measured.
    rows: tuple[tuple[Cell, ...], ...]
    # What it shows.
    sentence: str
    # The papers' own figures, in words.
    published: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values; a number that is not finite is written by its name."""
        rows = [dict(zip(self.headings, map(_plain, row), strict=True)) for row in self.rows]
        about = {name: getattr(self, name) for name in ("experiment", "model", "sentence", "published")}
        return {**about, "rows": rows}


class Experiment(Protocol):
    """One experiment; `paper` says where it is from, `title` what it is."""

    name: ClassVar[str]
    paper: ClassVar[str]
    title: ClassVar[str]

    def __call__(self, context: Context) -> Result:
        """Run it. Raises EditSafetyError for what stands in the way."""
        ...


@dataclass
class Context:
    """What an experiment is given."""

    # Hold one model and one editor.
    settings: Settings
    # Finished cases are found again in it.
    store: Store
    # Where to report.
    progress: Progress
    # "tiny", or a T5 (hub id or folder).
    encoder: str = "tiny"
    # How many edits an experiment of several edits makes.
    steps: int = 15
    # How many of the worst cases are listed.
    worst: int = 10
    # Models that are in memory already, by name.
    handles: dict[str, ModelHandle] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model's name, as given."""
        return self.settings.models[0]

    @property
    def editor(self) -> str:
        """The editor's name, as given."""
        return self.settings.editors[0]

    @cached_property
    def lab(self) -> Lab:
        """The lab that runs the cases: those of the papers' two editors and of the one that was asked for."""
        names = tuple(dict.fromkeys((*ALWAYS, self.editor)))
        # A file of hyperparameters is for the editor that was asked for, and for both of ROME and C-ROME: they share.
        given = [*(ALWAYS if self.editor in ALWAYS else (self.editor,))]
        files = tuple(
            one for path in self.settings.hparams for one in ([path] if "=" in path else [f"{n}={path}" for n in given])
        )
        plan = RunPlan.of(replace(self.settings, editors=names, hparams=files))
        # Nothing is wanted but what an experiment asks for, case by case.
        return Lab(plan, self.store, self.progress, handles=self.handles, wanted=())

    @property
    def bench(self) -> Bench:
        """The model, measured unedited."""
        return self.lab.tools.bench(self.model)

    @property
    def handle(self) -> ModelHandle:
        """The model."""
        return self.bench.handle

    def ready(self, editor: str) -> Editor:
        """An editor that can edit at once. Raises NotPreparedError."""
        return self.lab.tools.ready(self.model, editor)

    def requests(self, stream: str) -> list[EditRequest]:
        """The requests of a stream, "hard" or "normal". Raises DataError when there are none."""
        found = [case.request for case in self.lab.plan.cases if (case.editor, case.stream) == (self.editor, stream)]
        if not found:
            raise DataError(f"{self.model} comes with no {stream} requests; give some: --{stream} LOADER:FILE.")
        return found

    def records(self, editor: str, stream: str) -> list[CaseRecord]:
        """The records of every single edit of a stream, computed where they are missing."""
        self.requests(stream)
        cases = [case for case in self.lab.plan.cases if (case.editor, case.stream) == (editor, stream)]
        return [self.lab.record(case, beside=cases) for case in cases]


def names() -> list[str]:
    """Every experiment of this package, as it is written on the command line; imports none."""
    return [name.replace("_", "-") for name in discovery.names("research.experiments")]


def load(name: str) -> Experiment:
    """The experiment behind a name. Raises UsageError for one that is a command of its own, UnknownNameError."""
    if name in ELSEWHERE:
        raise UsageError(f"{name} is a command of its own: {ELSEWHERE[name][2]}")
    if name not in names():
        raise UnknownNameError("experiment", name, [*names(), *ELSEWHERE])
    experiment: Experiment = discovery.load("research.experiments", name.replace("-", "_"))
    return experiment


def perplexity(record: CaseRecord) -> float | None:
    """Perplexity of the edited model; infinite where it broke, None where it was not measured (the editor failed)."""
    measured = record.after.get("me_ppl")
    if measured is None:
        return None
    return math.inf if measured.broken else measured.value


def ratios(records: Sequence[CaseRecord]) -> list[float]:
    """Perplexity after over before of those that were measured."""
    return [found for record in records if (found := ratio(record)) is not None]


def figures(records: Sequence[CaseRecord], name: str) -> list[float]:
    """The sizes of a figure that was measured, or noted by the editor."""
    found = [record.after.get(name) for record in records]
    noted = [record.notes.get(name) for record in records]
    return [
        abs(float(value))
        for one, note in zip(found, noted, strict=True)
        if (value := one.value if one is not None and one.value is not None else note) is not None
        and isinstance(value, int | float) and math.isfinite(value)
    ]  # fmt: skip


def value(found: Measurement | None) -> float | None:
    """The value of a measurement, None where there is none."""
    return None if found is None else found.value


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; None of nothing."""
    return statistics.fmean(values) if values else None


def median(values: Sequence[float]) -> float | None:
    """Median; None of nothing."""
    return statistics.median(values) if values else None


def over(above: float | None, below: float | None) -> float | None:
    """The quotient; None where one of the two is missing or the lower one is 0."""
    return above / below if above is not None and below else None


def spell(number: float | None, digits: int = 3) -> str:
    """A number for a sentence; "-" where there is none."""
    return "-" if number is None else exact(number, digits)


def _plain(cell: Cell) -> Cell:
    return str(cell) if isinstance(cell, float) and not math.isfinite(cell) else cell
