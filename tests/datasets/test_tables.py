"""One object may stand for many rows, in every way in which programs save a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from editsafety import datasets
from editsafety.errors import DataError
from tests.datasets.conftest import Write
from tests.datasets.test_layouts_of_the_field import LAYOUTS

Row = dict[str, Any]


def by_columns(rows: list[Row]) -> Row:
    return {name: [row[name] for row in rows] for name in rows[0]}


def by_columns_and_index(rows: list[Row]) -> Row:
    return {name: {str(i): row[name] for i, row in enumerate(rows)} for name in rows[0]}


def in_a_list(rows: list[Row]) -> Row:
    return {"version": "1.1", "tags": ["a"], "data": rows}


def in_a_map(rows: list[Row]) -> Row:
    return {f"fact {i}": row for i, row in enumerate(rows)}


def saved(write: Write, value: Any) -> str:
    return str(write(name="table.json", data=json.dumps(value).encode()))


@pytest.mark.parametrize("table", [by_columns, by_columns_and_index, in_a_list, in_a_map])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_table_holds_the_requests_of_its_rows(table: Callable[[list[Row]], Row], layout: str, write: Write) -> None:
    rows = [{**LAYOUTS[layout][0], "case_id": i, "id": i} for i in range(3)]
    plain = datasets.read_requests(saved(write, rows))
    found = datasets.read_requests(saved(write, table(rows)))
    assert found.requests == plain.requests
    assert found.aside == plain.aside


def test_a_bad_row_of_a_table_is_named_by_its_place(write: Write) -> None:
    rows = [{"prompt": f"{name} speaks", "subject": name, "target_new": "Tarnic"} for name in ("Mirel", "Toren")]
    rows[1]["subject"] = "Ashurn"
    for table, place in ((by_columns, "row 1"), (in_a_list, "data[1]"), (in_a_map, "fact 1")):
        found = datasets.read_requests(saved(write, table(rows)), skip_bad_rows=True)
        assert [one.subject for one in found.requests] == ["Mirel"]
        assert found.left_out[0].startswith(f"table.json:1: {place}: field 'subject' does not occur")


def test_of_several_lists_of_rows_none_is_guessed(write: Write) -> None:
    row = {"prompt": "Mirel speaks", "subject": "Mirel", "target_new": "Tarnic"}
    with pytest.raises(DataError, match=r"holds several lists of rows \(train, test\)\. Save the one that is meant"):
        datasets.requests(saved(write, {"train": [row], "test": [row]}))


def test_a_row_with_lists_in_it_is_one_row(write: Write) -> None:
    row = LAYOUTS["ripple_edits"][0]
    assert len(datasets.requests(saved(write, row))) == 1
