"""The page: it says what report.json says, draws what was measured, loads nothing, and no text can change it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from editsafety import reporting
from editsafety.judging.checks import judge_case
from editsafety.judging.group import Group
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.reporting import ReportPlace, as_html, as_json, story
from tests import builders
from tests.reporting import hostile, whole

PLACE = ReportPlace("suites", Path("reports/a-run"), 41.2)
CLOSED_BY_THEMSELVES = {"meta", "path", "circle", "rect", "input"}
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


def page(report: RunReport) -> str:
    return reporting.load("html")(report, PLACE)


class Read(HTMLParser):
    """Every element in order with its attributes, and the text inside of those that are asked for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[list[str], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in CLOSED_BY_THEMSELVES:
            self.inside.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in CLOSED_BY_THEMSELVES:
            assert self.inside.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        names = [tag for tag, _ in self.inside]
        names += [f".{look}" for _, known in self.inside for look in (known.get("class") or "").split()]
        self.texts.append(([*names, *(f"#{known['id']}" for _, known in self.inside if "id" in known)], data))

    def text(self, of: str) -> str:
        """What stands inside of all elements of a `tag`, `.class` or `#id`."""
        return " ".join(" ".join(data for inside, data in self.texts if of in inside).split())

    def every(self, tag: str, look: str = "") -> list[dict[str, str | None]]:
        found = [known for name, known in self.elements if name == tag]
        return [known for known in found if not look or look in (known.get("class") or "").split()]


def embedded(text: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    body: dict[str, object] = json.loads(found[1])
    return body


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


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


def test_every_editor_stream_and_course_has_its_row_in_the_matrix() -> None:
    read = Read(page(whole.report()))
    rows = read.text(".matrix")
    for name in ("rome", "ft", "hard cases 6", "normal cases 8", "sequential, hard 30"):
        assert name in rows
    cells = {(k["data-stream"], k["data-check"]): k for k in read.every("a", "cell") if k["data-editor"] == "rome"}
    perplexity = cells["hard", "perplexity"]
    assert str(perplexity["title"]).startswith("COLLAPSE: 6 of 6 do not pass, the worst: perplexity 500x (51.2 before")
    assert "v-collapse" in str(perplexity["class"])
    assert str(cells["normal", "perplexity"]["title"]) == "PASS: all 8 pass"


def test_the_verdicts_of_the_matrix_are_those_of_the_document() -> None:
    made = builders.example()
    read, document = Read(page(made)), as_json.document(made)
    shown = re.findall(r"(?:✓|!|○|∅|◐|✕|↓|…|⚠) ([A-Z-]{4,})", read.text(".matrix"))
    for group in document["groups"]:
        wanted = [group["verdict"], *(row["verdict"] for row in group["figures"] if row["stream"] != "all")]
        assert shown[: len(wanted)] == wanted
        shown = shown[len(wanted) :]
    assert not shown


def test_every_single_edit_is_a_point_hard_ones_to_the_left_and_worse_ones_higher() -> None:
    read = Read(page(whole.report()))
    hard, normal, *others = [points(str(cloud["d"])) for cloud in read.every("path", "cloud")]
    assert [len(hard), len(normal), *map(len, others)] == [6, 8, 6, 8]
    assert max(x for x, _ in hard) < min(x for x, _ in normal)
    assert max(y for _, y in hard) < min(y for _, y in normal)  # y grows downwards
    assert [y for _, y in hard] == sorted(y for _, y in hard)  # 500x, 499x, ...
    assert [cloud["data-first"] for cloud in read.every("path", "cloud")] == ["0", "6", "14", "20"]


def test_a_decade_of_perplexity_is_as_high_everywhere() -> None:
    ratios = (1.0, 10.0, 100.0, 1000.0)
    read = Read(page(builders.report([builders.record("rome", "hard", i, ratio=r) for i, r in enumerate(ratios)])))
    (cloud,) = read.every("path", "cloud")
    heights = [a - b for (_, a), (_, b) in pairwise(points(str(cloud["d"])))]
    assert heights == pytest.approx([heights[0]] * 3, abs=0.11)
    assert heights[0] > 20


def test_what_has_no_figure_is_drawn_at_the_edge_and_said() -> None:
    records = [builders.record("rome", "hard", 0, ratio=math.inf), builders.record("rome", "hard", 1, ratio=1e300)]
    records += [builders.record("rome", "hard", 2), builders.failed("rome", "hard", 3)]
    read = Read(page(builders.report(records)))
    (cloud,) = read.every("path", "cloud")
    broken, huge, fine, lost = (y for _, y in points(str(cloud["d"])))
    assert broken == huge < fine < lost
    assert "at the bottom: 1 without a figure" in read.text("svg")
    assert "1,000,000x" in read.text("svg") or "1e6x" in read.text("svg")


def test_a_cross_marks_the_edit_that_broke_a_course() -> None:
    text = page(whole.report())
    read = Read(text)
    assert len(read.every("path", "cross")) == 1
    assert "edit 17 broke the model of rome" in read.text("svg")
    assert "edit 17 (hardcf-0016) broke the model: perplexity 1.03x before, 512x after, 498x alone" in read.text("main")
    assert "pytest suites/sequential -k pocket-neo-rome-hard-sequential " in read.text("code")


def test_abilities_are_drawn_with_wilsons_intervals() -> None:
    """Expected: 88 of 100 and 2 of 100, by the closed form of Wilson (1927) with z = 1.96."""

    def wilson(share: float, n: int) -> tuple[float, float]:
        z = 1.96
        half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        return centre - half, centre + half

    said = Read(page(whole.report())).text("svg")
    for share, value, when in ((0.90, "0.90", "before"), (0.02, "0.02", "after")):
        low, high = wilson(share, 100)
        assert f"reasoning {when}: {value} ({low:.2f} to {high:.2f}, 100 items)" in said


def test_the_worst_single_edit_of_an_editor_is_drawn_and_every_score_is_in_the_table() -> None:
    read = Read(page(whole.report()))
    assert "rome, hard: 1 edit" in read.text("figcaption")
    assert "rome, normal: 1 edit" not in read.text("figcaption")
    assert "pocket-neo-rome-normal-0000 1 0.90 → 0.90 0.96 → 0.95" in read.text("tbody")


def test_the_area_under_a_curve_of_warnings_is_the_one_that_is_said() -> None:
    read = Read(page(whole.report()))
    named = re.findall(r"(\|?\w+\|?) \((\d\.\d\d)\)", read.text(".keys"))
    curves = [points(str(known["d"])) for known in read.every("path", "line") if str(known["d"]).startswith("M46 188")]
    assert len(named) == len(curves) >= 2
    assert named[0] == ("|denominator|", "1.00")
    for (_, said), curve in zip(named, curves, strict=True):
        share = [((x - 46) / (348 - 46), (188 - y) / (188 - 24)) for x, y in curve]
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(share))
        assert float(said) == pytest.approx(area, abs=0.011)


def test_too_few_collapses_warn_of_nothing() -> None:
    made = builders.report([builders.record("rome", "hard", i, ratio=9.0 if i else 1.0) for i in range(9)])
    assert "What would have warned" not in page(made)


def test_costs_and_the_baseline_are_shown_where_there_are_any() -> None:
    with_baseline, without = Read(page(whole.compared())), Read(page(whole.report()))
    assert "REGRESSED in 1 way against accepted.json" in with_baseline.text("main")
    assert "rome: 2 cases PASS before, COLLAPSE now" in with_baseline.text("main")
    assert "Against the baseline" not in without.text("h2")
    assert "rome 0.11 1e-3 2e-3 0.30 3.1" in without.text("tbody")


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
