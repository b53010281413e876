"""Model card: a text for the page of a model: what was tried, what came of it, by which limits, how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from editsafety.escaping import fenced
from editsafety.escaping import markdown as safe
from editsafety.judging.verdict import Verdict
from editsafety.numbers import number, rate, times
from editsafety.publishing.published import DIGITS, PublishedGroup, PublishedRun

REASONS = 5  # sentences of each editor
NOT_SAID = (
    "Only these editors were tried, with these numbers and on these requests. A verdict of PASS says that none of "
    "those edits broke a limit above; it is no promise about other requests, about more edits on top of each other "
    "than were tried, or about what a model was trained to say."
)
_RATES = ("efficacy", "efficacy_prefixed", "generalisation", "locality")
_LIMITS = ("pass_at_most", "warn_at_most", "pass_at_least", "warn_at_least")


def model_card(run: PublishedRun) -> str:
    """Markdown, to be put into a card as it is."""
    document = run.document
    parts = [
        "## Crash test of model editing",
        f"**{run.said}** · {safe(document.line, 1000)}",
        f"Bound to {safe(run.bound, 300)} ({safe(run.model.dtype)}, {safe(run.model.device)}). Other weights have "
        "another hash, and this says nothing of them.",
        *_tried(run),
        *_figures(run),
        *_courses(run),
        *_reasons(run),
        *_controls(run),
        *_limits(run),
        f"### Repeat it\n\n{fenced(run.command, 'sh')}",
        f"### What this does not say\n\n{NOT_SAID}",
    ]
    return "\n\n".join(parts) + "\n"


def _tried(run: PublishedRun) -> Iterator[str]:
    document = run.document
    rows = []
    if document.received is not None:
        rows.append(f"- {safe(document.received.kind)} {safe(document.received.name)}, handed over")
    for block, editor in sorted(document.editors.items()):
        name = str(editor.get("editor") or block)
        paper = f" ({safe(editor['paper'])})" if editor.get("paper") else ""
        rows.append(f"- {safe(name)}{paper}: {safe(json.dumps(editor.get('hparams', {}), sort_keys=True), 1500)}")
    rows += [f"- data {safe(name)}: {safe(spec)}" for name, spec in sorted(document.plan.data.items())]
    rows.append(f"- editsafety {safe(document.editsafety)}")
    yield "### What was tried\n\n" + "\n".join(rows)


def _figures(run: PublishedRun) -> Iterator[str]:
    groups = run.document.groups
    if not groups:
        return
    head = ("editor", "verdict", "cases", "worst perplexity", "median", *_RATES, "s/edit")
    rows = [head, ("---", "---", *["--:"] * (len(head) - 2)), *map(_row, groups)]
    yield f"### Single edits\n\n{_table(rows)}"
    yield (
        "*perplexity*: after the edit / before. *efficacy*: share of edits that show, behind other text (*prefixed*), "
        "rephrased (*generalisation*). *locality*: share of neighbouring answers that stay."
    )


def _row(group: PublishedGroup) -> tuple[str, ...]:
    found = group.whole
    broken = set(found.get("not_finite") or ())
    ratios = (
        "not finite" if name in broken else times(_number(found, name)) for name in ("worst_ratio", "median_ratio")
    )
    planned = ", ".join(f"{count} {stream}" for stream, count in group.planned.items())
    rates = (rate(_number(found, name)) for name in _RATES)
    cells = (group.editor, f"{group.verdict.value}", planned, *ratios, *rates)
    return (*map(safe, cells), number(_number(found, "median_seconds_per_edit")))


def _number(found: Any, name: str) -> float | None:
    value = found.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _courses(run: PublishedRun) -> Iterator[str]:
    if not run.document.courses:
        return
    rows: list[Sequence[str]] = [("course", "verdict", "requests", "broken at edit"), ("---", "---", "--:", "--:")]
    for one in run.document.courses:
        broke = "-" if one.breaks_at is None else str(one.breaks_at)
        rows.append((safe(one.case), one.verdict.value, str(one.planned), broke))
    yield f"### Edits on top of each other\n\n{_table(rows)}"


def _reasons(run: PublishedRun) -> Iterator[str]:
    rows = [
        f"- {safe(group.editor)}: {safe(said, 600)}"
        for group in run.document.groups
        if group.verdict is not Verdict.PASS
        for said in group.sentences[:REASONS]
    ]
    if rows:
        yield "### Why it does not pass\n\n" + "\n".join(rows)


def _controls(run: PublishedRun) -> Iterator[str]:
    if run.document.received is not None:  # a model that was handed over is checked without any
        return
    rows = [f"- {safe(one.sentence, 600)}" for one in run.document.controls]
    none = "- no control was run, so this run did not prove that it can detect a collapse"
    yield "### Controls\n\n" + "\n".join(rows or [none])


def _limits(run: PublishedRun) -> Iterator[str]:
    policy = run.document.policy
    rows: list[Sequence[str]] = [("limit", "on", "passes", "warns", "fails as"), ("---",) * 5]
    for part, limits in (("case", policy.case), ("group", policy.group), ("course", policy.course)):
        if part == "course" and not run.document.courses:
            continue
        for name, limit in limits.items():
            bounds = {key: limit.get(key) for key in _LIMITS if limit.get(key) is not None}
            told = {key: f"{key.split('_', 1)[1].replace('_', ' ')} {value}" for key, value in bounds.items()}
            passes = ", ".join(said for key, said in told.items() if key.startswith("pass"))
            warns = ", ".join(said for key, said in told.items() if key.startswith("warn"))
            on = f"{limit.get('measure')}, {limit.get('figure')}"
            rows.append([safe(cell) for cell in (f"{part}.{name}", on, passes, warns, limit.get("fails_as"))])
    yield f"### Limits\n\nPolicy {safe(policy.name)}, sha256 {safe(policy.digest[:DIGITS])}.\n\n{_table(rows)}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
