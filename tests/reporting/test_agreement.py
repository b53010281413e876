"""Whatever came of a run, everything that tells of it tells the same: looked for in generated runs.

Line, table in the terminal, JSON, Markdown, HTML, JUnit, the comment for a pull request, GitHub's step summary and its
annotations, and the exit code. Each is read from what is written for its reader, and not from the report behind it.
"""

from __future__ import annotations

import html
import io
import json
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _pytest.junitxml import LogXML
from hypothesis import given, settings
from rich.console import Console

from editsafety import reporting
from editsafety.hyperparameters.carried import CarriedFrom
from editsafety.judging.baselines.comparison import Comparison
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.plugin.verdicts import as_tests
from editsafety.publishing import comment, github
from editsafety.reporting import ReportPlace, as_terminal
from tests import builders
from tests.reporting import whole
from tests.reporting.generated import runs
from tests.reporting.pages import Read, embedded
from tests.reporting.test_schema import VERDICTS

WORDS = [verdict.value for verdict in Verdict]
CODES = {
    "PASS": 0, "WARN": 0, "COLLAPSE": 10, "INEFFECTIVE": 11, "DAMAGED": 11, "NO-OP": 11, "REGRESSED": 12, "ERROR": 13,
    "INCOMPLETE": 13, None: 14,
}  # fmt: skip
FORMATS = {
    name: reporting.load(name) for name in ("json", "markdown", "html", "terminal")
}  # found once: that takes its time


MADE = {one.value if one else "nothing judged": made for one, made in VERDICTS.items()}
REFUSED = Comparison("base.json", (), refused=("rome on pocket-neo: dtype float32 in the baseline, bfloat16 now",))
MADE |= {"of every part": whole.report(), "compared": whole.compared(), "refused": whole.report(against=REFUSED)}


@pytest.mark.parametrize("name", MADE)
def test_everything_that_tells_of_a_run_tells_the_same(name: str) -> None:
    agrees(MADE[name])


def test_everything_that_tells_of_a_generated_run_tells_the_same() -> None:
    seen = set()

    @settings(max_examples=settings.default.max_examples // 3)
    @given(made=runs())
    def whatever_it_came_to(made: RunReport) -> None:
        seen.add(made.verdict)
        agrees(made)

    whatever_it_came_to()
    assert len(seen) > 4, "the runs are too much alike"


def agrees(made: RunReport) -> None:
    """Everything that is written of a report says the same, and nothing that its parts do not allow."""
    told = json.loads(FORMATS["json"](made, ReportPlace()))
    verdict, line = told["verdict"], told["line"]

    stopped = told["interrupted"] and told["exit_code"] == 2
    assert told["exit_code"] == (2 if stopped else CODES[verdict])
    assert line.startswith(f"{verdict or 'NOTHING JUDGED'} · ")
    assert line.endswith(f" · exit code {told['exit_code']}")

    agrees_with_terminal(told, made)
    agrees_with_markdown(told, FORMATS["markdown"](made, ReportPlace()))
    agrees_with_page(told, FORMATS["html"](made, ReportPlace()))
    agrees_with_junit(told, made)
    agrees_with_comment(told, comment.comment(made))
    agrees_with_summary(told, github.summary(made))
    agrees_with_annotations(told, list(github.commands(made)))
    is_consistent(told)


def standing(told: dict[str, Any]) -> Counter[tuple[str, str, str]]:
    """Editor, model and verdict of every group."""
    return Counter((group["editor"], group["model"], group["verdict"]) for group in told["groups"])


def agrees_with_terminal(told: dict[str, Any], made: RunReport) -> None:
    for width in (80, 120):
        out = io.StringIO()
        as_terminal.render(made, Console(file=out, width=width, highlight=False, color_system=None))
        text = out.getvalue()
        assert " ".join(text[text.rindex("\nverdict ") :].split()) == f"verdict {told['line']}"
        names_what_regressed(told, " ".join(text.split()), most=1)
        assert Counter(rows_of(text, "editor ")) == Counter(verdict for *_, verdict in standing(told).elements())
        assert Counter(rows_of(text, "courses ", indented=True)) == Counter(
            course["verdict"] for course in told["courses"]
        )


def rows_of(text: str, head: str, *, indented: bool = False) -> list[str]:
    """The verdicts of the rows of a table in the terminal: of its main rows, or of those below a title."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith(head)), None)
    if start is None:
        return []
    rows = lines[start + 1 : lines.index("", start)]
    found = [[word for word in row.split() if word in WORDS] for row in rows if row.startswith(" ") == indented]
    return [words[0] for words in found if words]


def agrees_with_markdown(told: dict[str, Any], text: str) -> None:
    assert text.startswith(f"# {told['line']}\n")
    has_the_tables(told, text)
    names_what_regressed(told, html.unescape(text))


def names_what_regressed(told: dict[str, Any], text: str, most: int | None = None) -> None:
    """What stops a gate, in its own words: all of it, or as much as there is room for."""
    stops = [one for one in (told["baseline"] or {"differences": ()})["differences"] if one["blocks"]]
    for one in stops[:most]:
        assert f"{one['change']}: {one['editor']}: {one['sentence'][:60]}" in text


def has_the_tables(told: dict[str, Any], text: str, *, courses: bool = True) -> None:
    """The table of editors in some Markdown, and that of courses."""
    of_editors = [cells for cells in table(text, "| editor |") if not cells[0].startswith("&nbsp;")]
    assert Counter(bold(cells) for cells in of_editors) == Counter(one["verdict"] for one in told["groups"])
    if courses:
        walked = table(text, "| course | verdict |")
        assert Counter(bold(cells) for cells in walked) == Counter(one["verdict"] for one in told["courses"])


def table(text: str, head: str) -> list[list[str]]:
    """The rows below a heading of a table in Markdown."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith(head)), None)
    if start is None:
        return []
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def bold(cells: list[str]) -> str:
    (found,) = [cell[2:-2] for cell in cells if cell[2:-2] in WORDS]
    return found


def agrees_with_page(told: dict[str, Any], text: str) -> None:
    page = Read(text)
    title = next(data for inside, data in page.texts if inside[-1:] == ["title"])  # later ones are of charts
    assert title == told["line"]
    assert page.text("h1").split(" ", 1)[1] == (told["verdict"] or "NOTHING JUDGED")
    (top,) = page.every("header")
    assert f"v-{(told['verdict'] or 'nothing judged').lower().replace(' ', '-')}" in str(top["class"])
    heads = re.findall(r'<tr class="head"><th[^>]*>(.*?)</th><td>.*?</span> ([A-Z-]+)</span>', text)
    found: dict[tuple[str, str], Verdict] = {}
    for one in [*told["groups"], *told["courses"]]:
        block = one["editor"], one["model"]
        found[block] = Verdict.worst([found.get(block, Verdict.PASS), Verdict(one["verdict"])])
    assert Counter(verdict for _, verdict in heads) == Counter(verdict.value for verdict in found.values())
    data: Any = embedded(text)
    cases = {row[0]: data["verdicts"][row[4]] for row in data["cases"]}
    assert cases == {case["case"]: case["verdict"] for group in told["groups"] for case in group["cases"]}
    names_what_regressed(told, page.text("li"))


def agrees_with_junit(told: dict[str, Any], made: RunReport) -> None:
    """The file that pytest's own writer makes of the parts of the verdict."""
    with tempfile.TemporaryDirectory() as folder:
        log = LogXML(str(Path(folder) / "junit.xml"), None)
        log.pytest_sessionstart()
        for one in as_tests(made):
            log.pytest_runtest_logreport(one)
        log.pytest_sessionfinish()
        cases = list(ET.parse(Path(folder) / "junit.xml").iter("testcase"))
    found = {case.get("name"): {one.get("name"): one.get("value") for one in case.iter("property")} for case in cases}
    verdicts = [properties["editsafety.verdict"] for properties in found.values()]
    if told["verdict"] is None:
        assert cases == []
        return
    assert told["verdict"] == max(map(Verdict, filter(None, verdicts)), key=lambda one: one.severity).value
    assert found["run"]["editsafety.exit_code"] == str(told["exit_code"])
    for case, verdict in zip(cases, verdicts, strict=True):
        failure = case.find("failure")
        assert (failure is not None) == Verdict(verdict).fails
        assert failure is None or str(failure.text).startswith(f"{verdict} {case.get('name')}: ")


def agrees_with_comment(told: dict[str, Any], text: str) -> None:
    marker, _, rest = text.partition("\n\n")
    assert marker.startswith("<!-- editsafety-report ")
    kind = {"PASS": "NOTE", "WARN": "WARNING"}.get(told["verdict"], "CAUTION")
    assert rest.startswith(f"> [!{kind}]\n> **{told['line']}**\n")
    has_the_tables(told, text)
    names_what_regressed(told, html.unescape(text))


def agrees_with_summary(told: dict[str, Any], text: str) -> None:
    assert text.startswith(f"### {told['line']}\n")
    has_the_tables(told, text, courses=False)
    names_what_regressed(told, html.unescape(text))


def agrees_with_annotations(told: dict[str, Any], commands: list[str]) -> None:
    found = [re.fullmatch(r"::(error|warning) title=editsafety%3A ([^:]+)::.*", one) for one in commands]
    titled = [(one[1], one[2]) for one in found if one is not None]
    if told["verdict"] == "PASS":
        assert commands == []
    else:
        kind, title = titled[0]
        assert title.startswith(told["verdict"] or "NOTHING JUDGED")
        assert kind == ("warning" if told["verdict"] == "WARN" else "error")


def is_consistent(told: dict[str, Any]) -> None:
    """What the document says of its parts allows what it says of the whole."""
    cases = [case for group in told["groups"] for case in group["cases"]]
    parts = [Verdict(one["verdict"]) for one in [*told["groups"], *told["courses"]]]
    assert told["counts"]["judged"] == len(cases)
    if told["verdict"] is None:
        assert not cases
        assert not told["courses"]
    else:
        assert all(Verdict(told["verdict"]).severity >= part.severity for part in parts)
    against = told["baseline"] or {"refused": (), "incomparable": (), "regressed": False}
    assert told["verdict"] == "ERROR" or not (against["refused"] or against["incomparable"])
    assert told["verdict"] in ("REGRESSED", "INCOMPLETE", "ERROR") or not against["regressed"]
    if told["exit_code"] == 0:
        assert told["counts"]["missing"] == 0
        assert not told["interrupted"]
        assert all(control["behaved"] for control in told["controls"])
        assert not any(Verdict(case["verdict"]).fails for case in [*cases, *told["courses"]])
        assert not any(Verdict(check["verdict"]).fails for group in told["groups"]
                       for checks in group["checks"].values() for check in checks)  # fmt: skip


def test_reports_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from editsafety.reporting import as_json, as_markdown, as_terminal, junit\n"
        "from editsafety.judging import report\n"
        "from editsafety.runs import store\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_whose_numbers_they_are_is_said_with_the_verdict_in_every_format() -> None:
    origin = CarriedFrom("gpt2-xl", "rome/gpt2-xl.yaml", (48, 4), {"layers": ([17], [1])})
    said = (
        "numbers of rome, c_rome on pocket-neo: those of gpt2-xl (rome/gpt2-xl.yaml), layers [17] of 48 as [1] "
        "of 4; nobody has measured whether they suit it"
    )
    made = builders.example()
    editors = {
        (model, name): replace(facts, editor=name, carried_from=origin)
        for (model, _), facts in made.facts.editors.items()
        for name in ("rome", "c_rome")
    }
    carried = replace(made, facts=replace(made.facts, editors=editors))
    for name in FORMATS:
        own, theirs = (said_by(name, one) for one in (made, carried))
        assert "numbers carried over" not in own
        assert "COLLAPSE · rome COLLAPSE" in theirs
        assert " · numbers carried over · exit code 10" in theirs
        assert said[1:] in theirs
    document = json.loads(FORMATS["json"](carried, ReportPlace()))
    assert document["footnotes"] == [said]
    assert document["editors"]["pocket-neo:rome"]["carried_from"] == {
        "model": "gpt2-xl",
        "file": "rome/gpt2-xl.yaml",
        "layers": [48, 4],
        "moved": {"layers": [[17], [1]]},
    }


def said_by(name: str, report: RunReport) -> str:
    """A report as a person reads it: no entities, one space between words."""
    return " ".join(html.unescape(FORMATS[name](report, ReportPlace())).split())
