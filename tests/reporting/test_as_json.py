"""JSON: everything, valid, whole or not at all."""

import json
import math
import os
from pathlib import Path

import pytest

from editsafety import reporting
from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from editsafety.reporting import ReportPlace, as_json, courses
from editsafety.runs.case_record import Failure
from tests import builders
from tests.builders import failed, record, report
from tests.reporting import hostile


def written(made, path):
    path.write_text(as_json.REPORT(made, ReportPlace()), encoding="utf-8", errors="backslashreplace")
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_the_document_holds_all_that_was_found(tmp_path):
    found = written(builders.example(), tmp_path / "report.json")
    assert (found["schema"], found["verdict"], found["exit_code"], found["sound"]) == (2, "COLLAPSE", 10, True)
    assert found["counts"] == {
        "planned": 756, "judged": 756, "missing": 0, "verdicts": {"PASS": 738, "COLLAPSE": 18}
    }  # fmt: skip
    assert [group["editor"] for group in found["groups"]] == ["rome", "c_rome", "ft"]
    rome = found["groups"][0]
    assert [row["stream"] for row in rome["figures"]] == ["all", "hard", "normal"]
    assert rome["figures"][1]["efficacy"] == pytest.approx(66 / 84)
    case = rome["cases"][0]
    assert (case["case"], case["verdict"]) == ("pocket-neo-rome-hardcf-0000", "COLLAPSE")
    assert case["ratio"] == pytest.approx(526.4)
    assert (case["before"]["me_ppl"]["value"], case["after"]["efficacy"]["answers"]) == (51.2, ["the the the the"])
    assert case["notes"]["denominator"] == 0.003
    assert case["cost"]["edit"] == 0.11
    assert found["policy"]["name"] == "default"
    assert found["policy"]["case"]["perplexity"]["pass_at_most"] == 1.25
    assert len(found["policy"]["digest"]) == len(found["plan"]["digest"]) == 64
    assert found["models"]["pocket-neo"]["trust_remote_code"] is False
    assert found["editors"]["pocket-neo:rome"]["hparams"]["layers"] == [3]
    assert [control["behaved"] for control in found["controls"]] == [True, True, True]


def test_every_field_and_the_version_of_the_layout_are_described():
    described = (Path(__file__).parents[2] / "docs" / "report-schema.md").read_text(encoding="utf-8")
    assert f"version of this layout ({as_json.SCHEMA})" in described
    document = as_json.document(report([record("rome", "hard", 0)], lacking=[builders.case_of("rome", "hard", 1)]))
    (group,) = document["groups"]
    walked = courses.as_json(judge_case(Policy.read("default"), builders.course(builders.step(30))))
    names = {*document, *group, *group["cases"][0], *walked, *walked["steps"][0]}
    assert [name for name in sorted(names) if f"`{name}`" not in described] == []


def test_what_is_not_finite_is_null_with_a_flag(tmp_path):
    made = report([record("rome", "hard", 0, ratio=math.inf, norm=math.nan, notes={"loss": math.nan})])
    found = written(made, tmp_path / "report.json")
    case = found["groups"][0]["cases"][0]
    assert (case["ratio"], case["ratio_not_finite"], case["notes"]) == (None, True, {"loss": "nan"})
    check = next(check for check in case["checks"] if check["check"] == "perplexity")
    assert (check["figure"], check["not_finite"]) == (None, True)
    figures = found["groups"][0]["figures"][0]
    assert figures["worst_ratio"] is None
    assert figures["not_finite"] == ["worst_ratio", "median_ratio", "median_update_norm", "median_delta_relative"]


def test_a_case_that_failed_is_there_with_its_failure(tmp_path):
    found = written(report([failed("rome", "hard", 0, kind="oom")]), tmp_path / "report.json")
    case = found["groups"][0]["cases"][0]
    assert (case["verdict"], case["failure"]["kind"], case["ratio"]) == ("ERROR", "oom", None)


def test_nothing_judged_is_null_and_14(tmp_path):
    found = written(report([], lacking=[builders.case_of("rome", "hard", 0)]), tmp_path / "report.json")
    assert (found["verdict"], found["exit_code"], found["worst"]) == (None, 14, None)
    assert found["counts"]["missing"] == 1
    assert found["groups"][0]["missing"] == ["pocket-neo-rome-hardcf-0000"]


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_hostile_text_is_kept_as_it_is(text, tmp_path):
    found = written(hostile.report(text), tmp_path / "report.json")
    assert found["software"] == {text: text}
    assert found["editors"]["pocket-neo:rome"]["hparams"] == {text: text}
    assert text in found["problems"].values()
    answers = [row["after"]["efficacy"]["answers"] for row in found["groups"][0]["cases"] if row["after"]]
    assert [text] in answers


def test_equal_records_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        reporting.write(builders.example(), tmp_path / name, ReportPlace())
    files = [sorted((tmp_path / name).iterdir()) for name in ("a", "b")]
    assert [path.name for path in files[0]] == ["report.html", "report.json", "report.md"]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    reporting.write(report([record("rome", "hard", 0)]), tmp_path, ReportPlace())
    old = path.read_bytes()

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        reporting.write(report([record("rome", "hard", 0, ratio=9.0)]), tmp_path, ReportPlace())
    assert path.read_bytes() == old
    assert sorted(os.listdir(tmp_path)) == ["report.html", "report.json", "report.md"]


def test_what_an_editor_changed_without_saying_so_is_in_the_document(tmp_path):
    """By its name, whether the case came to figures or to none."""
    loud = record("rome", "hard", 0, undeclared=("wte.weight",))
    failure = Failure("undeclared", "rome failed: the model is not what it was", undeclared=("ln_f.bias differs",))
    none = record("rome", "hard", 1, failure=failure)
    made = written(report([loud, none, record("rome", "hard", 2)]), tmp_path / "report.json")
    told = {case["case"]: case["undeclared"] for case in made["groups"][0]["cases"]}
    assert list(told.values()) != [[], [], []]
    assert {name[-1]: names for name, names in told.items()} == {
        "0": ["wte.weight"], "1": ["ln_f.bias differs"], "2": []
    }  # fmt: skip
