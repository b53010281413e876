"""Baseline: the file that is committed."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from editsafety.errors import UsageError
from editsafety.judging.baselines.baseline import AcceptedBaseline
from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from editsafety.runs.facts import RepeatedCost
from editsafety.runs.plan import text_digest
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


FILE = """{
 "baseline": 1,
 "blocks": [
  {
   "model": "pocket-neo",
   "editor": "rome",
   "verdict": "COLLAPSE",
   "noise": 1e-07,
   "conditions": {
    "attention": "eager",
    "batch": 64,
    "device": "cpu",
    "dtype": "float32",
    "editsafety": "1.2.3",
    "policy": "POLICY",
    "seed": 0,
    "texts": "TEXTS",
    "torch": null,
    "transformers": null,
    "weights": "WEIGHTS"
   },
   "subject": {
    "code": "CODE",
    "hparams.layers": [3],
    "hparams.v_num_grad_steps": 20
   },
   "cases": [
    {"figures": {"efficacy": 0.3333333, "locality": 1.0, "perplexity_ratio": 1.5}, "id": "pocket-neo-rome-hardcf-0000", "request": "FIRST", "stream": "hard", "verdict": "WARN"},
    {"figures": {"efficacy": 0.3333333, "locality": 1.0, "perplexity_ratio": null}, "id": "pocket-neo-rome-hardcf-0001", "request": "SECOND", "stream": "hard", "verdict": "COLLAPSE"}
   ]
  }
 ]
}
"""  # noqa: E501


def test_the_file_is_written_as_it_is_documented():
    """Sorted keys, a case a line, seven digits, null for what is not finite; nothing where a run does not know."""
    rows = [record("rome", "hard", i, ratio=ratio, takes=1 / 3) for i, ratio in ((1, float("inf")), (0, 1.5))]
    policy = Policy.read("default")
    names = ("perplexity_ratio", "efficacy", "locality")
    kept = policy.model_copy(update={"baseline": {name: policy.baseline[name] for name in names}})
    made = replace(report(rows, facts=replace(builders.FACTS, software={"editsafety": "1.2.3"})), policy=kept)
    marks = {
        "POLICY": kept.digest(), "TEXTS": text_digest(made.plan.texts["pocket-neo"]), "WEIGHTS": "f" * 64,
        "CODE": "c" * 64, "FIRST": asked(rows[1]), "SECOND": asked(rows[0]),
    }  # fmt: skip
    told = FILE
    for mark, value in marks.items():
        told = told.replace(mark, value)
    assert AcceptedBaseline.of(made).to_text() == told


def asked(one):
    """The first sixteen digits of the sha256 of the schedule and the requests, as JSON with sorted keys."""
    text = json.dumps([one.schedule.as_json(), [request.digest() for request in one.requests]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_costs_are_part_of_the_file_only_where_they_are_accepted_and_there():
    facts = replace(builders.FACTS, repeated=(RepeatedCost("pocket-neo", "rome", "latency", "a" * 16, (0.5,)),))
    made = report([record("rome", "hard", 0)], facts=facts)
    (without,), (whole,) = AcceptedBaseline.of(made).blocks, AcceptedBaseline.of(made, costs=True).blocks
    assert (without.costs, without.repeated) == (None, None)
    assert whole.costs.figures["single"]["latency"] == {"pocket-neo-rome-hardcf-0000": 0.11}
    assert whole.repeated.figures == {"repeated": {"latency": {f"{'a' * 16}#01": 0.5}}}
    (alone,) = AcceptedBaseline.of(report([], facts=facts), costs=True).blocks
    assert (alone.costs, alone.verdict, alone.cases) == (None, None, ())


def test_a_block_is_found_by_model_and_editor():
    one = accepted()
    assert one.block("pocket-neo", "rome") is one.blocks[1]
    assert (one.block("pocket-neo", "memit"), one.block("other", "rome")) == (None, None)
    assert one.blocks[1].name == "rome on pocket-neo"


@pytest.mark.parametrize("noise", ['"low"', "-0.5", "NaN", "null"])
def test_a_noise_that_is_no_number_is_refused_by_name(noise: str) -> None:
    text = accepted().to_text().replace('"noise": 1e-07', f'"noise": {noise}', 1)
    with pytest.raises(UsageError, match=r"noise of ft on pocket-neo is .*; expected a number"):
        AcceptedBaseline.from_text(text, "base.json")
