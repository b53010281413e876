"""What is exported of a run: bound to the hash of the weights, harmless, and never better than the verdict."""

from __future__ import annotations

import json
import re
import shlex
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import typer
import yaml

from editsafety.cli.app import app
from editsafety.errors import UsageError
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.publishing.badge import badge
from editsafety.publishing.eval_results import Benchmark, eval_results
from editsafety.publishing.model_card import model_card
from editsafety.publishing.published import PublishedRun
from editsafety.reporting import ReportPlace, as_json
from tests import builders
from tests.builders import record, report
from tests.publishing.injections import TEXTS
from tests.reporting import hostile

SVG = "{http://www.w3.org/2000/svg}"
HUB = Benchmark("someone/edits", "a" * 40, "https://example.org/runs/1")


@pytest.fixture
def published(tmp_path):
    """published(report): as it is read from the folder of a run."""

    def read(made: RunReport, **more) -> PublishedRun:
        text = as_json.REPORT(made, ReportPlace())
        body = {**json.loads(text), **more}
        (tmp_path / "report.json").write_text(json.dumps(body), encoding="utf-8")
        return PublishedRun.read(tmp_path)

    return read


def healthy(**more) -> RunReport:
    return report([record("ft", "hard", i) for i in range(4)], **more)


VERDICTS = {
    Verdict.PASS: healthy(),
    Verdict.WARN: report([record("ft", "hard", 0, ratio=1.5)]),
    Verdict.COLLAPSE: builders.example(),
    Verdict.DAMAGED: report([record("ft", "hard", 0, local=0.0)]),
    Verdict.ERROR: report([builders.failed("ft", "hard", 0)]),
    Verdict.INCOMPLETE: healthy(interrupted=True),
}


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda one: one.value)
def test_a_badge_says_the_verdict_and_the_beginning_of_the_hash(published, verdict):
    root = ET.fromstring(badge(published(VERDICTS[verdict])))
    assert [text.text for text in root.iter(f"{SVG}text")] == ["editsafety", f"{verdict.value} ffffffffffff"]
    assert root.find(f"{SVG}title").text == f"editsafety 0.1.0: {verdict.value}, weights sha256 {'f' * 64}"
    assert root.get("aria-label") == root.find(f"{SVG}title").text
    colours = {
        Verdict.PASS: "#2e7d32",
        Verdict.WARN: "#8a6d00",
        Verdict.ERROR: "#6a1b9a",
        Verdict.INCOMPLETE: "#6a1b9a",
    }
    grey, colour = (rect.get("fill") for rect in root.iter(f"{SVG}rect"))
    assert (grey, colour) == ("#555", colours.get(verdict, "#b71c1c"))
    left, right = root.iter(f"{SVG}rect")
    assert int(left.get("width")) + int(right.get("width")) == int(root.get("width"))


def test_a_badge_loads_nothing_from_anywhere(published):
    text = badge(published(healthy()))
    assert not re.search(r"href|url\(|<script|<style|@import|<image", text)
    assert re.findall(r"https?://\S+?\"", text) == ['http://www.w3.org/2000/svg"']


def test_a_badge_of_an_edited_model_that_was_handed_over_is_bound_to_its_edit(published):
    found = published(healthy(), received={"name": "mine", "kind": "model", "edit_id": "e" * 64})
    assert f"PASS {'e' * 12}<" in badge(found)
    assert f"edit sha256 {'e' * 64} of weights sha256 {'f' * 64}" in badge(found)


def test_nothing_judged_is_no_green_badge(published):
    made = report([], lacking=[builders.case_of("rome", "hard", 0)])
    text = badge(published(made))
    assert "NOTHING JUDGED ffffffffffff" in text
    assert "#2e7d32" not in text


def test_a_card_has_what_was_tried_the_verdict_the_figures_the_limits_and_the_command(published):
    text = model_card(published(builders.example(), replay="pytest ..."))
    assert text.startswith("## Crash test of model editing\n\n**COLLAPSE** · COLLAPSE · rome COLLAPSE")
    assert "weights sha256 " + "f" * 64 in text
    assert "- rome (arXiv 2202.05262): {&#34;" not in text
    assert '- rome (arXiv 2202.05262): {"layers": &#91;3&#93;, "v_num_grad_steps": 20}' in text
    row = next(line for line in text.splitlines() if line.startswith("| rome |"))
    assert row == "| rome | COLLAPSE | 84 hard, 168 normal | 526x | 1.02x | 0.92 | 1.00 | 1.00 | 0.94 | 0.11 |"
    assert "| case.perplexity | me_ppl, ratio | at most 1.25 | at most 2.0 | COLLAPSE |" in text
    assert "- rome: hard: COLLAPSE in 18 of 84 cases" in text
    assert "- rome on 3 hard cases of pocket-neo: 3 COLLAPSE" in text
    assert "```sh\neditsafety run --model pocket-neo --editor rome --editor c_rome --editor ft\n```" in text
    assert "### What this does not say" in text


def test_the_command_of_a_card_has_every_setting_and_is_one_that_exists(published):
    found = published(healthy(limit=5, every=5, dtype="bfloat16", require_controls=True))
    words = shlex.split(found.command)
    assert words[:2] == ["editsafety", "run"]
    assert words[2:] == [
        *("--model", "pocket-neo", "--editor", "ft", "--limit", "5", "--dtype", "bfloat16"),
        *("--require-controls", "--every", "5"),
    ]
    known = {flag for option in typer.main.get_command(app).commands["run"].params for flag in option.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert published(healthy(), replay="editsafety sequence --model m").command == "editsafety sequence --model m"


def test_courses_are_in_the_card_with_the_edit_that_broke_the_model(published):
    from editsafety.judging.checks import judge_case
    from editsafety.judging.policy import Policy

    walked = judge_case(Policy.read("default"), builders.course(builders.step(10), builders.step(20, ratio=99.0)))
    text = model_card(published(replace(report([record("rome", "hard", 0)]), courses=(walked,))))
    assert "| pocket-neo-rome-hard-sequential" in text
    assert "| COLLAPSE | 30 | 20 |" in text
    assert "| course.kept | kept, after | at least 0.8 |" in text


def test_evaluation_results_are_what_the_hub_reads(published):
    text = eval_results(published(builders.example()), HUB)
    if not hasattr(huggingface_hub, "parse_eval_result_entries"):
        pytest.skip("this huggingface_hub is older than the layout")
    entries = huggingface_hub.parse_eval_result_entries(yaml.safe_load(text))
    values = {one.task_id: one.value for one in entries}
    assert set(values) == {
        f"{editor}-{task}"
        for editor in ("rome", "c_rome", "ft")
        for task in ("stands", "efficacy", "efficacy_prefixed", "generalisation", "locality")
    }
    assert values["rome-stands"] == pytest.approx(1 - 18 / 252, abs=1e-6)
    assert values["ft-locality"] == pytest.approx(0.96)
    assert {one.dataset_id for one in entries} == {"someone/edits"}
    assert {one.dataset_revision for one in entries} == {"a" * 40}
    assert {(one.source_url, one.source_name) for one in entries} == {
        ("https://example.org/runs/1", "editsafety 0.1.0")
    }
    assert entries[0].notes.startswith("rome: COLLAPSE over 84 hard, 168 normal cases; policy default ")
    assert f"weights sha256 {'f' * 64}" in entries[0].notes


@pytest.mark.parametrize("verdict", [Verdict.ERROR, Verdict.INCOMPLETE], ids=lambda one: one.value)
def test_results_of_a_run_that_cannot_be_relied_on_are_refused(published, verdict):
    with pytest.raises(UsageError, match=f"this run is {verdict.value}: no results of it are to be published"):
        eval_results(published(VERDICTS[verdict]), HUB)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dataset": "edits"}, "owner/name"),
        ({"dataset": "a/b\n- x"}, "owner/name"),
        ({"dataset": "a/b", "revision": "main"}, "40 hex digits"),
        ({"dataset": "a/b", "url": "javascript:alert(1)"}, "https://"),
    ],
)
def test_what_is_no_data_set_of_the_hub_is_refused(given, said):
    with pytest.raises(UsageError, match=said):
        Benchmark(**given)


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_text_does_nothing_in_a_badge_a_card_or_results(text, published):
    made = hostile.report(text)
    facts = replace(made.facts, models={"pocket-neo": replace(made.facts.models["pocket-neo"], fingerprint="f" * 64)})
    found = published(replace(made, facts=facts))
    assert len(list(ET.fromstring(badge(found)).iter())) == 7
    card = re.sub(r"^(`{3,})sh\n.*?^\1$", "", model_card(found), flags=re.DOTALL | re.MULTILINE)
    assert "<" not in card
    assert "`" not in card
    assert not re.search(r"\]\(|!\[|://|www\.|^# ", card, re.MULTILINE)
    assert all(line.isprintable() for line in card.splitlines())
    assert not any(line.strip().startswith(("::", "##[", "##vso")) for line in card.splitlines())
    sound = found.document.model_copy(update={"sound": True})
    results = yaml.safe_load(eval_results(replace(found, document=sound), HUB))
    assert all(set(one) == {"dataset", "value", "source", "notes"} for one in results)
    assert all(one["notes"].isprintable() for one in results)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "is no report: it is not JSON"),
        ("[]", "is no report of schema 2"),
        ('{"schema": 1}', "is no report of schema 2"),
        ('{"schema": 2}', "is no whole report: editsafety: field required"),
        ("[" * 100_000, "is no report"),
    ],
)
def test_another_file_is_refused_with_a_sentence(tmp_path: Path, body: str, said: str) -> None:
    (tmp_path / "report.json").write_text(body)
    with pytest.raises(UsageError, match=re.escape(said)):
        PublishedRun.read(tmp_path)


def test_a_folder_without_a_report_and_a_run_of_several_models_are_refused(tmp_path, published):
    with pytest.raises(UsageError, match=r"report\.json: cannot be read"):
        PublishedRun.read(tmp_path)
    both = report([record("ft", "hard", 0), record("ft", "hard", 1, model="other")])
    with pytest.raises(UsageError, match=r"is of 2 models \(.*\); what is exported is bound to the weights of one"):
        published(both)
    with pytest.raises(UsageError, match="of no model that was loaded"):
        published(report([]))
