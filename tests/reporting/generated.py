"""Generated runs: records, gaps, controls, courses, faults of the run and baselines of every kind, put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from editsafety.judging.baselines.baseline import AcceptedBaseline
from editsafety.judging.baselines.costs import CostLimit
from editsafety.judging.baselines.gate import Gate
from editsafety.judging.report import RunReport
from editsafety.runs.case import Case
from editsafety.runs.case_record import Breaking, CaseRecord, Cost
from editsafety.runs.facts import Ended, RepeatedCost, RunFacts, Yardstick
from tests import builders
from tests.builders import FACTS, MODEL, course, failed, record, request, step, stepped

EDITORS, MODELS = ("rome", "c_rome", "mine"), (MODEL, "a/gpt2")
MACHINES = ("a laptop, 2 of 2 threads", "a server, 8 of 64 threads")
OUTCOMES: dict[str, dict[str, Any]] = {  # of a single edit, by what is wrong with it
    "well": {},
    "a little worse": {"ratio": 1.01},
    "better": {"ratio": 0.8},
    "past the limit": {"ratio": 1.6},
    "collapsed": {"ratio": 526.0},
    "astronomic": {"ratio": 1e300},
    "infinite": {"ratio": math.inf},
    "not a number": {"ratio": math.nan},
    "does not take": {"takes": 0.0},
    "takes nowhere else": {"prefixed": 0.0, "rephrased": 0.0},
    "loses a neighbour": {"local": 0.0},
    "changes nothing": {"changed": ()},
    "has NaN in its weights": {"finite": 0.0},
}
SPOILED: dict[str, dict[str, Any]] = {  # what makes a case an ERROR
    "not measured": {"ratio": None},
    "improbably better": {"ratio": 0.3},
    "is not taken back": {"restored": False},
    "writes elsewhere": {"undeclared": ("transformer.wte.weight",)},
    "an absurd model": {"base": 1e9},
}
FAILURES = ("editor", "oom", "died", "timeout")
WELL = ("well",)
MOODS = (  # of an editor: what comes of its edits, each as likely as the others
    *(WELL, ("well", "a little worse", "better")),
    *(("well", wrong) for wrong in ("past the limit", "loses a neighbour", "collapsed")),
    *(("does not take",), ("takes nowhere else", "does not take"), ("changes nothing",)),
    tuple(OUTCOMES),
)
ODDITIES = ("stopped", "interrupted", "lost", "a control fails", "no control, and one is required", "half precision",
            "speed", "nothing planned", "unexplained", "drifted", "a problem", "spoiled")  # fmt: skip


@st.composite
def runs(draw: DrawFn) -> RunReport:
    """A run, alone or held against a baseline."""
    now = draw(judged())
    how = draw(st.sampled_from(("no baseline", "no baseline", "itself", "another run", "all was well", "all was well")))
    if how == "no baseline":
        return now
    if how == "another run":
        then = draw(judged())
    elif how == "itself":
        then = now
    else:
        then = builders.report([record(*names) for names in _names(now)], facts=now.facts) if now.groups else now
    if not (then.sound or (then.only_costs and then.verdict is None)):
        return now
    costs = draw(st.sampled_from((*((),) * 8, ("latency:20%", "memory:10%"), ("absolute-latency:20%",))))
    limits = tuple(map(CostLimit.parse, costs))
    accepted = AcceptedBaseline.of(then, costs=bool(limits) or then.only_costs)
    gate = Gate(AcceptedBaseline.from_text(accepted.to_text(), "base.json"), "base.json", limits=limits)
    return gate.judged(now)


@st.composite
def judged(draw: DrawFn) -> RunReport:
    """A run as its records, its gaps and what is known of it make it."""
    odd = draw(st.sampled_from((*("",) * len(ODDITIES), *ODDITIES)))  # one at most: ERROR would hide all else
    records, lacking = ([], []) if odd == "nothing planned" else draw(single_edits(odd))
    controls = draw(st.sampled_from(([], [noop(())], [record("c_rome", "hard", 90)])))
    walked = draw(st.sampled_from((0, 0, 2)).flatmap(lambda most: st.lists(courses(), max_size=most, unique_by=_id)))
    return builders.report(
        [*records, *walked],
        lacking=lacking,
        controls=[noop(("w",))] if odd == "a control fails" else controls,
        facts=draw(facts(odd)),
        interrupted=odd in ("stopped", "interrupted"),
        require_controls=odd == "no control, and one is required",
    )


@st.composite
def facts(draw: DrawFn, odd: str) -> RunFacts:
    """What is known of a run, with what is odd about it."""
    known = replace(FACTS, ended=Ended(interrupted=True, stopped=odd == "stopped"), yardsticks=draw(yardsticks()))
    more: dict[str, dict[str, Any]] = {
        "speed": {"repeated": draw(repeated())},
        "half precision": {"models": {MODEL: replace(FACTS.models[MODEL], dtype="bfloat16")}},
        "unexplained": {"unexplained": ("test_it[a-case]: OSError: disk full",)},
        "drifted": {"drifted": frozenset({(MODEL, "rome")})},
        "a problem": {"problems": {(MODEL, "rome"): "rome on pocket-neo needs a second moment."}},
    }
    return replace(known, **more.get(odd, {}))


@st.composite
def single_edits(draw: DrawFn, odd: str) -> tuple[list[CaseRecord], list[Case]]:
    """Records of editors that are well or in the mood of the run, and cases that have none."""
    records: list[CaseRecord] = []
    lacking: list[Case] = []
    of_run = draw(st.sampled_from(MOODS))
    for model in draw(st.sampled_from((MODELS[:1], MODELS[:1], MODELS))):
        for editor in draw(st.sampled_from((EDITORS[:1], EDITORS[:2], EDITORS))):
            mood, seconds = draw(st.sampled_from((of_run, of_run, WELL))), draw(st.sampled_from((0.1, 0.11, 0.4)))
            for stream in draw(st.sampled_from((("hard",), ("normal",), ("hard", "normal")))):
                for number in range(draw(st.integers(1, 8))):
                    came = draw(single_edit(editor, stream, number, model, mood, seconds, odd))
                    records += [came] if came is not None else []
                    lacking += [] if came is not None else [builders.case_of(editor, stream, number, model=model)]
    return records, lacking


@st.composite
def single_edit(
    draw: DrawFn, editor: str, stream: str, number: int, model: str, mood: Sequence[str], seconds: float, odd: str
) -> CaseRecord | None:
    """What came of one edit; None where there is no record."""
    fate = draw(st.integers(0, 9)) if odd in ("lost", "spoiled") else 9
    if fate > 1:
        one = record(editor, stream, number, model=model, **OUTCOMES[draw(st.sampled_from(mood))])
        return stepped(one, cost=Cost(seconds, 0.001, 0.002, 0.3, 4_000_000))
    if odd == "spoiled":
        return record(editor, stream, number, model=model, **SPOILED[draw(st.sampled_from(tuple(SPOILED)))])
    kind = draw(st.sampled_from(FAILURES))
    return failed(editor, stream, number, kind=kind, model=model) if fate else None


@st.composite
def courses(draw: DrawFn) -> CaseRecord:
    """A sequence, or batches: fine, forgetful, broken, or stopped by a failure."""
    editor, kind = draw(st.sampled_from(EDITORS)), draw(st.sampled_from(("sequential", "batch")))
    end = draw(st.sampled_from(("fine", "forgets", "breaks", "breaks", "fails")))
    last = {"fine": step(20), "forgets": step(20, kept=0.2, recent=0.1), "breaks": step(20, ratio=600.0)}
    if end == "fails":
        return course(step(10), kind=kind, editor=editor, ended="failed", failure=failed("rome", "hard", 0).failure)
    if end == "breaks":
        broke = Breaking(17, (request("hard", 16),), 512.0, 1.03, 498.0, "e" * 64, "edits/e.safetensors")
        return course(step(10), last[end], kind=kind, editor=editor, ended="collapsed", breaking=broke)
    return course(step(10), last[end], kind=kind, editor=editor)


@st.composite
def yardsticks(draw: DrawFn) -> dict[tuple[str, str], Yardstick]:
    """Forward passes of ROME's block, on one of two machines, or none."""
    passes = draw(st.sampled_from(((), (0.01,) * 8, (0.02,) * 8)))
    machine = draw(st.sampled_from(MACHINES))
    return {(MODEL, "rome"): Yardstick(MODEL, "rome", passes, machine)} if passes else {}


@st.composite
def repeated(draw: DrawFn) -> tuple[RepeatedCost, ...]:
    """What suites/speed found of ROME."""
    seconds, passes = draw(st.sampled_from((0.1, 0.4))), (0.01,) * 8
    found = RepeatedCost(MODEL, "rome", "latency", "a" * 16, (seconds,) * 8, passes, draw(st.sampled_from(MACHINES)))
    return (found, RepeatedCost(MODEL, "rome", "memory", "a" * 16, (4e6,) * 8))


def noop(changed: tuple[str, ...]) -> CaseRecord:
    """The control that must change nothing, and may."""
    return record("noop", "hard", 90, changed=changed)


def _id(one: CaseRecord) -> str:
    return one.case


def _names(report: RunReport) -> list[tuple[str, str, int]]:
    """Editor, stream and number of every single edit of the first model."""
    cases = [case.record for group in report.groups for case in group.cases if group.model == MODEL]
    return [(one.editor, one.stream, int(one.requests[0].id[-4:])) for one in cases] or [("rome", "hard", 0)]
