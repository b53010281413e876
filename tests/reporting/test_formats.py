"""Formats are a family, and the columns of a table are those of the measures that were run."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from editsafety import measures, reporting
from editsafety.errors import UnknownNameError
from editsafety.judging.report import RunReport
from editsafety.reporting import ReportPlace, as_json, as_markdown, as_terminal
from editsafety.runs.measurement import Column
from tests import builders

SURE = Column("confidence", "sure", "confidence", over="median", order=31)
PLACE = ReportPlace("suites", Path("reports/a-run"), 41.2)


def with_confidence(*values: float) -> RunReport:
    """A run of a measure that the table does not know: its column comes with the facts, its figures with the cases."""
    records = [builders.record("rome", "normal", i) for i, _ in enumerate(values)]
    records = [
        builders.stepped(record, found={**record.after, "confidence": builders.measured("confidence", value)})
        for record, value in zip(records, values, strict=True)
    ]
    columns = (*builders.FACTS.columns, SURE)
    return builders.report(records, facts=replace(builders.FACTS, columns=columns))


def test_the_formats_are_found_by_their_files() -> None:
    assert reporting.names() == ["html", "json", "markdown", "terminal"]
    assert [reporting.load(name).file for name in reporting.names()] == ["report.html", "report.json", "report.md", ""]


def test_a_format_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"no format named 'pdf'.*html, json, markdown, terminal"):
        reporting.load("pdf")


def test_every_format_with_a_file_is_written_and_no_other(tmp_path: Path) -> None:
    report = builders.example()
    reporting.write(report, tmp_path / "new", PLACE)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["report.html", "report.json", "report.md"]
    for name in ("html", "json", "markdown"):
        form = reporting.load(name)
        assert (tmp_path / "new" / form.file).read_text(encoding="utf-8") == form(report, PLACE)


def test_the_terminal_as_a_text_is_what_a_terminal_of_that_width_shows() -> None:
    report, out = builders.example(), io.StringIO()
    as_terminal.render(report, Console(file=out, width=110, highlight=False), PLACE)
    assert reporting.load("terminal")(report, PLACE) == out.getvalue()


@pytest.mark.parametrize("width", [90, 110, 140])
def test_the_column_of_a_new_measure_is_in_every_format(width: int) -> None:
    report, out = with_confidence(0.25, 0.5, 0.75), io.StringIO()
    as_terminal.render(report, Console(file=out, width=width, highlight=False), PLACE)
    heading, row = (line for line in out.getvalue().splitlines() if "sure" in line or line.startswith("rome "))
    assert row[: heading.index("sure") + len("sure")].split()[-1] == "0.50"  # right under its heading
    assert "| confidence sure |" in as_markdown.text(report)
    (group,) = as_json.document(report)["groups"]
    assert [row["median_confidence"] for row in group["figures"]] == [0.5, 0.5]
    assert json.loads(reporting.load("json")(report, PLACE))["groups"][0]["figures"][0]["median_confidence"] == 0.5


def test_the_columns_of_the_reports_made_by_hand_are_those_of_the_measures() -> None:
    assert measures.columns(measures.needed()) == builders.FACTS.columns


def test_columns_stand_in_their_order_whatever_the_order_of_the_measures() -> None:
    chosen = measures.needed()
    assert measures.columns(reversed(chosen)) == measures.columns(chosen)
