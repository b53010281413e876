"""Case rows: a single edit as JSON values, as report.json and the file of cases have it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from editsafety.judging.checks import CaseVerdict
from editsafety.judging.group import Group
from editsafety.judging.report import RunReport
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.weights_look import WeightsLook


def _causes(group: Group, case: CaseVerdict) -> list[dict[str, Any]]:
    return [
        {"kind": one.kind, "sentence": one.sentence, "advice": one.advice, "figures": dict(one.figures)}
        for one in group.causes(case)
    ]


def case_row(report: RunReport, group: Group, case: CaseVerdict, body: Mapping[str, Any] | None = None) -> Any:
    """A single edit as JSON values, whole; `body` is its record as it is laid out in the store, where that is at hand.

    A number of the record that is not finite is null there already.
    """
    record = case.record
    parts = _parts(report.whole(case).record) if body is None else _stored_parts(body)
    ratio = case.ratio
    return {
        "case": record.case,
        "stream": record.stream,
        "verdict": case.verdict.value,
        "ratio": ratio if ratio is not None and math.isfinite(ratio) else None,
        "ratio_not_finite": ratio is not None and not math.isfinite(ratio),
        "checks": [check.as_json() for check in case.checks],
        **{name: parts[name] for name in _BEFORE},
        "undeclared": list(record.undeclared),
        **{name: parts[name] for name in _BEHIND},
        "failure": None if record.failure is None else asdict(record.failure),
        "causes": _causes(group, case),
    }


_BEFORE = ("requests", "before", "after", "edit_id", "notes", "declared", "changed", "leftovers")
_BEHIND = ("weights", "restored", "cost")


def _parts(record: CaseRecord) -> dict[str, Any]:
    step = record.step
    return {
        "requests": [request.as_json() for request in record.requests],
        "before": {name: found.as_json() for name, found in record.before.items()},
        "after": {name: found.as_json() for name, found in record.after.items()},
        "edit_id": step.edit_id,
        "notes": {name: plain_json(note, spell=True) for name, note in step.notes.items()},
        **{name: list(getattr(step, name)) for name in ("declared", "changed", "leftovers")},
        "weights": step.look.as_json(),
        "restored": step.restored,
        "cost": asdict(step.cost),
    }


def _stored_parts(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same, of a record as it is laid out in the store."""
    if not body["steps"]:
        return {**_parts(CaseRecord("", "", "", "", ())), "requests": body["requests"], "before": body["before"]}
    step = body["steps"][-1]
    parts = {**step, "requests": body["requests"], "before": body["before"], "after": step["found"]}
    return {**parts, "weights": step.get("look") or WeightsLook().as_json()}


def plain_json(value: Any, *, spell: bool = False) -> Any:
    """JSON values only: what is not finite becomes null (or its name, `spell`), what is unknown its text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value) if spell else None
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain_json(entry, spell=spell) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(entry, spell=spell) for entry in value]
    return str(value)
