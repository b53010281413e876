"""What is published of a run: read off its report.json alone, so that a run, a sequence and a check all have it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from editsafety.errors import UsageError
from editsafety.judging.verdict import Verdict
from editsafety.reporting.as_json import SCHEMA
from editsafety.runs.settings import Settings, changed_options

FILE = "report.json"
DIGITS = 12  # hex digits of a hash that are shown


class _Passage(BaseModel):
    """A part of the document, as far as it is published; what else is in it is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class PublishedCase(_Passage):
    """One edit."""

    case: str
    verdict: Verdict


class PublishedGroup(_Passage):
    """One editor on one model."""

    model: str
    editor: str
    verdict: Verdict
    sentences: list[str]
    planned: dict[str, int]
    figures: list[dict[str, Any]]
    cases: list[PublishedCase]
    verdicts: dict[Verdict, int] | None = None  # of a large run, whose cases are not all in the document

    @property
    def whole(self) -> Mapping[str, Any]:
        """The row of figures over all streams."""
        return next((row for row in self.figures if row.get("stream") == "all"), {})

    @property
    def collapsed(self) -> int:
        """Cases in which the model stopped working."""
        if self.verdicts is not None:
            return self.verdicts.get(Verdict.COLLAPSE, 0)
        return sum(case.verdict is Verdict.COLLAPSE for case in self.cases)


class PublishedCourse(_Passage):
    """A sequence or a batch."""

    case: str
    model: str
    editor: str
    verdict: Verdict
    planned: int
    breaks_at: int | None


class PublishedModel(_Passage):
    """A model as it was loaded."""

    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    dtype: str
    device: str
    source: str
    revision: str | None


class PublishedControl(_Passage):
    """What came of a control."""

    behaved: bool
    sentence: str


class PublishedPolicy(_Passage):
    """The limits."""

    name: str
    digest: str
    case: dict[str, dict[str, Any]]
    group: dict[str, dict[str, Any]]
    course: dict[str, dict[str, Any]]


class PublishedReceived(_Passage):
    """An edited model that was handed over."""

    name: str
    kind: str
    edit_id: str = Field(pattern=r"^[0-9a-f]+$")


class PublishedPlan(_Passage):
    """What was asked for."""

    settings: dict[str, Any]
    data: dict[str, str]


class _ReportFile(_Passage):
    """The fields of a report that are published."""

    schema_: int = Field(alias="schema")
    editsafety: str
    verdict: Verdict | None
    exit_code: int
    line: str
    sound: bool
    groups: list[PublishedGroup]
    courses: list[PublishedCourse]
    controls: list[PublishedControl]
    replay: str | None
    models: dict[str, PublishedModel]
    editors: dict[str, dict[str, Any]]
    policy: PublishedPolicy
    plan: PublishedPlan
    received: PublishedReceived | None = None


@dataclass(frozen=True)
class PublishedRun:
    """A run of one model, as it is told to others."""

    name: str  # of the model, short
    model: PublishedModel
    document: _ReportFile

    @classmethod
    def read(cls, place: Path) -> Self:
        """From the folder of a run, or from its report.json.

        Raises UsageError where there is none, where it is of another version, and where it is of several models: what
        is published is bound to the weights of one.
        """
        path = place / FILE if place.is_dir() else place
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(
                f"{path}: cannot be read ({error.strerror}). Give the folder of a run that has ended."
            ) from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}: is no report: it is not JSON.") from error
        if not isinstance(body, dict) or body.get("schema") != SCHEMA:
            raise UsageError(f"{path}: is no report of schema {SCHEMA}. Make it again with `editsafety report`.")
        try:
            document = _ReportFile.model_validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"{path}: is no whole report: {field}: {first['msg'].lower()}.") from error
        judged = [*(one.model for one in document.groups), *(one.model for one in document.courses)]
        names = list(dict.fromkeys(judged))
        if len(names) != 1 or names[0] not in document.models:
            told = f"of {len(names)} models ({', '.join(names)})" if len(names) > 1 else "of no model that was loaded"
            raise UsageError(f"{path}: is {told}; what is exported is bound to the weights of one. Run one model.")
        return cls(names[0], document.models[names[0]], document)

    @property
    def said(self) -> str:
        """The verdict in a word or two."""
        return "NOTHING JUDGED" if self.document.verdict is None else self.document.verdict.value

    @property
    def hash(self) -> str:
        """What it is bound to: the hash of the weights, or of the edit where an edited model was handed over."""
        return self.document.received.edit_id if self.document.received else self.model.fingerprint

    @property
    def bound(self) -> str:
        """The same in words."""
        weights = f"weights sha256 {self.model.fingerprint}"
        return f"edit sha256 {self.document.received.edit_id} of {weights}" if self.document.received else weights

    @property
    def command(self) -> str:
        """How it is run again."""
        replay = self.document.replay
        if replay and replay.startswith("editsafety "):
            return replay
        settings = replace(Settings.stored(self.document.plan.settings, FILE), prepare=False)
        words = ["editsafety", "run"]
        for one, value in changed_options(settings):
            words += [one.command_line] if value is True else [one.command_line, str(value)]
        return shlex.join(words)
