"""Baseline: the numbers of a run that were accepted, as a file to be committed. No torch here.

The file is JSON with sorted keys and one case per line, so that a diff shows which case changed; no time of day and no
path is in it, and seconds only where costs were accepted as well. Numbers have seven significant digits: more than any
tolerance asks for, few enough to be read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from editsafety.errors import UsageError
from editsafety.judging.baselines import meaning
from editsafety.judging.baselines.costs import AcceptedCosts
from editsafety.judging.checks import CaseVerdict
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.runs.case_record import CaseRecord

SCHEMA = 1
RATIO = "perplexity_ratio"  # the figure of a case that is no measurement of its own
DIGITS = 7


@dataclass(frozen=True, slots=True)
class AcceptedCase:
    """A case as it was: its verdict, and the figures that are compared; None is a model that gave no finite number."""

    id: str
    stream: str
    request: str  # the beginning of the sha256 of schedule and requests
    verdict: Verdict
    figures: Mapping[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, case: CaseVerdict, wanted: Collection[str]) -> Self:
        """From a judged case, with those of the wanted figures that it has."""
        record = case.record
        found = {name: one.value for name, one in record.after.items() if one.value is not None or one.broken}
        ratio = {} if case.ratio is None else {RATIO: case.ratio}
        figures = {name: _short(value) for name, value in sorted({**found, **ratio}.items()) if name in wanted}
        return cls(record.case, record.stream, _asked(record), case.verdict, figures)


@dataclass(frozen=True, slots=True)
class AcceptedBlock:
    """An editor on a model: under which conditions, what was under test, and every case."""

    model: str  # short names
    editor: str
    verdict: Verdict | None  # None where nothing but costs was found
    conditions: Mapping[str, Any]
    subject: Mapping[str, Any]
    noise: float  # the most by which the perplexity of a text differed when it was measured again
    cases: tuple[AcceptedCase, ...]
    costs: AcceptedCosts | None = None  # of its cases, where they were accepted, too
    repeated: AcceptedCosts | None = None  # of one edit, again and again: from suites/speed

    @classmethod
    def of(cls, report: RunReport, model: str, editor: str, *, costs: bool = False) -> Self:
        """From the single edits and courses of an editor on a model, by short names; with what its edits cost."""
        groups = [one for one in report.groups if (one.model, one.editor) == (model, editor)]
        walked = [one for one in report.courses if (one.record.model, one.record.editor) == (model, editor)]
        verdicts = [*(group.verdict for group in groups), *(course.verdict for course in walked)]
        every = [*(case for group in groups for case in group.cases), *walked]
        wanted = report.policy.baseline.keys()
        cases = sorted((AcceptedCase.of(case, wanted) for case in every), key=lambda case: case.id)
        loaded = report.facts.models.get(model)
        return cls(
            model, editor, Verdict.worst(verdicts) if verdicts else None,
            meaning.conditions(report, model), meaning.subject(report, model, editor),
            loaded.noise if loaded is not None else 0.0, tuple(cases),
            AcceptedCosts.of(report, model, editor, (case.record for case in every)) if costs and every else None,
            AcceptedCosts.of_repeated(report, model, editor) if costs else None,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """For people: `rome on pocket-neo`."""
        return f"{self.editor} on {self.model}"


@dataclass(frozen=True, slots=True)
class AcceptedBaseline:
    """Blocks that were accepted, by model and editor."""

    blocks: tuple[AcceptedBlock, ...]

    @classmethod
    def of(cls, report: RunReport, *, costs: bool = False) -> Self:
        """What a run found, and what its edits cost. Raises UsageError for a run that is not complete.

        Its gaps would be accepted with it. Of a run of `suites/speed` alone there are only costs.
        """
        if report.only_costs and not costs:
            raise UsageError("this run found nothing but what edits cost: accept it with --costs.")
        if not (report.sound or (report.only_costs and report.verdict is None)):
            found = "nothing was judged" if report.verdict is None else f"its verdict is {report.verdict.value}"
            raise UsageError(f"this run cannot be accepted as a baseline: {found}. Finish it, or mend it, first.")
        blocks = [AcceptedBlock.of(report, *block, costs=costs) for block in report.blocks]
        return cls(tuple(sorted(blocks, key=lambda block: (block.model, block.editor))))

    def block(self, model: str, editor: str) -> AcceptedBlock | None:
        """One editor on one model, by short names."""
        return next((one for one in self.blocks if (one.model, one.editor) == (model, editor)), None)

    def to_text(self) -> str:
        """The file. Equal baselines are equal texts."""
        return "\n".join(_lines(self)) + "\n"

    @classmethod
    def from_text(cls, text: str, where: str) -> Self:
        """The inverse of `to_text`. Raises UsageError, saying `where`, for anything else than a whole baseline."""
        try:
            body = json.loads(text)
            if not isinstance(body, dict) or body.get("baseline") != SCHEMA:
                raise ValueError(f"the key `baseline` must be {SCHEMA}")
            blocks = tuple(_block(row) for row in body["blocks"])
        except RecursionError:
            raise UsageError(f"{where} is no baseline: it is nested too deeply.") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UsageError(
                f"{where} is no baseline that this version reads: {what}. Make one with `editsafety baseline accept`."
            ) from error
        names = [(block.model, block.editor) for block in blocks]
        if len(set(names)) < len(names):
            raise UsageError(f"{where} holds an editor on a model twice; which one was accepted cannot be told.")
        return cls(blocks)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file. Raises UsageError naming it."""
        try:
            return cls.from_text(path.read_text(encoding="utf-8"), str(path))
        except UnicodeDecodeError:
            raise UsageError(f"{path} is no baseline: it is not UTF-8 text.") from None
        except OSError as error:
            raise UsageError(f"baseline {path} cannot be read: {error.strerror}.") from error


def _lines(baseline: AcceptedBaseline) -> Iterator[str]:
    yield "{"
    yield f' "baseline": {SCHEMA},'
    yield ' "blocks": ['
    for place, block in enumerate(baseline.blocks):
        yield "  {"
        for name in ("model", "editor", "verdict", "noise", "conditions", "subject"):
            value = getattr(block, name)
            yield f"   {_json(name)}: {_json(value.value if isinstance(value, Verdict) else value, indent=4)},"
        for name, spent in (("costs", block.costs), ("repeated", block.repeated)):
            if spent is not None:
                yield f"   {_json(name)}: {_json(spent.as_json(), indent=4)},"
        yield '   "cases": ['
        rows = [_json({**asdict(case), "verdict": case.verdict.value}) for case in block.cases]
        yield ",\n".join(f"    {row}" for row in rows)
        yield "   ]"
        yield "  }," if place + 1 < len(baseline.blocks) else "  }"
    yield " ]"
    yield "}"


def _json(value: Any, indent: int = 0) -> str:
    if indent and isinstance(value, Mapping) and value:
        rows = ",\n".join(f"{' ' * indent}{_json(str(key))}: {_json(value[key])}" for key in sorted(value))
        return "{\n" + rows + "\n" + " " * (indent - 1) + "}"
    return json.dumps(value, sort_keys=True, allow_nan=False, default=list)


def _block(row: Mapping[str, Any]) -> AcceptedBlock:
    noise = row["noise"]
    if not isinstance(noise, int | float) or not math.isfinite(noise) or noise < 0:
        raise ValueError(f"noise of {row['editor']} on {row['model']} is {noise!r}; expected a number")
    conditions, subject = dict(row["conditions"]), dict(row["subject"])
    cases = tuple(_case(case) for case in row["cases"])
    verdict = None if row["verdict"] is None else Verdict(row["verdict"])
    costs, repeated = (AcceptedCosts.from_json(row[name]) if name in row else None for name in ("costs", "repeated"))
    return AcceptedBlock(
        str(row["model"]), str(row["editor"]), verdict, conditions, subject, float(noise), cases, costs, repeated
    )


def _case(row: Mapping[str, Any]) -> AcceptedCase:
    figures = dict(row["figures"])
    for name, value in figures.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name} of {row['id']} is {value!r}; expected a number or null")
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name} of {row['id']} is not finite; expected a number or null")
    return AcceptedCase(str(row["id"]), str(row["stream"]), str(row["request"]), Verdict(row["verdict"]), figures)


def _asked(record: CaseRecord) -> str:
    body = [record.schedule.as_json(), [request.digest() for request in record.requests]]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _short(value: float | None) -> float | None:
    """To the digits that are kept; None where it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")
