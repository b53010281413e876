"""One bad row: without a word it stops the data set, by name; with `skip_bad_rows` it is left out, and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from editsafety import datasets
from editsafety.errors import DataError
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from tests.datasets.conftest import Write

NAMES = (
    "Mirel",
    "Ashurn",
    "Toren",
    "Kelm",
    "Ostra",
    "Dorv",
    "Vella",
    "Ruma",
    "Sten",
    "Ilva",
    "Brand",
    "Corin",
    "Daven",
)


def row(name: str, **changed: Any) -> dict[str, Any]:
    return {"prompt": f"{name} works as a", "subject": name, "target_new": "baker", **changed}


GOOD = [row(name) for name in NAMES]
# Every way in which a row can be bad, with the field that is named and what is said of it.
BAD: dict[str, tuple[Any, str]] = {
    "no such field": ({"prompt": "Mirel is", "subject": "Mirel"}, "field 'target_new' is missing"),
    "a number": (row("Mirel", subject=3.5), "field 'subject' is float, expected text"),
    "an empty target": (row("Mirel", target_new=" "), "field 'target_new' is empty"),
    "another name": (row("Mirel", subject="Toren"), "field 'subject' does not occur in 'prompt'"),
    "several slots": (row("Mirel", prompt="{} and {} work"), "must hold exactly one {} for the subject"),
    "a NUL": (row("Mirel", target_new="a\x00b"), "field 'target_new' holds a NUL character"),
    "half a character": (row("Mirel", target_new="\ud83d"), "half a character"),
    "a list for a row": ([1], "is list, expected an object with fields"),
    "nothing for a row": (None, "is NoneType, expected an object with fields"),
    "a neighbour without a prompt": (row("Mirel", locality={"A": [{"answer": 1}]}), "field 'prompt' is missing"),
    "an id that is taken": (row("Mirel", case_id=1), "is already that of"),
}  # fmt: skip


def place(number: int, file: str) -> str:
    return f"{file}:{number}" if file.endswith("l") else f"{file}[{number - 1}]"


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("file", ["rows.json", "rows.jsonl"])
def test_a_bad_row_is_named_and_left_out_when_asked(kind: str, file: str, write: Write) -> None:
    bad, said = BAD[kind]
    spec = f"easyedit:{write({**GOOD[0], 'case_id': 1}, bad, GOOD[2], name=file)}"
    with pytest.raises(DataError) as caught:
        datasets.requests(spec)
    assert str(caught.value).startswith(place(2, file))
    assert said in str(caught.value)
    found = datasets.read_requests(spec, skip_bad_rows=True)
    assert [request.subject for request in found.requests] == ["Mirel", "Toren"]
    (left,) = found.left_out
    assert left.startswith(place(2, file))
    assert said in left
    assert "1 of 3 rows cannot be used and were left out" in found.sentences
    assert datasets.requests(spec, skip_bad_rows=True) == found.requests


def test_a_row_that_is_left_out_changes_no_other(write: Write) -> None:
    whole = datasets.requests(f"easyedit:{write(*GOOD)}")
    some = datasets.requests(f"easyedit:{write(*GOOD[:3], BAD['a number'][0], *GOOD[3:])}", skip_bad_rows=True)
    assert [one.subject for one in some] == [one.subject for one in whole]
    assert [one.id for one in some[:3]] == [one.id for one in whole[:3]]
    assert some[3].id == "easyedit-0005"  # numbers are those of the rows in the file


def test_the_error_names_every_bad_row_up_to_ten(write: Write) -> None:
    twelve = [{**one, "target_new": ""} for one in GOOD[:12]]
    with pytest.raises(DataError) as caught:
        datasets.requests(f"easyedit:{write(*twelve, GOOD[12])}")
    first, *lines = str(caught.value).split("\n")
    assert first == "12 rows cannot be used:"
    assert [line.split(": ")[0] for line in lines[:-1]] == [f"rows.jsonl:{n}" for n in range(1, 11)]
    assert lines[-1] == "and 2 more"


def test_the_error_says_how_to_leave_them_out(write: Write) -> None:
    with pytest.raises(DataError, match="--skip-bad-rows"):
        datasets.requests(f"easyedit:{write(GOOD[0], BAD['a number'][0])}")


@pytest.mark.parametrize("name", ["easyedit", "hardcf", "jsonl"])
def test_a_set_without_a_single_good_row_is_refused_all_the_same(name: str, write: Write) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1"):
        datasets.requests(f"{name}:{write({'a': 1}, {'b': 2})}", skip_bad_rows=True)


def test_a_line_that_is_no_json_is_left_out_like_any_other(write: Write) -> None:
    lines = [json.dumps(GOOD[0]), '{"prompt": "cut', "NaN", json.dumps(GOOD[1])]
    found = datasets.read_requests(f"easyedit:{write(data=chr(10).join(lines).encode())}", skip_bad_rows=True)
    assert len(found.requests) == 2
    assert ["no whole JSON value" in found.left_out[0], "holds NaN" in found.left_out[1]] == [True, True]


@pytest.mark.parametrize("data", [b"", b"[]", b'[{"prompt": "x"}, {"pro', b"\xff\xfe", b"{}"])
def test_what_is_wrong_with_the_whole_file_is_wrong_all_the_same(data: bytes, write: Write) -> None:
    with pytest.raises(DataError, match=r"rows\.json"):
        datasets.requests(f"easyedit:{write(data=data, name='rows.json')}", skip_bad_rows=True)


def test_the_limit_counts_rows_that_can_be_used(write: Write) -> None:
    spec = f"easyedit:{write(BAD['a number'][0], *GOOD)}"
    assert [one.subject for one in datasets.requests(spec, limit=2, skip_bad_rows=True)] == list(NAMES[:2])


def test_our_own_layout_and_subsets_leave_rows_out_too(write: Write) -> None:
    own = {"id": "a", "prompt": "{} is", "subject": "Mirel", "target_new": "x"}
    found = datasets.read_requests(
        str(write(own, {**own, "id": "b", "targt": "y"}, {**own, "id": "c"})), skip_bad_rows=True
    )
    assert [one.id for one in found.requests] == ["a", "c"]
    assert "rows.jsonl:2: unknown field 'targt'" in found.left_out[0]
    sets = {"m": [GOOD[0], BAD["a number"][0]], "n": [GOOD[0], GOOD[1]]}
    path = write(data=json.dumps(sets).encode(), name="sets.json")
    found = datasets.read_requests(f"hardcf:{path}", skip_bad_rows=True)
    assert [one.subject for one in found.requests] == ["Mirel", "Ashurn"]
    assert len(found.left_out) == 1


def test_a_plan_keeps_what_its_data_left_out(write: Write) -> None:
    path = write(row("Mirel", portability={"a": 1}), BAD["another name"][0])
    settings = Settings(("m",), ("noop",), normal=f"easyedit:{path}", texts_from="pocket-world/texts")
    with pytest.raises(DataError, match="does not occur"):
        RunPlan.of(settings)
    plan = RunPlan.of(Settings(**{**{n: getattr(settings, n) for n in settings.__slots__}, "skip_bad_rows": True}))
    assert [case.request.subject for case in plan.cases] == ["Mirel"]
    assert plan.unread["m normal"] == (
        "set aside, because a request has no place for it: portability (1 row)",
        "1 of 2 rows cannot be used and were left out",
        "rows.jsonl:2: field 'subject' does not occur in 'prompt': 'Toren' in 'Mirel works as a'.",
    )
    assert plan.about()["unread"] == {"m normal": list(plan.unread["m normal"])}
    assert plan.digest() != RunPlan.of(Settings(("m",), ("noop",), normal=f"easyedit:{write(GOOD[0])}",
                                                texts_from="pocket-world/texts")).digest()  # fmt: skip


USERS = Path(__file__).resolve().parents[2].parent / "shared" / "cases" / "users"


@pytest.mark.skipif(not USERS.is_dir(), reason="the collected inputs of users are not here")
def test_the_collected_row_is_left_out() -> None:
    (file,) = USERS.glob("H10-*/*.json")
    found = datasets.read_requests(f"easyedit:{file}", skip_bad_rows=True)
    assert (len(found.requests), len(found.left_out)) == (len(json.loads(file.read_text())) - 1, 1)
