"""docs/report.schema.json: every real report is valid by it, it describes every field, and refuses what is not one."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings

from editsafety.judging.baselines.baseline import AcceptedBaseline
from editsafety.judging.baselines.costs import CostLimit
from editsafety.judging.baselines.gate import Gate
from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.reporting import ReportPlace, as_json
from editsafety.runs.case_record import Breaking
from editsafety.runs.facts import OrderFacts, RepeatedCost, Unedited, Yardstick
from tests import builders
from tests.builders import FACTS, failed, record, report
from tests.publishing.injections import TEXTS
from tests.reporting import hostile
from tests.reporting.generated import runs
from tests.system.commands import ROOT

SCHEMA: dict[str, Any] = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))


def closed(schema: Any) -> Any:
    """The schema that takes no field which it does not describe."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(one) for name, one in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        found["additionalProperties"] = False
    return found


STRICT = jsonschema.Draft202012Validator(closed(SCHEMA))


def document(made: RunReport) -> Any:
    """As it is written, read again."""
    return json.loads(as_json.REPORT(made, ReportPlace()))


def refuse(body: Any) -> None:
    """Fail with the first place that is not as the schema says."""
    for error in STRICT.iter_errors(body):
        pytest.fail(f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}")


def passes() -> RunReport:
    return report([record("ft", stream, i) for stream in ("hard", "normal") for i in range(3)])


def regressed() -> RunReport:
    rows = [record("rome", "normal", i) for i in range(60)]
    sticks = {("pocket-neo", "rome"): Yardstick("pocket-neo", "rome", (0.1, 0.2), "a machine")}
    repeated = (RepeatedCost("pocket-neo", "rome", "latency", "a" * 16, (0.2,) * 8, (0.1,) * 8, "a machine"),)
    facts = replace(FACTS, yardsticks=sticks, repeated=repeated)
    accepted = AcceptedBaseline.of(report(rows, facts=facts), costs=True)
    limits = (CostLimit.parse("latency:20%"), CostLimit.parse("absolute-measuring:10%"))
    worse = [record("rome", "normal", i, takes=float(i > 9)) for i in range(60)]
    return Gate(accepted, "base.json", limits=limits).judged(report(worse, facts=facts))


VERDICTS: dict[Verdict | None, RunReport] = {
    Verdict.PASS: passes(),
    Verdict.WARN: report([record("ft", "hard", 0, ratio=1.5)]),
    Verdict.INEFFECTIVE: report([record("ft", "hard", 0, takes=0.0)]),
    Verdict.NO_OP: report([record("ft", "hard", 0, changed=())]),
    Verdict.DAMAGED: report([record("ft", "hard", 0, local=0.0)]),
    Verdict.COLLAPSE: builders.example(),
    Verdict.REGRESSED: regressed(),
    Verdict.INCOMPLETE: report([record("ft", "hard", 0)], lacking=[builders.case_of("ft", "hard", 1)]),
    Verdict.ERROR: report([failed("rome", "hard", 0, kind="oom")]),
    None: report([], lacking=[builders.case_of("rome", "hard", 0)]),
}


def test_the_schema_is_a_schema_of_the_version_that_is_written():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema"] == {"const": as_json.SCHEMA}


def test_every_verdict_there_is_has_a_report_here():
    assert {made.verdict for made in VERDICTS.values()} == {*Verdict, None}
    assert SCHEMA["$defs"]["verdict"]["enum"] == [verdict.value for verdict in Verdict]


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda one: one.value if one else "nothing judged")
def test_a_report_of_every_verdict_is_valid_and_has_no_field_that_is_not_described(verdict):
    made = VERDICTS[verdict]
    assert made.verdict is verdict
    refuse(document(made))


@settings(max_examples=settings.default.max_examples // 5)
@given(made=runs())
def test_reports_of_generated_runs_are_valid(made):
    refuse(document(made))


@pytest.mark.parametrize("text", TEXTS)
def test_reports_full_of_hostile_text_are_valid(text):
    refuse(document(hostile.report(text)))


def test_what_is_not_finite_is_valid():
    refuse(document(report([record("rome", "hard", 0, ratio=math.inf, norm=math.nan, notes={"loss": math.nan})])))


def test_courses_with_the_edit_that_broke_them_are_valid():
    requests = (builders.request("hard", 3),)
    breaking = Breaking(14, requests, math.inf, 1.1, None, "e" * 64, "breaking/x.safetensors", {"denominator": 0.1})
    steps = (builders.step(10, nli=60), builders.step(20, ratio=math.inf, nli=10))
    abilities = [builders.probe("nli", 70)]
    walked = builders.course(*steps, abilities=abilities, ended="collapsed", breaking=breaking)
    lost = failed("rome", "hard", 1)
    policy = Policy.read("default")
    courses = tuple(judge_case(policy, one) for one in (walked, builders.course(kind="batch", failure=lost.failure)))
    refuse(document(replace(report([record("rome", "hard", 0)]), courses=courses, missing_courses=("a-course",))))


def test_facts_of_every_kind_are_valid():
    found = {"me_ppl": builders.measured("me_ppl", 51.2, unit="perplexity").as_json()}
    facts = replace(
        FACTS,
        unedited={"pocket-neo": Unedited("pocket-neo", "f" * 64, "t" * 64, 1e-7, found)},
        orders={("pocket-neo", "rome"): OrderFacts("pocket-neo", "rome", 2, ("a",), "k")},
        problems={("pocket-neo", "rome"): "no such layer"},
        not_applicable={"a-case": "one fact at a time"},
        unexplained=("a test: it failed",),
        software={"torch": "2.6"},
    )
    refuse(document(report([record("rome", "hard", 0, undeclared=("wte",), leftovers=("a hook",))], facts=facts)))


def test_what_a_check_of_an_edited_model_adds_is_valid():
    added = {
        "name": "mine", "kind": "model", "edit_id": "e" * 64, "remarks": ["a"], "not_loaded": [],
        "tensors": {"compared": 9, "edited": [{"name": "w"}], "rounded": []},
    }  # fmt: skip
    refuse(document(replace(passes(), more={"received": added})))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("verdict",), "FINE"),
        (("exit_code",), 1),
        (("schema",), 1),
        (("groups", 0, "cases", 0, "ratio"), "1.0"),
        (("groups", 0, "cases", 0, "checks", 0, "verdict"), None),
        (("counts", "judged"), -1),
        (("models", "pocket-neo", "fingerprint"), 3),
    ],
)
def test_a_document_that_is_something_else_is_refused(place, value):
    body = deepcopy(document(passes()))
    inner = body
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, SCHEMA)


def test_a_field_that_is_missing_is_refused_and_a_new_one_is_not():
    body = document(passes())
    jsonschema.validate({**body, "something_new": 1}, SCHEMA)
    del body["groups"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, SCHEMA)
