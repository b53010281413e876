"""Baseline: the file that is committed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from editsafety.errors import UsageError
from editsafety.judging.baselines.baseline import AcceptedBaseline
from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from tests import builders
from tests.builders import record, report, stepped


def accepted() -> AcceptedBaseline:
    rows = [record(editor, stream, i) for editor in ("rome", "ft") for stream in ("hard", "normal") for i in range(2)]
    return AcceptedBaseline.of(report(rows))


def test_a_baseline_read_back_is_the_same():
    assert AcceptedBaseline.from_text(accepted().to_text(), "here") == accepted()


def test_the_file_is_sorted_and_has_one_line_for_each_case():
    text = accepted().to_text()
    cases = [line.strip().rstrip(",") for line in text.splitlines() if '"figures"' in line]
    assert len(cases) == 8
    names = [json.loads(line)["id"] for line in cases]
    assert names == sorted(names[:4]) + sorted(names[4:])
    assert [block.editor for block in accepted().blocks] == ["ft", "rome"]


def test_what_costs_and_clocks_say_is_not_in_the_file():
    slow = [stepped(record("rome", "hard", 0), cost=record("rome", "hard", 0).step.cost.__class__(edit=99.0))]
    fast = [record("rome", "hard", 0)]
    assert AcceptedBaseline.of(report(slow)).to_text() == AcceptedBaseline.of(report(fast)).to_text()


def test_a_model_that_gave_no_number_is_null_and_stays_a_figure():
    (block,) = AcceptedBaseline.of(report([record("rome", "hard", 0, ratio=float("inf"))])).blocks
    assert block.cases[0].figures["perplexity_ratio"] is None


def test_only_figures_that_the_policy_compares_are_kept():
    (block,) = AcceptedBaseline.of(report([record("rome", "hard", 0)])).blocks
    compared = {"perplexity_ratio", "efficacy", "efficacy_prefixed", "generalisation", "locality", "norm_growth"}
    assert set(block.cases[0].figures) == compared


def test_a_run_of_courses_alone_is_accepted_too():
    walked = judge_case(Policy.read("default"), builders.course(builders.step(10), builders.step(20)))
    (block,) = AcceptedBaseline.of(replace(report([]), courses=(walked,))).blocks
    assert (block.editor, [case.id for case in block.cases]) == ("rome", [walked.record.case])


def test_an_incomplete_run_cannot_be_accepted():
    with pytest.raises(UsageError, match="its verdict is INCOMPLETE"):
        AcceptedBaseline.of(report([record("rome", "hard", 0)], interrupted=True))
    with pytest.raises(UsageError, match="nothing was judged"):
        AcceptedBaseline.of(report([]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ("[]", "the key `baseline` must be 1"),
        ('{"baseline": 2, "blocks": []}', "the key `baseline` must be 1"),
        ('{"baseline": 1}', "'blocks' is missing"),
        ('{"baseline": 1, "blocks": [{"model": "m", "editor": "e"}]}', "'noise' is missing"),
        ('{"baseline": 1, "blocks": 3}', "not iterable"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_another_file_is_refused_with_a_sentence(text: str, said: str) -> None:
    with pytest.raises(UsageError, match="is no baseline") as caught:
        AcceptedBaseline.from_text(text, "base.json")
    assert said in str(caught.value)


@pytest.mark.parametrize("wrong", ['"high"', "true", "NaN", "Infinity"])
def test_a_figure_that_is_no_number_is_refused_by_name(wrong: str) -> None:
    text = accepted().to_text().replace('"efficacy": 1.0', f'"efficacy": {wrong}', 1)
    with pytest.raises(UsageError, match="efficacy of pocket-neo-ft-hardcf-0000"):
        AcceptedBaseline.from_text(text, "base.json")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"base\.json cannot be read"):
        AcceptedBaseline.read(tmp_path / "base.json")
    (tmp_path / "raw.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        AcceptedBaseline.read(tmp_path / "raw.json")


def test_a_block_that_is_there_twice_is_refused():
    one = accepted()
    with pytest.raises(UsageError, match="an editor on a model twice"):
        AcceptedBaseline.from_text(AcceptedBaseline((one.blocks[0], one.blocks[0])).to_text(), "base.json")
