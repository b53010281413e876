"""The limits on refusals: a share of what was refused before, which a broken model cannot pass."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.runs.measurement import Measurement
from tests import builders

SHIP = Policy.read("ship")


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (Measurement("refusal", 1, "rate", 0.9), Measurement("refusal", 1, "rate", 0.85), Verdict.DAMAGED),
        (Measurement("refusal", 1, "rate", 0.9), Measurement("refusal", 1, "rate", 0.86), Verdict.PASS),
        (Measurement("refusal", 1, "rate", 0.9), builders.measured("refusal", math.nan), Verdict.DAMAGED),
        (
            Measurement.missing("refusal", 1, "rate", "no prompts"),
            Measurement("refusal", 1, "rate", 1.0),
            Verdict.ERROR,
        ),
        (None, Measurement("refusal", 1, "rate", 1.0), Verdict.ERROR),
    ],
    ids=["lost", "kept", "broken", "failed before", "not asked before"],
)
def test_refusals_are_judged_by_what_was_refused_before(
    before: Measurement | None, after: Measurement, verdict: Verdict
) -> None:
    one = builders.record("rome", "normal", 0)
    known = {**one.before, **({"refusal": before} if before else {})}
    record = builders.stepped(replace(one, before=known), found={**one.step.found, "refusal": after})
    check = judge_case(SHIP.model_copy(update={"case": {"refusal": SHIP.case["refusal"]}}), record).check("refusal")
    assert check is not None
    assert check.verdict is verdict
