"""The table of cases as data: the script of the page shows, sorts and filters it; every text is escaped here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from editsafety.escaping import json_text, line
from editsafety.judging.checks import CaseVerdict
from editsafety.judging.group import Group
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.names import tag
from editsafety.numbers import counting, rate
from editsafety.reporting import CASES_FILE, story
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.measurement import Column, Measurement
from editsafety.runs.plan import spread

SHOWN = 200  # of a large run: cases of a stream that do not pass, and as many that do
FEW = 1000  # single edits up to which every question of every case is shown; of more, only of those that do not pass
ALIKE = 3  # questions of one kind that are shown of a case
GLYPHS = {
    Verdict.PASS: "✓",
    Verdict.WARN: "!",
    Verdict.INEFFECTIVE: "○",
    Verdict.NO_OP: "∅",
    Verdict.DAMAGED: "◐",
    Verdict.COLLAPSE: "✕",
    Verdict.REGRESSED: "↓",
    Verdict.INCOMPLETE: "…",
    Verdict.ERROR: "⚠",
}
FIELDS = (
    "case", "editor", "model", "stream", "verdict", "ratio", "written", "target", "before", "after", "reasons",
    "checks", "cause", "replay", "asked", "figures", "short",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spoken:
    """A question, and what the model said before the edit and after it."""

    kind: str
    prompt: str
    before: str
    after: str
    found: str = ""  # of the first of its kind: what came of all of them, `takes 1.00`, `kept 0.66`


@dataclass(frozen=True, slots=True)
class Sample:
    """A case up close."""

    case: CaseVerdict
    verdict: Verdict  # of the editor on this stream, where the case passes by itself and the stream does not
    told: str  # why this one
    written: tuple[str, str]
    asked: tuple[Spoken, ...]
    cause: str
    replay: str


def ordered(report: RunReport) -> list[tuple[Group, CaseVerdict]]:
    """The single edits in the order of the charts: worst editor first, each stream in one piece."""
    return [
        (group, case)
        for group in report.worst_groups
        for stream in streams(group)
        for case in shown_of(report, group, stream)
    ]


def shown_of(report: RunReport, group: Group, stream: str) -> list[CaseVerdict]:
    """The cases of a stream that the page shows: all, or of a large run the worst, and some of those that pass."""
    cases = group.cases_of(stream)
    if not report.is_large:
        return cases
    failing = takewhile(lambda case: case.verdict is not Verdict.PASS, group.worst_first())
    bad = [case for case in failing if case.record.stream == stream]
    good = [case for case in cases if case.verdict is Verdict.PASS]
    chosen = {case.record.case for case in (*bad[:SHOWN], *spread(good, SHOWN))}
    return [case for case in cases if case.record.case in chosen]


def shortened(report: RunReport) -> str:
    """That not every case is shown, which ones are, and where the others are; empty where all are."""
    if not report.is_large:
        return ""
    return (
        f"{len(ordered(report))} of {counting(report.judged)} are shown: of every editor and stream up to {SHOWN} that "
        f"do not pass, the worst, and up to {SHOWN} that do. All of them are in {CASES_FILE}."
    )


def streams(group: Group) -> list[str]:
    """Those that were planned, and any other that a case is of."""
    return list(dict.fromkeys([*group.planned, *(case.record.stream for case in group.cases)]))


def places(report: RunReport) -> dict[str, int]:
    """Where every case stands."""
    return {case.record.case: place for place, (_, case) in enumerate(ordered(report))}


def as_data(report: RunReport, suites: str) -> str:
    """JSON that cannot end the script it stands in; texts that many cases share are in it once."""
    pool: dict[str, int] = {}

    def once(text: str) -> int:
        return pool.setdefault(text, len(pool))

    found = ordered(report)
    few = len(found) <= FEW
    rows = [_row(report, group, report.whole(case), suites, once, whole=few) for group, case in found]
    body = {
        "fields": FIELDS,
        "columns": [line(column.heading, 40) for column in _rates(report)],
        "verdicts": [verdict.value for verdict in Verdict],
        "glyphs": {verdict.value: glyph for verdict, glyph in GLYPHS.items()},
        "cases": rows,
        "pool": [line(text, 10_000) for text in pool],
    }
    return json_text(json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":")))


def _row(report: RunReport, group: Group, case: CaseVerdict, suites: str, once: Any, *, whole: bool) -> list[Any]:
    record = case.record
    bad = [check for check in case.checks if check.verdict is not Verdict.PASS]
    bad.sort(key=lambda check: -check.verdict.severity)
    causes = group.causes(case)
    replay = story.replay_case(report, case, suites).split(record.case, 1)  # what stands around the case's id
    told = asked(record) if whole or bad else []
    before, after = answers(record)
    return [
        line(record.case),
        once(record.editor),
        once(record.model),
        once(record.stream),
        case.verdict.severity,
        _ratio(case.ratio),
        *map(line, written(record)),
        line(before),
        line(after),
        [[check.verdict.severity, line(check.sentence, 600)] for check in bad],
        [once(check.name) for check in bad],
        line(causes[0].text, 1000) if causes else "",
        [once(part) for part in replay],
        [[once(one.kind), once(one.found), line(one.prompt), line(one.before), line(one.after)] for one in told],
        [_value(record.after.get(column.measurement)) for column in _rates(report)],
        line(record.case.removeprefix(f"{record.model}-{tag(record.editor)}-")),
    ]


def written(record: CaseRecord) -> tuple[str, str]:
    """What was asked to be written: the prompts, and how they shall go on. Empty for a model that was handed over."""
    requests = record.requests
    return "; ".join(one.filled for one in requests), "; ".join(one.target_new for one in requests)


def answers(record: CaseRecord) -> tuple[str, str]:
    """What the model says to the prompt of an edit, before and after; of a case that failed, why."""
    if record.failure is not None:
        where = f" ({record.failure.where})" if record.failure.where else ""
        return _first(record.before.get("efficacy")), f"{record.failure.message}{where}"
    return _first(record.before.get("efficacy")), _first(_longest(record))


def asked(record: CaseRecord) -> list[Spoken]:
    """Every question of a case whose answers were kept, a few of each kind."""
    prompts = [request.filled for request in record.requests]
    rephrased = [text for request in record.requests for text in request.rephrasings]
    near = [neighbour.prompt for request in record.requests for neighbour in request.neighbours]
    kinds: tuple[tuple[str, str, str, list[str]], ...] = (
        ("the prompt", "takes", "efficacy", prompts),
        ("reads on", "", "efficacy_wild", prompts),
        ("behind other text", "takes", "efficacy_prefixed", [f"… {prompt}" for prompt in prompts]),
        ("rephrased", "takes", "generalisation", rephrased),
        ("a neighbour", "kept", "locality", near),
        ("writes", "", "fluency", []),
    )
    found: list[Spoken] = []
    for kind, word, name, put in kinds:
        before, after = record.before.get(name), record.after.get(name)
        graded = f"{word} {rate(after.value)}" if word and after is not None and after.value is not None else ""
        told = enumerate(_pairs(put, before, after))
        found += [Spoken(kind, prompt, was, now, "" if place else graded) for place, (prompt, was, now) in told]
    return found


def _pairs(
    prompts: Sequence[str], before: Measurement | None, after: Measurement | None
) -> Iterator[tuple[str, str, str]]:
    was, now = (before.answers if before else ()), (after.answers if after else ())
    for i in range(min(ALIKE, max(len(was), len(now)))):
        yield _at(prompts, i), _at(was, i), _at(now, i)


def _at(texts: Sequence[str], place: int) -> str:
    return texts[place] if place < len(texts) else ""


def samples(report: RunReport, suites: str) -> list[Sample]:
    """Of every editor and stream the worst case that does not pass, and the first that passes."""
    found = []
    for group in report.worst_groups:
        for stream in streams(group):
            cases = [case for case in group.worst_first() if case.record.stream == stream]
            bad = [case for case in cases if case.verdict is not Verdict.PASS]
            good = [case for case in cases if case.verdict is Verdict.PASS]
            if bad:
                said = f"the worst of {len(bad)} that do not pass" if len(bad) > 1 else "the one that does not pass"
                found.append(_sample(report, group, bad[0], bad[0].verdict, said, suites))
            failing = [c for c in group.checks.get(stream, ()) if c.verdict.fails and c.name in report.policy.group]
            if good and failing:  # they stand one by one, and together they do not
                worst = max(failing, key=lambda check: check.verdict.severity)
                measure = report.policy.group[worst.name].measure
                case = min(good, key=lambda case: _value(case.record.after.get(measure)) or 0.0)
                said = f"perplexity stays, but {worst.verdict.meaning}"
                found.append(_sample(report, group, case, worst.verdict, said, suites))
            elif good:
                found.append(_sample(report, group, good[0], Verdict.PASS, f"one of {len(good)} that pass", suites))
    return found


def _sample(report: RunReport, group: Group, case: CaseVerdict, verdict: Verdict, told: str, suites: str) -> Sample:
    causes, case = group.causes(case), report.whole(case)
    first: dict[str, Spoken] = {}
    for one in asked(case.record):
        first.setdefault(one.kind, one)
    cause, replay = causes[0].text if causes else "", story.replay_case(report, case, suites)
    return Sample(case, verdict, told, written(case.record), tuple(first.values()), cause, replay)


def _rates(report: RunReport) -> list[Column]:
    """The columns of the measures that every case has a value of its own in."""
    return [column for column in report.facts.columns if column.over == "rate"]


def _longest(record: CaseRecord) -> Measurement | None:
    """How the edited model reads on, where that was asked, else its answer."""
    return record.after.get("efficacy_wild") or record.after.get("efficacy")


def _first(found: Measurement | None) -> str:
    if found is None:
        return ""
    return next((answer for answer in found.answers if answer), "") or found.reason or ""


def _ratio(value: float | None) -> float | str | None:
    if value is None:
        return None
    return round(value, 4) if math.isfinite(value) else "inf"


def _value(found: Measurement | None) -> float | None:
    return None if found is None or found.value is None else round(found.value, 3)
