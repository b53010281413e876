"""A run of more cases than anybody reads: its report shows the worst, and every case is in a line file beside it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from editsafety import reporting
from editsafety.errors import StoreError, UsageError
from editsafety.judging import report as judged_report
from editsafety.judging.causes import _evidence
from editsafety.judging.needed import needed_measurements
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.publishing.published import PublishedRun
from editsafety.reporting import ReportPlace, as_html, as_json, as_markdown, as_terminal, cases_file
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.facts import BlockKey
from editsafety.runs.store import Store
from tests import builders
from tests.builders import FACTS, failed, record
from tests.reporting.test_schema import STRICT

PLACE = ReportPlace("suites")


def records(cases: int) -> list[CaseRecord]:
    """A tenth of them collapse, one fails; the rest stay."""
    made = [
        record("rome", "hard", i, ratio=500.0 + i, notes={"denominator": 0.003, "numerator": 40.0}, takes=0.0)
        for i in range(cases // 10)
    ]
    made += [
        record("rome", "normal", i, ratio=1 + i * 1e-5, notes={"denominator": 1.1 + i * 1e-3})
        for i in range(cases - len(made) - 1)
    ]
    return [*made, failed("rome", "normal", cases)]


def stored(folder: Path, made: list[CaseRecord], *, lean: bool = True) -> RunReport:
    """The report of these records out of a store; lean ones as they are read for a large run."""
    store = Store(folder / "store.sqlite")
    key = BlockKey(builders.MODEL, "rome", "single", "course")
    store.note(key)
    plan = builders.plan([builders._case(one) for one in made])
    for case, one in zip(plan.cases, made, strict=True):
        store.put(key.of(case), one)
    policy = Policy.read("default")
    only = needed_measurements(policy, FACTS.columns) if lean else None
    return RunReport.of(plan, policy, store.finished(plan.cases, only), FACTS)


def test_records_are_found_by_the_digests_of_a_plan_as_by_those_of_its_cases(tmp_path: Path) -> None:
    made = records(20)
    stored(tmp_path, made)
    store, plan = Store(tmp_path / "store.sqlite"), builders.plan([builders._case(one) for one in made])
    assert dict(store.finished(plan.cases, digests=plan.digests)) == dict(store.finished(plan.cases))
    other = dict.fromkeys(plan.digests, "0" * 64)  # those of other requests find nothing
    assert len(store.finished(plan.cases, digests=other)) == 0


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts as many, here."""
    monkeypatch.setattr(judged_report, "MOST_IN_FULL", 20)
    monkeypatch.setattr(as_json, "WORST", 5)
    monkeypatch.setattr(as_json, "NAMED", 3)
    monkeypatch.setattr(as_html._cases, "SHOWN", 4)


def document(report: RunReport) -> Any:
    return json.loads(as_json.REPORT(report, PLACE))


def test_what_is_judged_of_lean_records_is_what_is_judged_of_whole_ones(tmp_path: Path) -> None:
    made = records(40)
    lean, whole = stored(tmp_path / "a", made), stored(tmp_path / "b", made, lean=False)
    assert document(lean) == document(whole)
    assert as_markdown.text(lean) == as_markdown.text(whole)
    assert as_terminal.REPORT(lean, PLACE) == as_terminal.REPORT(whole, PLACE)
    assert as_html.REPORT(lean, PLACE) == as_html.REPORT(whole, PLACE)
    kept = lean.groups[0].cases[0].record
    assert (kept.after["efficacy"].answers, whole.groups[0].cases[0].record.after["efficacy"].answers) == (
        (), ("farmer",),
    )  # fmt: skip


def test_a_small_run_has_no_file_of_cases_and_an_older_one_goes(tmp_path: Path) -> None:
    (tmp_path / cases_file.CASES_FILE).write_text("of another run")
    reporting.write(stored(tmp_path / "run", records(20)), tmp_path, PLACE)
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["report.html", "report.json", "report.md"]
    body = json.loads((tmp_path / "report.json").read_text())
    assert "cases_file" not in body
    assert {"verdicts", "cases_left_out"}.isdisjoint(body["groups"][0])


@pytest.mark.usefixtures("few")
def test_a_large_run_names_the_worst_and_says_how_many_are_left_out(tmp_path: Path) -> None:
    body = document(stored(tmp_path, records(40)))
    (group,) = body["groups"]
    assert [case["case"] for case in group["cases"]] == [
        "pocket-neo-rome-normal-0040", *(f"pocket-neo-rome-hardcf-000{i}" for i in (3, 2, 1, 0)),
    ]  # fmt: skip
    assert (group["cases_left_out"], group["verdicts"]) == (35, {"PASS": 35, "COLLAPSE": 4, "ERROR": 1})
    assert group["cases"][1]["after"]["efficacy"]["answers"] == ["farmer"]  # whole, whatever was read to judge it
    assert body["counts"]["judged"] == 40
    collapsed = next(one for one in group["findings"] if one["verdict"] == "COLLAPSE")
    assert (len(collapsed["cases"]), collapsed["count"]) == (3, 4)
    assert body["cases_file"] == "cases.jsonl"


@pytest.mark.usefixtures("few")
def test_the_file_of_cases_has_every_case_with_the_rows_of_a_whole_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = records(40)
    large = stored(tmp_path / "run", made)
    reporting.write(large, tmp_path / "large", PLACE)
    assert len((tmp_path / "large" / "cases.jsonl").read_text().splitlines()) == 40
    monkeypatch.setattr(judged_report, "MOST_IN_FULL", 2000)
    reporting.write(stored(tmp_path / "again", made, lean=False), tmp_path / "small", PLACE)
    assert list(cases_file.each_case(tmp_path / "large")) == list(cases_file.each_case(tmp_path / "small"))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("text", ["\ud83d", "</script>", "\x1b[2J", "\u202e"])
def test_hostile_text_is_kept_in_the_file_of_cases_and_no_line_of_it_is_broken(text: str, tmp_path: Path) -> None:
    made = [record("rome", "normal", i, answer=text) for i in range(30)]
    reporting.write(stored(tmp_path / "run", made), tmp_path, PLACE)
    raw = (tmp_path / "cases.jsonl").read_bytes()
    assert [one["after"]["efficacy"]["answers"] for one in map(json.loads, raw.splitlines())] == [[text]] * 30
    assert b"<" not in raw
    assert b"\x1b" not in raw


@pytest.mark.usefixtures("few")
def test_people_are_told_that_not_all_is_shown_and_where_the_rest_is(tmp_path: Path) -> None:
    report = stored(tmp_path, records(40))
    assert "10 of 40 cases; all of them are in cases.jsonl." in as_markdown.text(report)
    page = as_html.REPORT(report, PLACE)
    # four that collapse of the hard stream; of the normal one the failure, and four of those that pass
    assert "9 of 40 cases are shown" in page
    assert "normal (5 of 36)" in page


@pytest.mark.usefixtures("few")
def test_a_large_report_is_valid_and_what_is_published_of_it_is_that_of_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = records(80)
    report = stored(tmp_path / "run", made)
    body = document(report)
    assert [error.message for error in STRICT.iter_errors(body)] == []
    with pytest.raises(jsonschema.ValidationError):
        STRICT.validate({**body, "cases_file": 1})
    collapsed = []
    for most in (20, 2000):
        monkeypatch.setattr(judged_report, "MOST_IN_FULL", most)
        reporting.write(report, tmp_path / str(most), PLACE)
        collapsed.append(PublishedRun.read(tmp_path / str(most)).document.groups[0].collapsed)
    assert collapsed == [8, 8]  # five of them are in the large document


def test_a_report_whose_file_of_cases_is_gone_says_so(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"cases_file": "cases.jsonl", "groups": []}))
    with pytest.raises(UsageError, match=r"cases\.jsonl: cannot be read.*Write the report again"):
        list(cases_file.each_case(tmp_path))
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(UsageError, match=r"is no report of cases"):
        list(cases_file.each_case(tmp_path))


def test_a_lean_record_that_is_none_is_refused_by_its_name(tmp_path: Path) -> None:
    report = stored(tmp_path, records(20))
    assert report.stored is not None
    store = Store(tmp_path / "store.sqlite")
    for text in ("{", "[]", '{"schema": 2}', '{"schema": 3}'):
        with store._writing():
            store._db.execute("UPDATE cases SET record = ?", (text,))
        with pytest.raises(StoreError, match=r"case pocket-neo-rome-hardcf-0000 cannot be read"):
            report.stored["pocket-neo-rome-hardcf-0000"]


def work(folder: Path, cases: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often records are read, and how often figures of edits are looked up, to write the report of a run."""
    done: Counter[str] = Counter()
    read, look = Store.text, _evidence.signal

    def counted_read(store: Store, key: str) -> str:
        done["read"] += 1
        return read(store, key)

    def counted_look(*about: Any) -> float | None:
        done["looked"] += 1
        return look(*about)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "text", counted_read)
        patched.setattr(_evidence, "signal", counted_look)
        reporting.write(stored(folder, records(cases)), folder / "out", PLACE)
    done["bytes"] = sum((folder / "out" / name).stat().st_size for name in ("report.json", "report.html", "report.md"))
    return done


@pytest.mark.usefixtures("few")
def test_work_grows_with_the_cases_and_what_people_read_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the cases are twice the reads and look-ups: collapsed times sound cases would be four times as many."""
    once, twice = work(tmp_path / "a", 100, monkeypatch), work(tmp_path / "b", 200, monkeypatch)
    assert (once["read"], twice["read"]) == (200, 400)  # to judge, and to write the file of cases
    assert twice["looked"] <= 2.1 * once["looked"]
    assert twice["bytes"] <= 1.1 * once["bytes"]


def test_the_whole_record_of_a_case_that_is_gone_is_an_error_and_no_crash(tmp_path: Path) -> None:
    report = stored(tmp_path, records(20))
    store = Store(tmp_path / "store.sqlite")
    with store._writing():
        store._db.execute("DELETE FROM cases")
    with pytest.raises(StoreError, match=r"is gone\. Run it again"):
        report.whole(report.groups[0].cases[0])
    with pytest.raises(StoreError, match=r"is gone\. Run it again"):
        list(cases_file.lines(replace(report)))
