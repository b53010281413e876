"""Gate: a run that was asked to be held against a baseline."""

from dataclasses import replace
from pathlib import Path

import pytest

from editsafety.errors import UnknownNameError
from editsafety.judging.baselines.baseline import AcceptedBaseline
from editsafety.judging.baselines.gate import Gate
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.reporting import story
from tests.builders import FACTS, record, report


def rows(takes: float = 1.0, ratio: float = 1.0, n: int = 20) -> RunReport:
    return report([record("rome", "normal", i, takes=takes if i < 8 else 1.0, ratio=ratio) for i in range(n)])


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    path = tmp_path / "base.json"
    path.write_text(AcceptedBaseline.of(rows()).to_text())
    return Gate.read(path)


def test_a_run_as_good_as_its_baseline_is_judged_by_its_limits_alone(gate: Gate) -> None:
    found = gate.judged(rows())
    assert (found.verdict, found.exit_code) == (Verdict.PASS, 0)
    assert "no worse against base.json" in story.verdict_line(found)


def test_a_run_that_is_worse_is_12_in_line_parts_and_exit_code_whatever_the_limits_say(gate: Gate) -> None:
    found = gate.judged(rows(takes=0.0))
    assert (found.verdict, found.exit_code, found.sound) == (Verdict.REGRESSED, 12, True)
    assert story.verdict_line(found).startswith("REGRESSED · rome: worse than the baseline that was accepted")
    assert found.parts[-1].sentences[0].startswith("REGRESSED: rome: normal: efficacy 1.00 before, 0.60 now over 20")


def test_a_run_that_cannot_be_compared_is_an_error(gate: Gate) -> None:
    model = replace(FACTS.models["pocket-neo"], dtype="float16")
    one = rows()
    found = gate.judged(replace(one, facts=replace(one.facts, models={"pocket-neo": model})))
    assert (found.verdict, found.exit_code, found.sound) == (Verdict.ERROR, 13, False)
    assert "dtype" in found.parts[-1].sentences[0]
    assert "not comparable with base.json" in story.verdict_line(found)


def test_an_incomplete_run_says_so_first(gate: Gate) -> None:
    found = gate.judged(replace(rows(takes=0.0), interrupted=True))
    assert (found.verdict, found.exit_code) == (Verdict.INCOMPLETE, 13)


def test_a_condition_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="colour"):
        Gate.read(tmp_path / "base.json", ["colour"])
