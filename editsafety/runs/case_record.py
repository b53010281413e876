"""CaseRecord: everything that was found about one case, step by step, as it is kept in the store. No torch here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from editsafety.datasets.request import EditRequest
from editsafety.errors import DataError, UsageError
from editsafety.runs.case import Case
from editsafety.runs.measurement import Measurement
from editsafety.runs.schedule import SINGLE, Schedule
from editsafety.runs.weights_look import WeightsLook

SCHEMA = 3
Notes = Mapping[str, float | str | bool]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a case has no result, or no further steps."""

    kind: str  # "editor", "contract", "oom", "device", "undeclared", "measure", "died", "timeout"
    message: str
    where: str = ""  # file and line that raised it
    undeclared: tuple[str, ...] = ()  # what the editor changed by itself, where that is why
    stack: tuple[str, ...] = ()  # where its process was when it hung or died, the innermost call first

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """From its row in a record."""
        return cls(**{**row, "undeclared": tuple(row["undeclared"]), "stack": tuple(row.get("stack", ()))})


@dataclass(frozen=True, slots=True)
class Cost:
    """What an edit cost; over several edits between two steps the mean in seconds, the largest in bytes."""

    edit: float | None = None  # seconds to compute it
    apply: float | None = None  # seconds to put it into the model
    undo: float | None = None  # seconds to take it out again
    measure: float | None = None  # seconds to measure the edited model
    edit_bytes: int | None = None  # peak memory above the model's own while it was computed
    reused: float = 0.0  # those of the seconds of `edit` that another edit took: this one found a part of its work done


@dataclass(frozen=True, slots=True)
class Step:
    """An edited model that was measured. A single edit has one, a course one for every measured point."""

    edits: int  # requests that are in the model
    block: tuple[str, ...]  # ids of those since the step before
    found: Mapping[str, Measurement]  # what was measured of the edited model, by name
    notes: Notes = field(default_factory=dict)  # what the editor noted about its last edit
    cost: Cost = Cost()
    edit_id: str | None = None  # sha256 of the last edit
    declared: tuple[str, ...] = ()  # parameters that the edit said it changes
    changed: tuple[str, ...] = ()  # parameters and buffers that did change
    rounded: tuple[str, ...] = ()  # those of them whose numbers are the old ones, rounded to a narrower type at most
    leftovers: tuple[str, ...] = ()  # what the editor left behind; it was put back
    restored: bool | None = None  # whether every byte came back afterwards; None where the edit stays for the next one
    look: WeightsLook = field(
        default_factory=WeightsLook
    )  # what the edit does to weights; nothing of a step of several edits

    @property
    def undeclared(self) -> tuple[str, ...]:
        """What changed without being declared."""
        return tuple(name for name in self.changed if name not in self.declared)

    @property
    def writes(self) -> bool:
        """Whether anything was written: numbers of a weight, or a sidecar that runs beside the model."""
        return bool({*self.changed} - {*self.rounded}) or bool(self.notes.get("sidecars"))

    def ratio(self, before: Mapping[str, Measurement]) -> float | None:
        """Perplexity over that of the unedited model; infinite where the model broke, None where none was measured."""
        return perplexity_ratio(before.get("me_ppl"), self.found.get("me_ppl"))


@dataclass(frozen=True, slots=True)
class Breaking:
    """The edit that broke the model: found by bisection between two steps of a course."""

    edits: int  # requests in the model once it was broken
    requests: tuple[EditRequest, ...]  # those of the edit that broke it
    ratio: float  # perplexity ratio with it
    ratio_before: float  # without it
    alone: float | None = None  # of the same edit on the unedited model: tells a hard case from an accumulation
    edit_id: str = ""
    delta: str = ""  # file of the edit, below the folder of the run
    notes: Notes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """A case as far as it was run."""

    case: str  # its id
    model: str  # short name
    editor: str  # short name
    stream: str
    requests: tuple[EditRequest, ...]
    schedule: Schedule = SINGLE
    before: Mapping[str, Measurement] = field(default_factory=dict)  # what was measured of the unedited model
    abilities: tuple[str, ...] = ()  # which of that are abilities; they are measured at every step, too
    steps: tuple[Step, ...] = ()
    breaking: Breaking | None = None
    failure: Failure | None = None
    ended: str = ""  # "complete", "collapsed" (a course stopped early), "failed"; empty while there is more to do
    remarks: tuple[str, ...] = ()  # what happened on the way that a reader has to know

    @classmethod
    def begun(cls, case: Case, model: str, editor: str, **more: Any) -> Self:
        """The record of a case before its first step."""
        return cls(case.id, model, editor, case.stream, case.requests, case.schedule, **more)

    @property
    def is_course(self) -> bool:
        """Whether it is of several edits or measured models, and not of one single edit."""
        return self.schedule.kind != "single"

    @property
    def planned(self) -> int:
        """Number of its requests."""
        return len(self.requests)

    @property
    def step(self) -> Step:
        """The last step; an empty one where none was reached."""
        return self.steps[-1] if self.steps else Step(0, (), {})

    @property
    def after(self) -> Mapping[str, Measurement]:
        """What was measured of the edited model at last."""
        return self.steps[-1].found if self.steps else {}

    @property
    def notes(self) -> Notes:
        """What the editor noted about its last edit."""
        return self.step.notes

    @property
    def undeclared(self) -> tuple[str, ...]:
        """What an editor changed without saying so."""
        return self.failure.undeclared if self.failure is not None else self.step.undeclared

    @property
    def ratios(self) -> tuple[float | None, ...]:
        """Perplexity ratio of every step."""
        return tuple(step.ratio(self.before) for step in self.steps)

    @property
    def worst(self) -> float | None:
        """The running maximum at the end: perplexity can fall again after a collapse. None: nothing measured."""
        seen = [*self.ratios, *([self.breaking.ratio] if self.breaking else [])]  # bisection looks between the steps
        return max((ratio for ratio in seen if ratio is not None), default=None)

    def breaks_at(self, limit: float) -> int | None:
        """The edits at which the model was broken: the edit that bisection found, else the first step past the limit.

        A step whose perplexity is no number is past any limit. None where the model stands.
        """
        if self.breaking is not None:
            return self.breaking.edits
        pairs = zip(self.steps, self.ratios, strict=True)
        return next((step.edits for step, ratio in pairs if ratio is None or not ratio <= limit), None)

    def plus(self, step: Step) -> CaseRecord:
        """The record with one more step."""
        return replace(self, steps=(*self.steps, step))

    def up_to(self, steps: int) -> CaseRecord:
        """The record as it was after so many steps, still under way."""
        kept = self.steps[:steps]
        reached = kept[-1].edits if kept else 0
        breaking = self.breaking if self.breaking is not None and self.breaking.edits <= reached else None
        return replace(self, steps=kept, breaking=breaking, failure=None, ended="")

    def remarked(self, *sentences: str) -> CaseRecord:
        """The record with further remarks, each said once."""
        return replace(self, remarks=tuple(dict.fromkeys((*self.remarks, *sentences))))

    def to_text(self) -> str:
        """One JSON line; every number in it is finite, infinite ones are spelled."""
        body = {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in ("case", "model", "editor", "stream", "ended")},
            "requests": [request.as_json() for request in self.requests],
            "schedule": self.schedule.as_json(),
            "before": _rows(self.before),
            "steps": [_step_row(step) for step in self.steps],
            "breaking": _breaking_row(self.breaking) if self.breaking else None,
            "failure": asdict(self.failure) if self.failure else None,
            "abilities": list(self.abilities),
            "remarks": list(self.remarks),
        }
        return json.dumps(body, allow_nan=False, sort_keys=True)  # in ASCII: lone surrogates survive it

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The inverse of `to_text`. Raises ValueError for anything else than a whole record of this schema."""
        body: dict[str, Any] = json.loads(text)
        if not isinstance(body, dict) or body.pop("schema", None) != SCHEMA:
            raise ValueError(f"a record of another schema than {SCHEMA}")
        if wrong := body.keys() ^ {one.name for one in fields(cls)}:
            raise ValueError(f"not a whole record: {', '.join(sorted(wrong))} missing or unknown")
        try:
            failure = body["failure"]
            return cls(
                **{name: body[name] for name in ("case", "model", "editor", "stream", "ended")},
                requests=_requests(body["requests"]),
                schedule=Schedule.from_json(body["schedule"]),
                before=_measurements(body["before"]),
                steps=tuple(_step(row) for row in body["steps"]),
                breaking=_breaking(body["breaking"]) if body["breaking"] else None,
                failure=Failure.read(failure) if failure else None,
                abilities=tuple(body["abilities"]),
                remarks=tuple(body["remarks"]),
            )
        except (KeyError, TypeError, AttributeError, DataError, UsageError) as error:
            raise ValueError(f"not a whole record: {error}") from error


def perplexity_ratio(before: Measurement | None, after: Measurement | None) -> float | None:
    """After / before; infinite where the edited model broke, None where either was not measured."""
    if after is not None and after.broken:
        return math.inf
    if before is None or before.value is None or after is None or after.value is None:
        return None
    return after.value / before.value if before.value > 0 else math.inf


def plain_notes(notes: Mapping[str, object]) -> dict[str, Any]:
    """Notes are an editor's own and may be anything; numbers that are not finite are written by name."""
    return {str(name): _spelled(value) for name, value in notes.items()}


def _spelled(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _rows(found: Mapping[str, Measurement]) -> dict[str, Any]:
    return {name: measurement.as_json() for name, measurement in found.items()}


def _measurements(rows: Mapping[str, Any]) -> dict[str, Measurement]:
    return {name: Measurement.from_json(row) for name, row in rows.items()}


def _requests(rows: list[Any]) -> tuple[EditRequest, ...]:
    return tuple(EditRequest.from_json(row) for row in rows)


def _step_row(step: Step) -> dict[str, Any]:
    return {**asdict(replace(step, found={})), "found": _rows(step.found), "notes": plain_notes(step.notes)}


def _step(row: Mapping[str, Any]) -> Step:
    names = {name: tuple(row[name]) for name in ("block", "declared", "changed", "rounded", "leftovers")}
    more = {"cost": Cost(**row["cost"]), "look": WeightsLook.from_json(row.get("look", {}))}
    return Step(**{**row, **names, **more, "found": _measurements(row["found"])})


def _breaking_row(breaking: Breaking) -> dict[str, Any]:
    row = {name: getattr(breaking, name) for name in ("edits", "edit_id", "delta")}
    numbers = {name: _spelled(getattr(breaking, name)) for name in ("ratio", "ratio_before", "alone")}
    requests = [request.as_json() for request in breaking.requests]
    return {**row, **numbers, "requests": requests, "notes": plain_notes(breaking.notes)}


def _breaking(row: Mapping[str, Any]) -> Breaking:
    numbers = {name: None if row[name] is None else float(row[name]) for name in ("ratio", "ratio_before", "alone")}
    return Breaking(**{**row, **numbers, "requests": _requests(row["requests"])})
