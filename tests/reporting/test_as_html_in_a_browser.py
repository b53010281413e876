"""The page in a real browser: nothing is logged, nothing overflows, and tables can be filtered, sorted and opened."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from editsafety import reporting
from editsafety.judging.report import RunReport
from editsafety.reporting import ReportPlace
from tests import builders
from tests.reporting import hostile, whole

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra dev has it)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: nothing could show the page")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDTHS = (390, 1280)
BREAKING_OUT = ("</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>')
LONG = "an_editor_with_a_name_that_is_longer_than_any_column_of_any_table_will_ever_be_wide"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(QUIET))
        yield opened
        opened.close()


class Opened:
    """A page of a report, with everything that the browser said or asked for while it was shown."""

    def __init__(self, browser: Any, folder: Path, report: RunReport, **options: Any) -> None:
        self.path = folder / "report.html"
        text = reporting.load("html")(report, ReportPlace("suites", folder, 3.0))
        self.path.write_bytes(text.encode("utf-8", "backslashreplace"))
        width = options.pop("width", 1280)
        self.page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        begun = time.perf_counter()
        self.page.goto(self.path.as_uri())
        self.seconds = time.perf_counter() - begun

    def rows(self) -> list[list[str]]:
        """The cells of the table of cases, without what is folded out."""
        rows = self.page.locator("#cases tbody tr:not(.more)").all()
        return [[" ".join(cell.split()) for cell in row.locator("td").all_inner_texts()] for row in rows]

    def column(self, name: str) -> list[str]:
        heads = self.page.locator("#cases thead th").all_inner_texts()
        place = next(i for i, head in enumerate(heads) if head.split()[0] == name)
        return [row[place] for row in self.rows()]

    def overflow(self) -> list[str]:
        """What reaches past the right edge, except inside of something that scrolls by itself."""
        found: list[str] = self.page.evaluate(
            """() => [...document.querySelectorAll("body *")].filter((one) =>
                 one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".scroll, nav, code")
               ).map((one) => `${one.tagName}.${one.getAttribute("class")}`)"""
        )
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return [*found, *([f"the page, by {wide} px"] if wide > 0 else [])]


def named(name: str) -> RunReport:
    """Editors, answers and messages without a place to break a line at."""
    records = [builders.record(name, "hard", i, ratio=9.0, answer="the" * 200) for i in range(2)]
    return builders.report([*records, builders.failed(name, "normal", 0, message="x" * 400)])


@pytest.mark.parametrize("made", [whole.compared, builders.example, lambda: named(LONG)], ids=["all", "plain", "long"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_logged_nothing_is_asked_for_and_nothing_overflows(
    browser: Any, tmp_path: Path, made: Any, width: int
) -> None:
    shown = Opened(browser, tmp_path, made(), width=width)
    assert shown.said == []
    assert shown.asked == [shown.path.as_uri()]
    assert shown.overflow() == []
    shown.page.locator("#cases .open").first.click()
    assert shown.overflow() == []


@pytest.mark.parametrize(
    "text", [*hostile.TEXTS, "</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>']
)
def test_no_text_of_a_run_is_run(browser: Any, tmp_path: Path, text: str) -> None:
    shown = Opened(browser, tmp_path, hostile.report(text), width=390)
    for case in shown.page.locator("#cases .open").all():
        case.click()
    assert shown.said == []
    assert shown.asked == [shown.path.as_uri()]
    assert shown.page.locator("img, iframe, object, embed, script:not([id]) ~ script").count() == 0
    assert shown.overflow() == []


def test_cases_can_be_filtered_by_word_verdict_editor_stream_and_check(browser: Any, tmp_path: Path) -> None:
    shown = Opened(browser, tmp_path, whole.report())
    assert len(shown.rows()) == 28
    shown.page.get_by_label("verdict").select_option("COLLAPSE")
    assert shown.page.locator("#found").inner_text() == "6 of 28 cases"
    assert set(shown.column("editor")) == {"rome"}
    shown.page.get_by_role("button", name="clear").click()
    shown.page.get_by_label("editor", exact=True).select_option("ft")
    shown.page.get_by_label("stream").select_option("normal")
    assert len(shown.rows()) == 8
    shown.page.get_by_role("button", name="clear").click()
    shown.page.get_by_label("text").fill("DENOMINATOR is not in any text")
    assert shown.rows() == []
    shown.page.get_by_label("text").fill("THE THE the farmer")
    assert len(shown.rows()) == 6
    shown.page.get_by_label("text").fill("")
    shown.page.get_by_label("fails check").select_option("perplexity")
    assert len(shown.rows()) == 6


def test_cases_are_the_worst_first_and_are_sorted_by_a_click(browser: Any, tmp_path: Path) -> None:
    shown = Opened(browser, tmp_path, whole.report())
    assert shown.column("perplexity")[:6] == ["500x", "499x", "498x", "497x", "496x", "495x"]
    head = shown.page.locator("#cases thead th", has_text="perplexity")
    head.get_by_role("button").click()
    figures = [float(text.rstrip("x")) for text in shown.column("perplexity")]
    assert figures == sorted(figures)
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert [float(text.rstrip("x")) for text in shown.column("perplexity")] == sorted(figures, reverse=True)


def test_what_has_no_figure_is_last_in_both_directions(browser: Any, tmp_path: Path) -> None:
    records = [builders.record("rome", "hard", i, ratio=ratio) for i, ratio in enumerate((1.0, float("inf"), 20.0))]
    shown = Opened(browser, tmp_path, builders.report([*records, builders.failed("rome", "hard", 3)]))
    button = shown.page.locator("#cases thead th", has_text="perplexity").get_by_role("button")
    button.click()
    assert shown.column("perplexity") == ["1.00x", "20x", "not finite", "–"]
    button.click()
    assert shown.column("perplexity") == ["not finite", "20x", "1.00x", "–"]


def test_other_tables_are_sorted_too(browser: Any, tmp_path: Path) -> None:
    shown = Opened(browser, tmp_path, whole.report())
    table = shown.page.get_by_role("region", name="courses")
    table.get_by_role("button", name="breaks by").click()
    assert table.locator("tbody th").all_inner_texts() == [
        "pocket-neo-rome-hard-sequential",
        "pocket-neo-ft-hard-sequential",
    ]
    table.get_by_role("button", name="worst").click()
    assert table.locator("tbody th").all_inner_texts() == [
        "pocket-neo-ft-hard-sequential",
        "pocket-neo-rome-hard-sequential",
    ]


def test_a_case_opens_and_shows_before_and_after_the_cause_and_the_command(browser: Any, tmp_path: Path) -> None:
    shown = Opened(browser, tmp_path, whole.report())
    case = shown.page.locator("#cases .open").first
    case.click()
    assert case.get_attribute("aria-expanded") == "true"
    more = " ".join(shown.page.locator("#cases .more").inner_text().split())
    assert "the the the the farmer the the" in more
    assert "Likely cause: denominator 0.002 where edits that stay have" in more
    assert "pytest suites/collapse -k pocket-neo-rome-hardcf-0000 --editsafety-model pocket-neo" in more
    case.click()
    assert shown.page.locator("#cases .more").count() == 0


def test_a_cell_of_the_matrix_shows_its_cases(browser: Any, tmp_path: Path) -> None:
    shown = Opened(browser, tmp_path, whole.report())
    shown.page.locator('a.cell[data-editor="rome"][data-stream="hard"][data-check="perplexity"]').click()
    assert shown.page.locator("#found").inner_text() == "6 of 28 cases"
    assert set(shown.column("verdict")) == {"✕ COLLAPSE"}


def test_a_point_of_a_chart_opens_its_case(browser: Any, tmp_path: Path) -> None:
    shown = Opened(browser, tmp_path, whole.report())
    chart = shown.page.locator(".charts svg:has(.cloud)").first
    box, x, y = (
        chart.bounding_box(),
        *chart.evaluate(
            "svg => /M([\\d.]+) ([\\d.]+)/.exec(svg.querySelector('.cloud').getAttribute('d')).slice(1).map(Number)"
        ),
    )
    place = {"x": x * box["width"] / 360, "y": y * box["width"] / 360}
    chart.hover(position=place)
    assert shown.page.locator("#point").inner_text().startswith("pocket-neo-rome-hardcf-0000: 500x, COLLAPSE")
    chart.click(position=place)
    assert shown.page.locator("#found").inner_text() == "1 of 28 cases"
    assert shown.page.locator("#cases .more").count() == 1


def test_everything_can_be_reached_and_done_by_keyboard(browser: Any, tmp_path: Path) -> None:
    shown = Opened(browser, tmp_path, whole.report())
    shown.page.keyboard.press("Tab")
    assert shown.page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(400):
        shown.page.keyboard.press("Tab")
        seen.add(shown.page.evaluate("document.activeElement.className || document.activeElement.tagName"))
        if "open" in seen:
            break
    assert {"copy", "cell v-collapse", "INPUT", "SELECT", "open"} <= seen
    shown.page.keyboard.press("Enter")
    assert shown.page.locator("#cases .more").count() == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_light_and_dark_are_what_the_reader_asked_for(browser: Any, tmp_path: Path, width: int) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = Opened(browser, tmp_path, whole.report(), width=width, color_scheme="light").page.evaluate(paper)
    dark = Opened(browser, tmp_path, whole.report(), width=width, color_scheme="dark").page.evaluate(paper)
    assert [sum(map(int, colour[4:-1].split(","))) > 384 for colour in (light, dark)] == [True, False]


def test_without_scripts_everything_but_the_table_of_cases_is_there(browser: Any, tmp_path: Path) -> None:
    shown = Opened(browser, tmp_path, whole.report(), java_script_enabled=False)
    text = shown.page.locator("main").inner_text()
    assert shown.page.locator("#summary").inner_text().startswith("rome breaks pocket-neo in 6 of 6 hard cases")
    assert "This table needs the script of the page; report.json beside it holds the same." in text
    assert shown.page.locator(".cloud").count() == 4


@pytest.mark.slow
def test_five_thousand_cases_open_in_less_than_three_seconds(browser: Any, tmp_path: Path) -> None:
    dice = random.Random(1)
    records = [
        builders.record(editor, stream, i, ratio=10 ** (2 + dice.random()) if i % 10 == 0 else 1 + dice.random() / 5)
        for editor in ("rome", "c_rome", "ft", "memit", "mend")
        for stream in ("hard", "normal")
        for i in range(500)
    ]
    shown = Opened(browser, tmp_path, builders.report(records))
    assert "2500 of 5000 cases are shown" in shown.page.locator("body").inner_text()  # 50 that fail, 200 that do not
    assert shown.page.locator("#found").inner_text() == "2500 cases"
    assert shown.seconds < 3
    assert len(shown.rows()) == 50
    begun = time.perf_counter()
    shown.page.get_by_role("button", name="further").click()
    shown.page.get_by_label("text").fill("hardcf-0010")
    assert shown.page.locator("#found").inner_text() == "5 of 2500 cases"
    assert time.perf_counter() - begun < 3
    assert shown.page.evaluate("[...document.querySelectorAll('.cloud')].length") == 10
    assert shown.said == []
