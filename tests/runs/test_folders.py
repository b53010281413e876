"""Run folders: an interrupted run is found again, a finished one is not, and two runs are never mixed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from editsafety.errors import StoreError
from editsafety.runs import folders
from editsafety.runs.plan import RunPlan
from tests import builders

CASES = [builders.case_of("rome", "hard", i) for i in range(2)]
PLAN = builders.plan(CASES)
OTHER = builders.plan(CASES, seed=1)


def test_a_new_run_gets_a_folder_of_its_own_that_is_named_after_time_and_models_and_not_made_yet(
    tmp_path: Path,
) -> None:
    plan = builders.plan([builders.case_of("rome", "hard", 0, model=model) for model in ("org/GPT2-XL", "pocket-neo")])
    found = folders.choose(plan, tmp_path)
    assert found.parent == tmp_path
    assert found.name.endswith("-gpt2-xl-pocket-neo")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_given_is_taken_whatever_else_there_is(tmp_path: Path) -> None:
    folders.begin(tmp_path / "begun", PLAN)
    assert folders.choose(PLAN, tmp_path, tmp_path / "mine") == tmp_path / "mine"


def test_an_interrupted_run_is_found_again_until_it_is_finished(tmp_path: Path) -> None:
    begun = tmp_path / "2026-01-01T00-00-00-pocket-neo"
    folders.begin(begun, PLAN)
    assert folders.choose(PLAN, tmp_path) == begun
    assert folders.choose(OTHER, tmp_path) != begun, "another seed is another run"
    folders.finish(begun, PLAN)
    assert folders.about(begun)["finished"] is True
    assert folders.choose(PLAN, tmp_path) != begun


def test_of_several_interrupted_runs_the_newest_goes_on(tmp_path: Path) -> None:
    for day in (1, 3, 2):
        folders.begin(tmp_path / f"2026-01-0{day}T00-00-00-pocket-neo", PLAN)
    assert folders.choose(PLAN, tmp_path).name.startswith("2026-01-03")


def test_what_is_going_to_be_run_is_written_and_can_be_written_again(tmp_path: Path) -> None:
    folders.begin(tmp_path / "a" / "b", PLAN)
    folders.begin(tmp_path / "a" / "b", PLAN)
    about = folders.about(tmp_path / "a" / "b")
    assert (about["digest"], about["finished"]) == (PLAN.digest(), False)
    assert about["settings"]["editors"] == ["rome"]


def test_a_folder_that_holds_another_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    folders.begin(tmp_path, PLAN)
    with pytest.raises(StoreError, match=r"holds another run .*Give another --out, or remove it"):
        folders.begin(tmp_path, OTHER)
    assert folders.about(tmp_path)["digest"] == PLAN.digest()


@pytest.mark.parametrize("content", ["", "{", "[]", "12", "\x00"])
def test_a_plan_that_cannot_be_read_is_none_and_its_folder_is_not_gone_on_with(tmp_path: Path, content: str) -> None:
    broken = tmp_path / "2026-01-01T00-00-00-pocket-neo"
    broken.mkdir()
    (broken / folders.PLAN).write_text(content)
    assert folders.about(broken) == {}
    assert folders.choose(PLAN, tmp_path) != broken
    assert folders.about(tmp_path / "nowhere") == {}


def test_a_place_that_cannot_hold_a_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/run: cannot hold a run \(Not a directory\). Give another --out"):
        folders.begin(tmp_path / "file" / "run", PLAN)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot hold a run"):
        folders.begin(tmp_path / "run", PLAN)


def test_the_plan_of_a_real_run_is_valid_json_with_its_data(tmp_path: Path) -> None:
    plan: RunPlan = builders.plan(CASES, hparams=("rome=h.yaml",))
    folders.begin(tmp_path, plan)
    body = json.loads((tmp_path / folders.PLAN).read_text(encoding="utf-8"))
    assert body["data"] == {"pocket-neo hard": "pocket-neo/hardcf"}
    assert body["settings"]["hparams"] == ["rome=h.yaml"]


def test_paths_are_told_as_seen_from_here_when_they_are_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert folders.near(tmp_path / "a" / "b") == Path("a/b")
    assert folders.near(tmp_path.parent / "other") == tmp_path.parent / "other"


def test_pytest_is_told_where_the_suites_are_in_a_checkout_and_in_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = Path(folders.__file__).parents[1] / "suites"
    monkeypatch.setattr(folders, "shipped", lambda room: inside)
    assert folders.suites() == "--pyargs editsafety.suites"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders, "shipped", lambda room: tmp_path / room)
    assert folders.suites() == "suites"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name here")
def test_a_pipe_in_place_of_the_plan_is_not_waited_at(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / folders.PLAN)
    assert folders.about(tmp_path) == {}


def test_a_folder_in_which_no_plan_can_be_written_is_said_to_be_that_however_often(tmp_path: Path) -> None:
    (tmp_path / folders.PLAN / "x").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"cannot hold a run \(.*\)\. Give another --out"):
            folders.begin(tmp_path, PLAN)
