"""The charts and the matrix of the HTML page show the figures of the report."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from editsafety.reporting import as_json, courses
from editsafety.reporting.as_html import _walks
from editsafety.runs.measurement import Measurement
from tests import builders
from tests.reporting import whole
from tests.reporting.pages import Read, page, points


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


def test_a_score_that_is_no_share_of_right_answers_has_the_interval_of_its_standard_error() -> None:
    """Expected by hand: items 0.2, 0.4, 0.6 have mean 0.4 and standard error 0.2 / sqrt(3)."""
    found = Measurement.mean_of("summarization", 1, "rate", [0.2, 0.4, 0.6])
    half = 1.96 * 0.2 / math.sqrt(3)
    assert _walks.interval(found) == pytest.approx((0.4 - half, 0.4 + half))


def test_abilities_that_cannot_be_measured_any_more_have_no_score_and_are_the_lowest() -> None:
    fine, lost = builders.step(10, nli=96), builders.step(20)
    gone = Measurement.missing("nli", 1, "rate", "the model gives no finite numbers", broken=True, n=100)
    broken = builders.course(
        fine, replace(lost, found={**lost.found, "nli": gone}), abilities=[builders.probe("nli", 95)], ended="collapsed"
    )
    assert courses.lowest_step(broken) is broken.steps[1]
    (chart,) = _walks.losses(builders.report([broken]))
    assert chart.said.endswith("mean score 0.95 before, - after")
    assert [mark.said for mark in chart.marks] == ["nli before: 0.95 (0.89 to 0.98, 100 items)"]


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
