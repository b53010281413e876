"""CaseRecord: everything that was found about one case, as it is kept in the store. No torch here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from editsafety.datasets.request import EditRequest
from editsafety.errors import DataError
from editsafety.runs.measurement import Measurement

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a case has no result: the kind ("editor", "oom", "undo" ...), the sentence, and where it was raised."""

    kind: str
    message: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of each step, and bytes of memory above the model's own while the edit was computed."""

    edit: float | None = None
    apply: float | None = None
    undo: float | None = None
    measure: float | None = None
    edit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """One finished case. `undeclared` and `leftovers` name what an editor changed or left without saying so."""

    case: str
    model: str
    editor: str
    stream: str
    requests: tuple[EditRequest, ...]
    before: Mapping[str, Measurement] = field(default_factory=dict)
    after: Mapping[str, Measurement] = field(default_factory=dict)
    edit_id: str | None = None
    notes: Mapping[str, float | str | bool] = field(default_factory=dict)
    declared: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    restored: bool | None = None
    cost: Cost = Cost()
    failure: Failure | None = None

    def to_text(self) -> str:
        """One JSON line; every number in it is finite."""
        body = {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in ("case", "model", "editor", "stream", "edit_id", "restored")},
            "requests": [request.as_json() for request in self.requests],
            "before": {name: found.as_json() for name, found in self.before.items()},
            "after": {name: found.as_json() for name, found in self.after.items()},
            "notes": {str(name): _note(value) for name, value in self.notes.items()},
            **{name: list(getattr(self, name)) for name in ("declared", "changed", "undeclared", "leftovers")},
            "cost": asdict(self.cost),
            "failure": asdict(self.failure) if self.failure else None,
        }
        return json.dumps(body, allow_nan=False, sort_keys=True)  # in ASCII: lone surrogates survive it

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The inverse of `to_text`. Raises ValueError for anything else than a whole record of this schema."""
        body: dict[str, Any] = json.loads(text)
        if not isinstance(body, dict) or body.pop("schema", None) != SCHEMA:
            raise ValueError(f"a record of another schema than {SCHEMA}")
        try:
            return cls._of(body)
        except (KeyError, TypeError, AttributeError, DataError) as error:
            raise ValueError(f"not a whole record: {error}") from error

    @classmethod
    def _of(cls, body: dict[str, Any]) -> Self:
        for name in ("declared", "changed", "undeclared", "leftovers"):
            body[name] = tuple(body[name])
        body["requests"] = tuple(EditRequest.from_json(row) for row in body["requests"])
        for name in ("before", "after"):
            body[name] = {key: Measurement.from_json(row) for key, row in body[name].items()}
        body["cost"] = Cost(**body["cost"])
        body["failure"] = Failure(**body["failure"]) if body["failure"] else None
        return cls(**body)


def _note(value: object) -> float | str | bool | None:
    """A note as JSON can hold it; "inf" and "nan" by name. Notes are an editor's own and may be anything."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
