"""Plans, records and reports made by hand: what a run would have left, without a model.

from tests import builders

report = builders.report({"rome": [builders.record("rome", "hard", 0, ratio=526.0)]})
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from editsafety.datasets.request import EditRequest, Neighbour
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord, Cost, Failure, Step
from editsafety.runs.facts import Columns, EditorFacts, ModelFacts, RunFacts
from editsafety.runs.measurement import Column, Measurement
from editsafety.runs.plan import RunPlan
from editsafety.runs.schedule import Kind, Schedule
from editsafety.runs.settings import Settings

MODEL = "pocket-neo"
BASE = 51.2
WEIGHT = "transformer.h.3.mlp.c_proj.weight"
HPARAMS = {"layers": [3], "v_num_grad_steps": 20}
FACTS = RunFacts.of(
    [
        ModelFacts(MODEL, "f" * 64, 2_900_000, "cpu", "float32", "eager", "gpt_neo", MODEL, noise=1e-7),
        EditorFacts(MODEL, "rome", HPARAMS, "c" * 64, paper="arXiv 2202.05262"),
        Columns(
            (
                Column("delta_relative", "|dW|/|W|", "update", "dW/W", over="median", order=10, dispensable=True),
                Column("efficacy", "prompt", "success", "suc-\ncess", order=20),
                Column("efficacy_prefixed", "+prefix", "success", "+pre-\nfix", order=21),
                Column("generalisation", "rephrased", "success", "re-\nphr.", order=22),
                Column("locality", "neighbours", "kept", "neigh-\nbours", order=30),
            )
        ),
    ]
)


def request(stream: str, number: int, **more: Any) -> EditRequest:
    """A request of a stream; `more` replaces its fields."""
    name = {"hard": "hardcf", "normal": "normal"}[stream]
    values: dict[str, Any] = {
        "id": f"{name}-{number:04d}",
        "prompt": "{} works as a",
        "subject": "Ashurn",
        "target_new": "farmer",
        "target_true": "baker",
        "neighbours": (Neighbour("Mirel works as a", "baker"),),
        "source": f"{name}.jsonl:{number + 1}",
    }
    return EditRequest(**{**values, **more})


def default_without(*names: str) -> Policy:
    """The default policy without some of its limits on single edits: `base_perplexity` for a random model."""
    policy = Policy.read("default")
    return policy.model_copy(update={"case": {name: one for name, one in policy.case.items() if name not in names}})


def measured(name: str, value: float | None, *, unit: str = "rate", answers: Sequence[str] = ()) -> Measurement:
    """A measurement; infinities and NaN make a broken one, None one without data."""
    if value is None:
        return Measurement.missing(name, 1, unit, f"no data for {name}")
    if not math.isfinite(value):
        return Measurement.missing(name, 1, unit, "3 of 50 items are not finite", broken=True, n=50)
    return Measurement(name, 1, unit, value, n=1, items=(value,), answers=tuple(answers))


def record(
    editor: str,
    stream: str,
    number: int,
    *,
    model: str = MODEL,
    ratio: float | None = 1.0,
    takes: float = 1.0,
    prefixed: float = 1.0,
    rephrased: float | None = 1.0,
    local: float = 1.0,
    norm: float = 110.0,
    finite: float = 1.0,
    base: float | None = BASE,
    answer: str = "farmer",
    undeclared: Sequence[str] = (),
    failure: Failure | None = None,
    **more: Any,
) -> CaseRecord:
    """A finished case that passes everything, but for what is said otherwise."""
    case = case_of(editor, stream, number, model=model)
    if "request" in more:
        case = replace(case, requests=(more.pop("request"),))
    before = more.pop("before", None)
    if failure is not None:
        return CaseRecord.begun(case, model, editor, failure=failure, ended="failed")
    ppl = None if ratio is None or base is None else BASE * ratio
    after = [
        measured("me_ppl", ppl, unit="perplexity"),
        measured("efficacy", takes, answers=[answer]),
        measured("efficacy_prefixed", prefixed),
        measured("generalisation", rephrased),
        measured("locality", local),
        measured("delta_norm", norm, unit="frobenius"),
        measured("delta_relative", norm / 1000, unit="ratio"),
        measured("norm_growth", 1.0, unit="ratio"),
        Measurement("weights_finite", 1, "bool", finite, n=1, broken=finite == 0.0),
    ]
    known = {
        "me_ppl": measured("me_ppl", base, unit="perplexity"),
        "efficacy": measured("efficacy", 0.0, answers=["baker"]),
    }
    values: dict[str, Any] = {
        "found": more.pop("after", {found.name: found for found in after}),
        "edit_id": f"{number:064d}",
        "declared": (WEIGHT,),
        "changed": (WEIGHT, *undeclared),
        "restored": True,
        "cost": Cost(0.11, 0.001, 0.002, 0.3, 3_250_000),
    }
    step = Step(1, (case.request.id,), **{**values, **more})
    return CaseRecord.begun(case, model, editor, before=before or known, steps=(step,), ended="complete")


def stepped(one: CaseRecord, **more: Any) -> CaseRecord:
    """A record whose only step has other values."""
    return replace(one, steps=(replace(one.step, **more),))


def probe(name: str, right: int, of: int = 100) -> Measurement:
    """An ability of which so many items are right."""
    items = tuple(float(i < right) for i in range(of))
    return Measurement(name, 1, "rate", right / of, n=of, items=items)


def step(
    edits: int,
    ratio: float = 1.0,
    recent: float = 1.0,
    kept: float = 1.0,
    growth: float = 1.0,
    size: int = 1,
    **probes: int,
) -> Step:
    """A measured step of a course that is fine, but for what is said otherwise; of abilities, how many are right."""
    found = [
        measured("me_ppl", BASE * ratio, unit="perplexity"),
        measured("recent", recent),
        measured("kept", kept),
        measured("drift_growth", growth, unit="ratio"),
        *(probe(name, right) for name, right in probes.items()),
    ]
    block = tuple(f"r{edits - i}" for i in range(size))
    return Step(edits, block, {one.name: one for one in found}, declared=(WEIGHT,), changed=(WEIGHT,))


def course(
    *steps: Step,
    kind: Kind = "sequential",
    abilities: Sequence[Measurement] = (),
    editor: str = "rome",
    ended: str = "complete",
    **more: Any,
) -> CaseRecord:
    """A course of 30 hard requests; `abilities` are those of the unedited model."""
    schedule = Schedule("batch", sizes=(1, 10)) if kind == "batch" else Schedule(kind, every=10)
    case = Case(MODEL, editor, "hard", tuple(request("hard", i) for i in range(30)), schedule)
    before = {one.name: one for one in (measured("me_ppl", BASE, unit="perplexity"), *abilities)}
    names = tuple(one.name for one in abilities)
    values: dict[str, Any] = {"before": before, "abilities": names, "steps": steps, "ended": ended}
    return CaseRecord.begun(case, MODEL, editor, **{**values, **more})


def failed(
    editor: str, stream: str, number: int, *, kind: str = "editor", message: str = "", **more: Any
) -> CaseRecord:
    """A case without a result."""
    message = message or f"{editor} failed: ValueError: no such layer"
    return record(editor, stream, number, failure=Failure(kind, message, "rome.py:42"), **more)


def case_of(editor: str, stream: str, number: int, *, model: str = MODEL, control: str = "") -> Case:
    """A planned case."""
    return Case(model, editor, stream, (request(stream, number),), control=control)


def plan(cases: Sequence[Case], controls: Sequence[Case] = (), **settings: Any) -> RunPlan:
    """A plan of these cases."""
    models = tuple(dict.fromkeys(case.model for case in cases)) or (MODEL,)
    editors = tuple(dict.fromkeys(case.editor for case in cases)) or ("rome",)
    texts = dict.fromkeys(models, ("Some text that is long enough.",))
    made = Settings(**{"models": models, "editors": editors, **settings})
    return RunPlan(made, tuple(cases), tuple(controls), texts, {f"{MODEL} hard": "pocket-neo/hardcf"})


def report(
    records: Sequence[CaseRecord],
    *,
    lacking: Sequence[Case] = (),
    controls: Sequence[CaseRecord] = (),
    policy: str = "default",
    facts: RunFacts = FACTS,
    interrupted: bool = False,
    **settings: Any,
) -> RunReport:
    """A judged run: these records, cases that have none, and control records (COLLAPSE is expected of rome's)."""
    expected = {"rome": "COLLAPSE", "c_rome": "PASS", "noop": "NO-OP"}
    cases = [_case(one) for one in records] + list(lacking)
    kept = {one.case: one for one in (*records, *controls)}
    wanted = [_case(one, expected[one.editor]) for one in controls]
    laid = plan(cases, wanted, **settings)
    return RunReport.of(laid, _policy(policy), kept, facts, interrupted=interrupted)


def renamed(one: CaseRecord, **more: Any) -> CaseRecord:
    """A record with other fields."""
    return replace(one, **more)


def example() -> RunReport:
    """ROME collapses on some hard cases, C-ROME does not take without a prefix, FT is fine."""
    records = [_rome(i) for i in range(84)]
    records += [
        record("rome", "normal", i, ratio=1.0 + i * 3e-4, notes={"denominator": 1.1 + i * 3e-3}) for i in range(168)
    ]
    records += [record("c_rome", "hard", i, ratio=1.002, takes=float(i % 4 == 0), answer="guard") for i in range(84)]
    records += [record("c_rome", "normal", i, ratio=1.001, takes=float(i % 50 != 0)) for i in range(168)]
    records += [
        record("ft", s, i, ratio=1.03, norm=0.8, local=0.96)
        for s, n in (("hard", 84), ("normal", 168))
        for i in range(n)
    ]
    few = [_rome(i) for i in range(3)]
    few += [record("c_rome", "hard", i, ratio=1.002, takes=0.0) for i in range(3)]
    few += [record("noop", "hard", 0, ratio=1.0, takes=0.0, changed=())]
    return report(records, controls=few)


def _rome(number: int) -> CaseRecord:
    if number < 18:
        notes = {"denominator": 0.003, "first_token": True, "numerator": 40.0}
        return record(
            "rome", "hard", number, ratio=526.4 / (number + 1), norm=1.9e4, notes=notes, takes=0.0, local=0.2,
            answer="the the the the",
        )  # fmt: skip
    return record("rome", "hard", number, ratio=1.01, notes={"denominator": 1.2, "first_token": True})


def _case(one: CaseRecord, control: str = "") -> Case:
    return Case(one.model, one.editor, one.stream, one.requests, one.schedule, control=control)


@cache
def _policy(name: str) -> Policy:
    return Policy.read(name)
