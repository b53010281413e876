"""CourseRecord: what was found along a course, as it is kept in the store. No torch here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from editsafety.datasets.request import EditRequest
from editsafety.errors import DataError, UsageError
from editsafety.runs.case_record import Failure
from editsafety.runs.measurement import Measurement
from editsafety.runs.schedule import Schedule

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Step:
    """An edited model that was measured.

    `edits` counts the requests that are in it, `block` names those since the step before. `found` holds perplexity, the
    rates of the last block (`recent`) and of all requests in the model (`kept`), the drift of the weights, and
    abilities where they were asked for. `notes` are of the last edit, `seconds` the mean of one edit of the block.
    """

    edits: int
    block: tuple[str, ...]
    found: Mapping[str, Measurement]
    notes: Mapping[str, float | str | bool] = field(default_factory=dict)
    seconds: float | None = None
    peak_bytes: int | None = None

    def ratio(self, before: Mapping[str, Measurement]) -> float | None:
        """Perplexity over that of the unedited model; infinite where the model broke, None where none was measured."""
        was, now = before.get("me_ppl"), self.found.get("me_ppl")
        if now is not None and now.broken:
            return math.inf
        if was is None or was.value is None or now is None or now.value is None:
            return None
        return now.value / was.value if was.value > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Breaking:
    """The edit that broke the model: found by bisection between two steps.

    With `edits` - its own requests in it the model was at `ratio_before`, with them at `ratio`. `alone` is the ratio of
    the same requests edited into the unedited model: what tells a hard case from an accumulation. `delta` is the file
    of the edit, below the folder of the run.
    """

    edits: int
    requests: tuple[EditRequest, ...]
    ratio: float
    ratio_before: float
    alone: float | None = None
    edit_id: str = ""
    delta: str = ""
    notes: Mapping[str, float | str | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CourseRecord:
    """A course as far as it was walked.

    `planned` is the number of its requests, `before` the unedited model. `ended` says why there are no more steps:
    "complete", "collapsed" (stopped early), "failed"; empty while there is more to do. `remarks` are sentences on what
    happened on the way that a reader has to know (begun again, something left behind by the editor).
    """

    course: str
    model: str
    editor: str
    stream: str
    schedule: Schedule
    planned: int
    before: Mapping[str, Measurement] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    breaking: Breaking | None = None
    failure: Failure | None = None
    ended: str = ""
    remarks: tuple[str, ...] = ()

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
        """The first measured number of edits whose perplexity is past the limit or is no number; None if none is."""
        found = zip(self.steps, self.ratios, strict=True)
        return next((step.edits for step, ratio in found if ratio is None or not ratio <= limit), None)

    def to_text(self) -> str:
        """One JSON line; every number in it is finite, infinite ones are spelled."""
        body = {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in ("course", "model", "editor", "stream", "planned", "ended")},
            "schedule": self.schedule.as_json(),
            "before": {name: found.as_json() for name, found in self.before.items()},
            "steps": [_step_json(step) for step in self.steps],
            "breaking": _breaking_json(self.breaking) if self.breaking else None,
            "failure": asdict(self.failure) if self.failure else None,
            "remarks": list(self.remarks),
        }
        return json.dumps(body, allow_nan=False, sort_keys=True)  # in ASCII: lone surrogates survive it

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The inverse of `to_text`. Raises ValueError for anything else than a whole record of this schema."""
        body: dict[str, Any] = json.loads(text)
        if not isinstance(body, dict) or body.pop("schema", None) != SCHEMA:
            raise ValueError(f"a record of another schema than {SCHEMA}")
        try:
            body["schedule"] = Schedule.from_json(body["schedule"])
            body["before"] = _measurements(body["before"])
            body["steps"] = tuple(_step(row) for row in body["steps"])
            body["breaking"] = _breaking(body["breaking"]) if body["breaking"] else None
            body["failure"] = Failure(**body["failure"]) if body["failure"] else None
            body["remarks"] = tuple(body.get("remarks", ()))
            return cls(**body)
        except (KeyError, TypeError, AttributeError, DataError, UsageError) as error:
            raise ValueError(f"not a whole record: {error}") from error

    def plus(self, step: Step) -> CourseRecord:
        """The record with one more step."""
        return replace(self, steps=(*self.steps, step))

    def up_to(self, steps: int) -> CourseRecord:
        """The record as it was after so many steps, still under way."""
        kept = self.steps[:steps]
        reached = kept[-1].edits if kept else 0
        breaking = self.breaking if self.breaking is not None and self.breaking.edits <= reached else None
        return replace(self, steps=kept, breaking=breaking, failure=None, ended="")

    def remarked(self, *sentences: str) -> CourseRecord:
        """The record with further remarks, each said once."""
        return replace(self, remarks=tuple(dict.fromkeys((*self.remarks, *sentences))))


def _step_json(step: Step) -> dict[str, Any]:
    row = asdict(replace(step, found={}))
    found = {name: one.as_json() for name, one in step.found.items()}
    return {**row, "block": list(step.block), "found": found, "notes": plain_notes(step.notes)}


def _step(row: Mapping[str, Any]) -> Step:
    return Step(**{**row, "block": tuple(row["block"]), "found": _measurements(row["found"])})


def _breaking_json(breaking: Breaking) -> dict[str, Any]:
    row = {name: getattr(breaking, name) for name in ("edits", "edit_id", "delta")}
    numbers = {name: _spelled(getattr(breaking, name)) for name in ("ratio", "ratio_before", "alone")}
    requests = [request.as_json() for request in breaking.requests]
    return {**row, **numbers, "requests": requests, "notes": plain_notes(breaking.notes)}


def _breaking(row: Mapping[str, Any]) -> Breaking:
    numbers = {name: None if row[name] is None else float(row[name]) for name in ("ratio", "ratio_before", "alone")}
    return Breaking(**{**row, **numbers, "requests": tuple(EditRequest.from_json(one) for one in row["requests"])})


def _measurements(rows: Mapping[str, Any]) -> dict[str, Measurement]:
    return {name: Measurement.from_json(row) for name, row in rows.items()}


def plain_notes(notes: Mapping[str, object]) -> dict[str, Any]:
    """Notes are an editor's own and may be anything; numbers that are not finite are written by name."""
    return {str(name): _spelled(value) for name, value in notes.items()}


def _spelled(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
