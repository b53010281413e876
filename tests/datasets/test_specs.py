"""How a data set is named, and what a selection of its rows is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from editsafety import datasets
from editsafety.errors import DataError, UnknownNameError, UsageError
from tests.datasets.conftest import Write

ROWS = [{"id": f"r{i}", "prompt": "{} is a", "subject": f"S{i}", "target_new": "baker"} for i in range(10)]


def test_shipped_requests_and_texts_are_read_by_name() -> None:
    requests = datasets.requests("pocket-world/normal")
    assert len(requests) == 60
    assert requests[0].source == "normal.jsonl:1"
    assert all(request.target_true and request.rephrasings and request.neighbours for request in requests)
    assert len(datasets.texts("pocket-world/texts", limit=50)) == 50


def test_every_shipped_name_is_listed_with_what_can_be_fetched() -> None:
    assert {"pocket-world/normal", "pocket-world/pool", "pocket-world/texts", "me_ppl_50"} <= set(datasets.names())
    assert datasets.names() == sorted(datasets.names())


def test_a_path_to_our_own_layout_needs_no_loader(write: Write) -> None:
    assert len(datasets.requests(str(write(*ROWS)))) == 10


def test_a_path_may_hold_spaces_and_colons(write: Write) -> None:
    path = write(*ROWS, name="my rows: ünï.jsonl")
    assert len(datasets.requests(str(path))) == len(datasets.requests(f"jsonl:{path}")) == 10


@pytest.mark.parametrize("name", ["rows.csv", "rows.json.gz", "rows"])
@pytest.mark.parametrize("read", [datasets.requests, datasets.texts])
def test_a_file_of_another_kind_is_told_from_a_name_that_is_not_known(read, name: str, write: Write) -> None:
    path = write(data=b"prompt,subject\n", name=name)
    with pytest.raises(UsageError, match=r"\.jsonl, \.json and \.txt are read by themselves\. Save the data as one"):
        read(str(path))


def test_our_own_layout_is_known_in_a_json_file(write: Write) -> None:
    beside = {"neighbours": ["T is a"], "portability": [{"kind": "alias", "prompt": "S. is a", "answer": "baker"}]}
    rows = [{**row, "target_true": "cook", "rephrasings": ["x"], **beside} for row in ROWS]
    assert datasets.requests(str(write(*rows, name="rows.json"))) == datasets.requests(str(write(*rows)))


def test_a_home_folder_is_understood(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(*ROWS)
    monkeypatch.setenv("HOME", str(path.parent))
    assert len(datasets.requests("~/rows.jsonl")) == len(datasets.requests("jsonl:~/rows.jsonl")) == 10


def test_a_limit_takes_the_first_rows(write: Write) -> None:
    path = str(write(*ROWS))
    assert [request.id for request in datasets.requests(path, limit=3)] == ["r0", "r1", "r2"]
    assert len(datasets.requests(path, limit=99)) == 10


def test_a_seed_draws_rows_and_keeps_their_order(write: Write) -> None:
    path = str(write(*ROWS))
    drawn = [request.id for request in datasets.requests(path, limit=4, seed=7)]
    assert drawn == [request.id for request in datasets.requests(path, limit=4, seed=7)]
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == 4
    assert drawn != [request.id for request in datasets.requests(path, limit=4, seed=8)]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_selects_nothing_is_refused(limit: int) -> None:
    with pytest.raises(UsageError, match=f"limit {limit} selects no row"):
        datasets.requests("pocket-world/normal", limit=limit)
    with pytest.raises(UsageError, match=f"limit {limit} selects no row"):
        datasets.texts("pocket-world/texts", limit=limit)


def test_a_duplicate_behind_the_limit_is_still_refused(write: Write) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:11: the id 'r0' is already that of rows\.jsonl:1\."):
        datasets.requests(str(write(*ROWS, ROWS[0])), limit=1)


def test_an_unknown_name_gets_the_nearest_and_the_loaders() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'pocket-world/normal'") as error:
        datasets.requests("pocket-world/norml")
    assert "LOADER:PATH with one of cknowedit, counterfact, " in str(error.value)


def test_a_json_file_of_texts_needs_its_layout(write: Write) -> None:
    with pytest.raises(UsageError, match="say which layout it has, LOADER:"):
        datasets.texts(str(write({"Text": "x"}, name="rows.json")))


def test_texts_are_no_requests_and_requests_no_texts(write: Write) -> None:
    with pytest.raises(UsageError, match="'me_ppl' holds texts, but requests are needed"):
        datasets.requests(f"me_ppl:{write({'Text': 'x'})}")
    with pytest.raises(UsageError, match="'zsre' holds requests, but texts are needed"):
        datasets.texts(f"zsre:{write(*ROWS)}")


def test_offline_what_was_not_fetched_names_the_command_and_fetches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDITSAFETY_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="Fetch it once online: editsafety data fetch me_ppl_50"):
        datasets.texts("me_ppl_50", offline=True)
    with pytest.raises(DataError, match="Fetch it once online: editsafety data fetch qaedit_1k"):
        datasets.requests("qaedit_1k", offline=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["counterfact", "hardcf", "zsre"])
def test_what_cannot_be_fetched_says_where_it_is(name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' cannot be fetched: .*{name}:PATH"):
        datasets.requests(name)


def test_an_unknown_loader_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Known loaders: cknowedit, counterfact, "):
        datasets.load("fetch")


def test_reading_data_imports_no_torch() -> None:
    code = "import sys, editsafety.datasets as d; d.texts('pocket-world/texts'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
