"""Checks: measurements judged against a policy, case by case and group by group. No torch here.

Line, table, JSON, JUnit and exit code all come from the values made here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from editsafety.errors import UnknownNameError, UsageError
from editsafety.judging import causes
from editsafety.judging.drop import drop
from editsafety.judging.policy import COLLAPSE, AbilityLimit, Policy, Threshold
from editsafety.judging.stopping import undecided
from editsafety.judging.telling import list_some, spell, tell_figure, with_meaning
from editsafety.judging.verdict import Verdict
from editsafety.numbers import counting, exact, rate, times
from editsafety.runs.case_record import CaseRecord, Step
from editsafety.runs.measurement import Measurement, inapplicable, wilson

ABILITIES = "abilities"  # the check over all abilities
WALKED = "walked"  # the check that a course came to its end
WRITES = "changes_something"  # the check that there is an edit at all: asked of every case, whatever else is asked


@dataclass(frozen=True, slots=True)
class Check:
    """One judgement."""

    name: str
    verdict: Verdict
    sentence: str  # the figure and the verdict in words
    figure: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values; a figure that is not finite is null, and `not_finite` is true."""
        finite = self.figure is not None and math.isfinite(self.figure)
        return {
            "check": self.name,
            "verdict": self.verdict.value,
            "figure": self.figure if finite else None,
            "not_finite": self.figure is not None and not finite,
            "sentence": self.sentence,
        }


# Of a single edit that did what it said, and nothing else: shared by all such cases.
SOUND = (
    Check("restore", Verdict.PASS, "every byte came back"),
    Check("undeclared", Verdict.PASS, "only declared tensors changed"),
    Check("leftovers", Verdict.PASS, "nothing left behind"),
)


@dataclass(frozen=True, slots=True)
class CaseVerdict:
    """A judged case.

    `verdict` is the worst of the checks. A single edit without any passes: it was only asked about together with its
    group. A course without any is INCOMPLETE: nothing judged is not a pass. `ratio` is perplexity after / before;
    infinite when the model gave no finite number; None when it was not measured. Both are worked out while the figures
    are at hand: of a large run these are far apart later, and the two are asked for often.
    """

    record: CaseRecord
    checks: tuple[Check, ...]
    limit: float = COLLAPSE  # past this multiple of its unedited perplexity the model counts as broken
    verdict: Verdict = field(init=False, compare=False)
    ratio: float | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        unjudged = Verdict.INCOMPLETE if self.record.is_course else Verdict.PASS
        worst = Verdict.worst([check.verdict for check in self.checks]) if self.checks else unjudged
        object.__setattr__(self, "verdict", worst)
        object.__setattr__(self, "ratio", ratio(self.record))

    @property
    def breaks_at(self) -> int | None:
        """After how many edits the model is broken; None where it stands."""
        return self.record.breaks_at(self.limit)

    def check(self, name: str) -> Check | None:
        """One check by name; what stopped the case answers every question. None for what had nothing to be judged by.

        Raises UnknownNameError for a name that no check of a single edit has: an answer to another question must not
        pass for this one.
        """
        by_name = {check.name: check for check in self.checks}
        if name in by_name:
            return by_name[name]
        if self.record.failure is not None and not self.record.is_course:
            return self.checks[0]
        if not self.record.is_course and name != ABILITIES:
            raise UnknownNameError("check", name, list(by_name))
        return by_name.get(WALKED)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Why a course does not pass, the most severe first, which edit broke the model, and likely why."""
        bad = sorted((c for c in self.checks if c.verdict is not Verdict.PASS), key=lambda c: -c.verdict.severity)
        said = [f"{check.verdict.value}: {check.sentence}" for check in bad]
        broken = [_broke(self.record)] if self.record.breaking else []
        likely = causes.of_course(self.record, limit=self.limit)[:1] if self.verdict is Verdict.COLLAPSE else ()
        broken += [f"likely cause: {cause.text}" for cause in likely]
        where = f"{self.record.stream} {self.record.schedule.kind}"
        return tuple(f"{where}: {sentence}" for sentence in (*said[:1], *broken, *said[1:]))


def judge_case(policy: Policy, record: CaseRecord) -> CaseVerdict:
    """Every check of a policy on a case. What a course found before it failed is judged, too."""
    checks = [*_ended(record)]
    if record.steps and (record.is_course or record.failure is None):
        limits = policy.course if record.is_course else policy.case
        checks += _left_on_the_way(record) if record.is_course else _structure(record)
        checks.append(_writes(record))
        checks += [_judge_limit(name, threshold, record) for name, threshold in limits.items()]
        if policy.abilities is not None:
            checks += list(_judge_abilities(policy.abilities, record))
    if record.is_course and all(check.name == WRITES for check in checks):
        said = f"policy {policy.name} has no limit on courses, so nothing of this one can be judged"
        checks += [Check(WALKED, Verdict.ERROR, f"{said}; add a part `course`")]
    elif record.is_course and record.steps:
        base = {name: limit for name, limit in policy.on_base.items() if name not in policy.course}
        told = [_judge_limit(name, limit, record) for name, limit in base.items()]
        checks += [check for check in told if check.verdict.fails]  # said only of a model that was broken before
    return CaseVerdict(record, tuple(checks), policy.collapse)


def judge_group(policy: Policy, records: Sequence[CaseRecord]) -> tuple[Check, ...]:
    """Every per-group check over the cases of one editor on one model and stream.

    Rates are shown with n and a Wilson interval. A measurement that no case can have (no rephrasings in the data) is
    left out; one that was not even tried is an error.
    """
    checks = []
    for name, threshold in policy.group.items():
        values = counted(records, threshold.measure)
        tried = [record for record in records if record.failure is None]
        if tried and not any(threshold.measure in record.after for record in tried):
            said = f"{name}: {threshold.measure} was not measured on any case"
            checks.append(Check(name, threshold.unjudged, said))
        elif any(not 0.0 <= value <= 1.0 for value in values):
            said = f"{name}: {threshold.measure} is no rate, so it has no mean to judge"
            checks.append(Check(name, Verdict.ERROR, said))
        elif values:
            checks.append(_rated(name, threshold, values))
    return tuple(checks)


def group_check(policy: Policy, records: Sequence[CaseRecord], name: str) -> Check | str:
    """The check of that name among those of `judge_group`; where there is none, why."""
    judged = {check.name: check for check in judge_group(policy, records)}
    return judged.get(name) or lacking(records, policy.group[name].measure)


def counted(records: Sequence[CaseRecord], measure: str) -> list[float]:
    """The values that make up a group's rate.

    A case whose editor failed or whose model broke counts as 0; one that has no data for the measure does not count.
    Nothing when no case has a result: then there is no rate.
    """
    values: list[float] = []
    failed = 0
    for record in records:
        found = record.steps[-1].found.get(measure) if record.steps else None
        if found is None:
            failed += record.failure is not None
        elif found.value is not None or found.broken:
            values.append(0.0 if found.value is None else found.value)
    return [*values, *[0.0] * failed] if values else []


def lacking(records: Sequence[CaseRecord], measure: str) -> str:
    """Why these cases make up no rate, in the words of the most of them."""
    found = [step.found.get(measure) for record in records for step in record.steps[-1:]]
    reasons = Counter(one.reason for one in found if one is not None and one.value is None and one.reason)
    if not reasons:
        return "no case has data for it"
    (reason, count), *_ = reasons.most_common(1)
    return reason if count == len(records) else f"{reason} ({count} of {counting(len(records))})"


def ratio(record: CaseRecord) -> float | None:
    """Perplexity after / before of a single edit, or at the end of a course; see `Step.ratio`."""
    return record.steps[-1].ratio(record.before) if record.steps else None


def _ended(record: CaseRecord) -> Iterator[Check]:
    """What stopped a case."""
    if record.failure is not None and not record.is_course:
        yield Check(record.failure.kind, Verdict.ERROR, record.failure.message)
    elif record.failure is not None:
        done = f" after {record.step.edits} of {record.planned} requests" if record.steps else ""
        yield Check(WALKED, Verdict.ERROR, f"the course stopped{done}: {record.failure.message}")
    elif not record.ended and record.is_course:
        said = f"{record.step.edits} of {record.planned} requests were written; run it again"
        yield Check(WALKED, Verdict.INCOMPLETE, said)


def _left_on_the_way(record: CaseRecord) -> Iterator[Check]:
    """What the editor of a course left behind at any of its steps."""
    left = [name for step in record.steps for name in step.leftovers]
    if left:
        yield Check("leftovers", Verdict.ERROR, f"left behind: {list_some(list(dict.fromkeys(left)))}")


def _structure(record: CaseRecord) -> list[Check]:
    undeclared, leftovers = record.step.undeclared, record.step.leftovers
    wrong = (
        "" if record.step.restored is True else "the model was not restored bit for bit",
        f"{record.editor} changed what it did not declare: {list_some(undeclared)}" if undeclared else "",
        f"left behind: {list_some(leftovers)}" if leftovers else "",
    )
    return [Check(good.name, Verdict.ERROR, said) if said else good for good, said in zip(SOUND, wrong, strict=True)]


def _writes(record: CaseRecord) -> Check:
    """Whether there is an edit: figures of a model that nothing was written into say nothing about an editor."""
    if any(step.writes for step in record.steps):
        return _changed(tuple(dict.fromkeys(name for step in record.steps for name in step.changed)))
    said = "none of the edits changes anything" if record.is_course else "the edit changes nothing"
    rounded = record.steps[-1].rounded
    return Check(WRITES, Verdict.NO_OP, f"{said} but the precision of {list_some(rounded)}" if rounded else said)


@lru_cache(maxsize=256)
def _changed(names: tuple[str, ...]) -> Check:
    """Kept, since most cases of an editor change the same."""
    return Check(WRITES, Verdict.PASS, f"changed {list_some(names)}" if names else "runs beside the model")


class _Figure(NamedTuple):
    """What a threshold is held against at one step; without a value where there is none, and why."""

    value: float | None
    trouble: str = ""
    before: bool = False  # whether that is the unedited model's trouble


def _judge_limit(name: str, threshold: Threshold, record: CaseRecord) -> Check:
    """One limit, over the steps of a case."""
    before, even = record.before.get(threshold.measure), record.before.get("ppl_even")
    threshold = threshold.within_even(None if even is None else even.value)
    found = [step.found.get(threshold.measure) for step in record.steps]
    if said := undecided(threshold, before, found[-1]):
        return Check(name, threshold.unjudged, f"{name}: {said}")
    figures = [_figure(threshold, before, one) for one in found]
    missing = [figure for figure in figures if figure.value is None]
    if (unfit := inapplicable(found)) is not None:
        return Check(name, Verdict.PASS, f"{name} does not apply: {unfit}")
    if missing:
        verdict = Verdict.ERROR if missing[0].before else threshold.unjudged
        of = f"{len(missing)} steps" if record.is_course else f"the {'un' if missing[0].before else ''}edited model"
        head = f"{name}: " if record.is_course else ""
        return Check(name, verdict, f"{head}{threshold.measure} of {of}: {missing[0].trouble}")
    value, step = _over(threshold, [figure.value for figure in figures if figure.value is not None], record.steps)
    said, verdict = tell_figure(name, threshold, value, record, step), threshold.verdict(value)
    if threshold.pass_at_most_of_even is not None and even is not None and verdict.fails:
        said += f" (a model that guesses evenly has {spell(even.value)}: it was broken already before any edit)"
    said += f", expected {threshold.limit}{'x' if threshold.figure == 'ratio' else ''}"
    return Check(name, verdict, with_meaning(said, threshold, verdict), value)


def _figure(threshold: Threshold, before: Measurement | None, after: Measurement | None) -> _Figure:
    """The figure of a step; where the model broke: infinite as a multiple, else, and of a rate, NaN. Either fails."""
    kind = threshold.figure
    was, now = (before.value if before else None), (after.value if after else None)
    if kind != "after" and was is None:
        return _Figure(None, _reason(before), before=True)
    if kind == "ratio" and was is not None and not was > 0:
        return _Figure(None, f"is {was:g}, so nothing can be compared with it", before=True)
    if kind == "before":
        return _Figure(was)
    if after is not None and after.broken:
        return _Figure(math.inf if kind == "ratio" and after.unit != "rate" else math.nan)
    if now is None:
        return _Figure(None, _reason(after))
    if kind == "after" or was is None:
        return _Figure(now)
    return _Figure(was - now if kind == "drop" else now / was)


def _over(threshold: Threshold, values: Sequence[float], steps: Sequence[Step]) -> tuple[float, Step]:
    """The figure that is judged, and the step that it is from. NaN is worse than any number."""
    if threshold.over == "last":
        return values[-1], steps[-1]
    if threshold.over == "mean":
        weights = [len(step.block) for step in steps]
        return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / max(1, sum(weights)), steps[-1]
    sign = 1.0 if threshold.pass_at_most is not None else -1.0
    if len(values) == 1:
        return values[0], steps[0]
    place = max(range(len(values)), key=lambda i: math.inf if math.isnan(values[i]) else sign * values[i])
    return values[place], steps[place]


def _judge_abilities(limit: AbilityLimit, record: CaseRecord) -> Iterator[Check]:
    """One check over all abilities: the one that lost most decides."""
    names = record.abilities
    losses = [_loss(limit, name, record, step) for name in names for step in record.steps]
    if losses:
        worst = max(losses, key=lambda one: (one[0].severity, math.inf if math.isnan(one[1]) else one[1]))
        verdict, lost, said = worst
        many = f"{len(names)} abilities, the greatest loss is " if len(names) > 1 else ""
        expected = f"at most {limit.pass_at_most_floors:g} noise floors"
        yield Check(ABILITIES, verdict, f"{many}{said}, expected {expected}", lost)


def _loss(limit: AbilityLimit, name: str, record: CaseRecord, step: Step) -> tuple[Verdict, float, str]:
    before, after, at = record.before[name], step.found.get(name), f"after {record.schedule.said(step.edits)}"
    try:
        lost = drop(before, after) if after is not None else None
    except UsageError as error:  # other items than before: nothing that could be compared
        return Verdict.ERROR, math.nan, f"{error} {at}"
    if after is None or lost is None or lost.drop is None:
        if lost is not None and lost.broken:
            return limit.fails_as, math.nan, f"{name}: the model gives no finite numbers {at}"
        return Verdict.ERROR, math.nan, f"{name}: {_reason(after)} {at}"
    verdict = limit.verdict(lost.drop, lost.floor)
    figures = f"{rate(before.value)} to {rate(after.value)}, {lost.drop / lost.floor:.0f} noise floors"
    return verdict, lost.drop, f"{name} by {100 * lost.drop:.1f} points ({figures}) {at}"


def _rated(name: str, threshold: Threshold, values: Sequence[float]) -> Check:
    share = math.fsum(values) / len(values)
    low, high = wilson(round(share * len(values)), len(values))
    interval = f"95% interval {low:.2f} to {high:.2f}"
    said = f"{name} {threshold.spelled(share, first=rate(share))} over {counting(len(values))} ({interval})"
    verdict = threshold.verdict(share)
    return Check(name, verdict, with_meaning(f"{said}, expected {threshold.limit}", threshold, verdict), share)


def _broke(record: CaseRecord) -> str:
    """`edit 17 (hardcf-0017) broke the model: perplexity 1.03x before, 512x after, 498x alone`"""
    breaking = record.breaking
    assert breaking is not None
    names = list_some([request.id for request in breaking.requests])
    alone = "" if breaking.alone is None else f", {times(breaking.alone)} alone"
    ratios = f"{times(breaking.ratio_before)} before, {times(breaking.ratio)} after{alone}"
    return f"edit {exact(breaking.edits)} ({names}) broke the model: perplexity {ratios}"


def _reason(found: Measurement | None) -> str:
    return (found and found.reason) or "was not measured"
