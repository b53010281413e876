"""The rules for a course of edits: a hard case among them, or many that add up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from editsafety.judging.causes._evidence import Beside, Cause, Evidence, decades, finite
from editsafety.judging.causes._rules import ranked, unknown
from editsafety.judging.policy import COLLAPSE
from editsafety.numbers import exact, rate, times
from editsafety.runs.case_record import CaseRecord, Step

HARMLESS = 1.25  # the default policy's limit for PASS
RESTRAINED = {"alphaedit": "RECT or PRUNE"}  # what to try beside the editor itself
GREW = 1.5  # a figure of the whole course that grew at least so much is worth telling
GROWING = {  # see `drift`
    "drift_relative": "||W - W0|| / ||W0||",
    "drift_growth": "||W|| / ||W0||",
    "drift_spectral": "s_1(W) / s_1(W0)",
    "drift_condition": "cond(W) / cond(W0)",
}


def of_course(record: CaseRecord, *, limit: float = COLLAPSE) -> tuple[Cause, ...]:
    """Likely causes of the collapse of a course, the strongest first; empty when it did not collapse.

    A model is broken past `limit` times its unedited perplexity. The edit that broke it is told from an accumulation by
    what it does alone to the unedited model; where no bisection was made, the first broken step stands for it.
    """
    at = next((i for i, ratio in enumerate(record.ratios) if ratio is not None and not ratio <= limit), None)
    breaking = record.breaking
    if at is None and breaking is None:
        return ()
    before = record.steps if at is None else record.steps[:at]
    last = record.steps[at] if at is not None else None
    notes = breaking.notes if breaking is not None else last.notes if last is not None else {}
    found = {} if last is None else {n: m for n, m in last.found.items() if n in ("me_ppl", "nll_per_token")}
    drift = last.found.get("drift_relative") if last is not None else None
    if drift is not None and drift.broken:
        found |= {"weights_finite": replace(drift, name="weights_finite"), "delta_norm": drift}
    evidence = Evidence(notes, found, Beside((step.notes, {}) for step in before))
    causes = [*_alone(record, limit), *_accumulated(record, before, last, limit), *ranked(evidence, quiet=True)]
    return tuple(sorted(causes, key=lambda one: -one.strength)) or (unknown(evidence),)


def _alone(record: CaseRecord, limit: float) -> Iterator[Cause]:
    """The breaking edit breaks the unedited model as well."""
    breaking = record.breaking
    if breaking is None or breaking.alone is None or breaking.alone <= limit:
        return
    told = {"edits": float(breaking.edits), **finite({"alone": breaking.alone, "ratio": breaking.ratio})}
    if len(breaking.requests) > 1:
        stands = [
            step.edits
            for step, ratio in zip(record.steps, record.ratios, strict=True)
            if ratio is not None and ratio <= limit
        ]
        stay = f"; batches of up to {max(stands)} stay" if stands and not record.schedule.cumulative else ""
        said = f"a batch of {len(breaking.requests)} breaks the unedited model ({times(breaking.alone)}){stay}"
        yield Cause(
            "batch", said, "smaller batches on top of each other (batch-sequential)", told, decades(breaking.alone)
        )
        return
    if not record.schedule.cumulative:
        return  # a batch of one is made alone, so that says nothing about it
    who = breaking.requests[0].id if breaking.requests else "?"
    said = f"edit {breaking.edits} ({who}) breaks the unedited model as well ({times(breaking.alone)}): a hard case"
    known = " (c_rome, for a subject in first place)" if record.editor == "rome" else ""
    advice = f"leave it out, or use a method that stands it{known}"
    yield Cause("hard_case", said, advice, told, decades(breaking.alone))


def _accumulated(record: CaseRecord, before: Sequence[Step], last: Step | None, limit: float) -> Iterator[Cause]:
    """The breaking edit is harmless alone: the earlier ones made the model ready to break."""
    breaking = record.breaking
    if not record.schedule.cumulative or (
        breaking is not None and (breaking.alone is None or not breaking.alone <= limit)
    ):
        return
    steps = [*before, *([last] if last is not None else [])]
    grown = _grown(steps)
    if breaking is None and not grown:
        return
    if breaking is not None:
        jump = f"from {times(breaking.ratio_before)} to {times(breaking.ratio)}"
        mild = "harmless" if breaking.alone is not None and breaking.alone <= HARMLESS else "no collapse"
        head = f"edit {breaking.edits} is {mild} alone ({times(breaking.alone)}) and takes the model {jump}"
    else:
        head = f"the model is broken after {steps[-1].edits} edits"
    drift = ", ".join(f"{GROWING[name]} from {exact(a, 3)} to {exact(b, 3)}" for name, a, b in grown[:3])
    kept = last.found.get("kept") if last is not None else None
    still = f"; {rate(kept.value)} of all edits are still said" if kept is not None and kept.value is not None else ""
    said = f"{head}: the edits add up{f' ({drift})' if drift else ''}{still}"
    advice = f"fewer edits, larger batches, or {RESTRAINED.get(record.editor, 'AlphaEdit, RECT or PRUNE')}"
    advice += ", which restrain what adds up"
    told = {f"{name}_{end}": value for name, a, b in grown for end, value in (("first", a), ("last", b))}
    told |= {} if breaking is None else finite({"alone": breaking.alone or 0.0, "ratio": breaking.ratio})
    yield Cause("accumulation", said, advice, told, 1.0 + max((decades(b / a) for _, a, b in grown[:1]), default=0.0))


def _grown(steps: Sequence[Step]) -> list[tuple[str, float, float]]:
    """(name, first, last) of the weights' figures that grew along the course, those that grew the most first."""
    found = []
    for name in GROWING:
        values = [m.value for step in steps if (m := step.found.get(name)) is not None and m.value is not None]
        values = [1.0, *values] if name != "drift_relative" else values  # the others are ratios to the unedited model's
        if len(values) > 1 and values[0] > 0 and values[-1] / values[0] >= GREW:
            found.append((name, values[0], values[-1]))
    return sorted(found, key=lambda row: -row[2] / row[1])
