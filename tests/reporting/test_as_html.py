"""The page: it says what report.json says, draws what was measured, loads nothing, and no text can change it."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import replace

import pytest

from editsafety.judging.checks import judge_case
from editsafety.judging.group import Group
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.reporting import as_html, as_json, story
from tests import builders
from tests.reporting import hostile, whole
from tests.reporting.pages import Read, embedded, page

BREAKING_OUT = (
    *hostile.TEXTS,
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "</style><svg onload=alert(1)>",
    "</title></head><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x=\'',
    "{{ 7 * 7 }} {% include 'page.html' %} {# gone #}",
    "&lt;b&gt; &#60;i&#62;",
    "javascript:alert(1)//",
)


def test_the_verdict_the_cause_and_what_to_do_come_first() -> None:
    made = whole.report()
    top = page(made).partition("<nav")[0]
    read = Read(top.replace("<body>", "<p>"))
    assert read.text("h1").endswith("COLLAPSE")
    assert read.text("#summary").startswith("rome breaks pocket-neo in 6 of 6 hard cases (perplexity up to 500x): ")
    assert "the subject is one token in first place; keys from prefixed contexts" in read.text("#summary")
    assert read.text(".advice").startswith("Next: do not ship these edits")
    assert story.replay(made, "suites") == read.text("code")


def test_the_page_agrees_with_the_json_beside_it() -> None:
    for made in (whole.report(), whole.compared(), builders.example(), builders.report([])):
        text, document = page(made), as_json.document(made)
        read = Read(text)
        assert html.unescape(text[text.index("<title>") + 7 : text.index("</title>")]) == document["line"]
        assert read.text("h1").endswith(document["verdict"] or "NOTHING JUDGED")
        assert document["line"] in read.text("footer")


def test_the_first_sentence_is_one_for_each_verdict() -> None:
    record = builders.record
    said = {
        "nothing": story.summary(builders.report([])),
        "pass": story.summary(builders.report([record("ft", "hard", 0), record("ft", "hard", 1)])),
        "ineffective": story.summary(builders.report([record("ft", "hard", 0, takes=0.0)])),
        "error": story.summary(builders.report([builders.failed("mine", "hard", 0)])),
        "regressed": story.summary(whole.compared()),
    }
    assert said["nothing"] == "Nothing was judged, and that is no pass."
    assert said["pass"] == "ft: every check passes in 2 cases."
    assert said["ineffective"].startswith("The edits do not take: ft on pocket-neo: hard: efficacy 0.00 over 1 case")
    assert said["error"].startswith("The run itself cannot be relied on: mine on pocket-neo: hard: ")
    assert "mine failed: ValueError: no such layer" in said["error"]
    assert said["regressed"].startswith("Worse than the baseline that was accepted: rome: 2 cases PASS before")
    assert "the subject is one token in first place" in said["regressed"]


def test_courses_alone_say_where_they_broke_and_likely_why() -> None:
    made = whole.report()
    alone = replace(made, groups=())
    assert story.summary(alone).startswith("rome breaks pocket-neo by hard sequential edits, after 17 edits of 30 ")
    assert "breaks the unedited model as well (498x)" in story.summary(alone)
    assert Read(page(alone)).text("h1").endswith("COLLAPSE")


def test_the_page_needs_nothing_from_elsewhere_and_allows_itself_nothing_else() -> None:
    text = page(whole.compared())
    read = Read(text)
    for _, known in read.elements:
        assert not known.keys() & {"src", "srcset", "action", "style"}
        assert not [name for name in known if name.startswith("on")]
        assert (known.get("href") or "#").startswith("#")
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = [
        known["content"] for known in read.every("meta") if known.get("http-equiv") == "Content-Security-Policy"
    ]
    parts = re.search(r"<style>(.*?)</style>", text, re.DOTALL), re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    for part in parts:
        assert part
        digest = base64.b64encode(hashlib.sha256(part[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none'")
    assert "unsafe" not in str(policy)


@pytest.mark.parametrize("text", BREAKING_OUT)
def test_no_text_of_a_run_becomes_a_part_of_the_page(text: str) -> None:
    """The elements and their attributes are those of a page about harmless texts, one by one."""
    shown = page(hostile.report(text))
    written = shown.encode("utf-8", "backslashreplace").decode()
    harmless, read = Read(page(hostile.report("harmless"))), Read(written)
    shape = [(tag, sorted(known)) for tag, known in read.elements]
    assert shape == [(tag, sorted(known)) for tag, known in harmless.elements]
    assert not read.inside
    found = re.search(r'id="data">(.*?)</script>', written, re.DOTALL)
    assert found
    assert not re.search("[<>&]", found[1])
    assert len(embedded(written)["cases"]) == 3  # type: ignore[arg-type]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", shown)
    assert "49" not in read.text("#summary")  # of 7 * 7


def test_a_prompt_is_shown_as_it_is() -> None:
    asked = builders.request("hard", 0, prompt='<b>{}</b> & "co" works as a', subject="Ash{{urn}}")
    read = Read(page(builders.report([builders.record("rome", "hard", 0, ratio=9.0, request=asked)])))
    assert '“<b>Ash{{urn}}</b> & "co" works as a” → farmer' in read.text(".sample")


def test_a_failing_case_shows_what_the_model_said_why_it_fell_and_how_to_see_it_again() -> None:
    made = whole.report()
    read = Read(page(made))
    told = read.text(".sample")
    assert "the the the the farmer the the" in told
    assert "the baker the the" in told
    assert "Likely cause: denominator 0.002 where edits that stay have 2 to 9" in told
    assert "pytest suites/collapse -k pocket-neo-rome-hardcf-0000 --editsafety-model pocket-neo" in told
    body = embedded(page(made))
    fields, pool = body["fields"], body["pool"]
    rows = [dict(zip(fields, row, strict=True)) for row in body["cases"]]  # type: ignore[call-overload]
    assert [row["case"] for row in rows] == [case["case"] for case in _in_order(made)]
    for row, case in zip(rows, _in_order(made), strict=True):
        assert body["verdicts"][row["verdict"]] == case["verdict"]  # type: ignore[index]
        assert row["ratio"] == pytest.approx(case["ratio"], abs=1e-4)
        assert [said for _, said in row["reasons"]] == [
            check["sentence"] for check in sorted(_bad(case), key=lambda one: -_severity(body, one))
        ]
        likely = case["causes"][0] if case["causes"] else {}
        assert row["cause"] == (f"{likely['sentence']}; {likely['advice']}" if likely else "")
        assert (
            row["case"]
            .join(pool[part] for part in row["replay"])
            .startswith(  # type: ignore[index]
                f"pytest suites/collapse -k {case['case']} --editsafety-model pocket-neo"
            )
        )


def _in_order(made: RunReport) -> list[dict[str, object]]:
    groups = as_json.document(made)["groups"]
    streams = [(group, stream) for group in groups for stream in group["planned"]]
    cases = [sorted((c for c in g["cases"] if c["stream"] == s), key=lambda c: c["case"]) for g, s in streams]
    return [case for some in cases for case in some]


def _bad(case: dict[str, object]) -> list[dict[str, str]]:
    return [check for check in case["checks"] if check["verdict"] != "PASS"]  # type: ignore[attr-defined]


def _severity(body: dict[str, object], check: dict[str, str]) -> int:
    return body["verdicts"].index(check["verdict"])  # type: ignore[attr-defined,no-any-return]


def test_a_case_that_passes_alone_is_not_praised_where_its_stream_fails() -> None:
    told = Read(page(whole.report())).text(".sample")
    assert "INEFFECTIVE ft, hard perplexity stays, but the edits do not take" in told
    assert "PASS ft, normal one of 8 that pass" in told


def test_nowhere_do_all_pass_where_the_run_does_not() -> None:
    """Every case keeps its perplexity, and no edit takes: a bar of nothing but PASS would praise that."""
    failing = builders.report([builders.record("ft", "normal", number, takes=0.0) for number in range(6)])
    assert (failing.verdict, {case.verdict for case in failing.groups[0].cases}) == (
        Verdict.INEFFECTIVE,
        {Verdict.PASS},
    )
    assert 'class="outcomes"' not in page(failing)
    assert 'class="outcomes"' in page(whole.report())


def test_plug_ins_versions_and_hyperparameters_are_said() -> None:
    facts = Read(page(whole.report())).text(".facts")
    for said in ("torch 2.13.0", "plug-in measures: sureness their-package 2.0", "layers 1", "sha256", "f" * 64):
        assert said in " ".join(facts.split())


def test_nothing_judged_and_a_run_without_controls_are_said_first() -> None:
    empty = Read(page(builders.report([])))
    assert empty.text("#summary") == "Nothing was judged, and that is no pass."
    alone = Read(page(builders.report([builders.record("ft", "hard", 0)])))
    assert "No control was run, so this run did not prove" in alone.text("main")


def test_a_control_that_misbehaves_takes_the_trust_away() -> None:
    made = builders.report([builders.record("ft", "hard", 0)], controls=[builders.record("rome", "hard", 0)])
    assert "Controls: 0 of 1 came out as they must: no other verdict can be trusted." in Read(page(made)).text("main")


def test_a_model_handed_over_has_its_own_command() -> None:
    made = replace(builders.example(), command="editsafety check here")
    assert Read(page(made)).text(".top").endswith("editsafety check here copy")


def test_a_course_has_the_command_that_its_run_gives_for_it_and_no_other() -> None:
    made = whole.report()
    name = made.courses[0].record.case
    made = replace(made, groups=(), command="editsafety sequence worst", commands={name: "editsafety sequence worst"})
    shown = Read(page(made)).text("code")
    assert shown == "editsafety sequence worst editsafety sequence worst"  # on top, and beside the course


def test_what_no_plan_laid_out_is_shown_as_well() -> None:
    """A model that was handed over has a case without a request, a guard one with several; no suite has either."""
    guarded = builders.record("rome", "hard", 0, ratio=9.0)
    other = builders.request("hard", 1, subject="Mirel")
    several = replace(guarded, case="guarded-1", stream="guarded", requests=(*guarded.requests, other))
    handed = replace(guarded, case="handed", stream="model", requests=())
    cases = tuple(judge_case(Policy.read("default"), one) for one in (several, handed))
    group = Group("pocket-neo", "rome", cases, {}, (), {"guarded": 1})
    made = RunReport.alone(Policy.read("default"), group, builders.FACTS.models["pocket-neo"], builders.FACTS)
    text = page(made)
    read, body = Read(text), embedded(text)
    assert [row[0] for row in body["cases"]] == ["guarded-1", "handed"]  # type: ignore[attr-defined]
    assert "“Ashurn works as a; Mirel works as a” → farmer; farmer" in read.text(".sample")
    assert [cloud["data-first"] for cloud in read.every("path", "cloud")] == ["0", "1"]
    assert read.text("code") == ""


def test_words_can_be_read_on_their_colours_in_light_and_in_dark() -> None:
    """At least 4.5 to 1, as WCAG 2.1 (1.4.3) asks for text; relative luminance as defined there."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    style = (as_html.PARTS / "page.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    for colours in (light, dark):
        pairs = [(name, f"{name}-bg") for name in colours if f"{name}-bg" in colours]
        assert len(pairs) == 8
        pairs += [(ink, paper) for ink in ("ink", "soft", "accent", "error", "collapse") for paper in ("bg", "card")]
        for ink, paper in pairs:
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
        for name in (f"s{i}" for i in range(7)):
            assert contrast(colours[name], colours["card"]) >= 3.0, name  # of graphics (1.4.11)


def test_equal_reports_give_equal_pages() -> None:
    assert page(whole.report()) == page(whole.report())


def test_the_page_of_an_ordinary_run_is_small() -> None:
    assert len(page(builders.example()).encode()) < 350_000
    assert len(html.unescape(page(builders.report([])))) < 60_000
