"""`editsafety sequence`: killed and gone on with, what it says, and what its printed command does."""

from __future__ import annotations

import json
import shlex
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from editsafety.edits.edit import Edit
from tests.lab.course_world import written
from tests.system.commands import LENIENT_COURSES, Command, ended, kill, report, start


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    """A world of eight normal requests, with editors for courses."""
    return written(tmp_path)


def steps(path: Path) -> Any:
    """The only course of a report.json, without seconds."""
    (course,) = json.loads(path.read_text())["courses"]
    return {**course, "steps": [{**step, "seconds": None, "peak_bytes": None} for step in course["steps"]]}


def committed(store: Path) -> int:
    if not store.is_file():
        return 0
    with sqlite3.connect(store) as db:
        rows = db.execute("SELECT record FROM cases").fetchall()
    db.close()
    return len(json.loads(rows[0][0])["steps"]) if rows else 0


@pytest.mark.thorough
def test_a_sequence_that_is_killed_half_way_goes_on_and_comes_to_the_same(
    paths: dict[str, str], tmp_path: Path
) -> None:
    words = [
        "sequence", "--model", paths["model"], "--editor", f"{paths['nudge']}:Waits", "--requests", paths["normal"],
        "--texts-from", paths["texts"], "--device", "cpu", "--every", "2", "--quiet", "--policy", lenient(tmp_path),
    ]  # fmt: skip
    log = tmp_path / "log"
    whole = ended(start(*words, "--out", "whole", cwd=tmp_path))
    assert whole.code == 0, whole.err
    log.unlink()
    (tmp_path / "wait").touch()
    going = start(*words, "--out", "killed", cwd=tmp_path)
    kill(going, when=lambda: (tmp_path / "waiting").exists(), how=signal.SIGKILL)
    assert committed(tmp_path / "killed" / "store.sqlite") == 2
    assert len(list((tmp_path / "killed" / "checkpoints").iterdir())) == 1
    (tmp_path / "wait").unlink()
    again = ended(start(*words, "--out", "killed", cwd=tmp_path))
    assert again.code == 0, again.err
    assert steps(tmp_path / "killed/report.json") == steps(tmp_path / "whole/report.json")
    done = log.read_text().split()
    assert done == [f"normal-{i}" for i in (0, 1, 2, 3, 4, 5)] + [f"normal-{i}" for i in (4, 5, 6, 7)]
    assert list((tmp_path / "killed" / "checkpoints").iterdir()) == []


def lenient(folder: Path) -> str:
    """A policy by which only a collapse fails."""
    (folder / "lenient.yaml").write_text(LENIENT_COURSES)
    return str(folder / "lenient.yaml")


def words_of(paths: dict[str, str], editor: str) -> list[str]:
    given = ["--model", paths["model"], "--editor", f"{paths['nudge']}:{editor}", "--requests", paths["normal"]]
    policy = lenient(Path(paths["nudge"]).parent)
    return ["sequence", *given, "--texts-from", paths["texts"], "--device", "cpu", "--policy", policy]


def test_the_breaking_edit_is_told_and_the_printed_command_breaks_the_model_again(
    paths: dict[str, str], command: Command
) -> None:
    done = command(*words_of(paths, "Counts"), "--every", "8", "--out", "found")
    assert done.code == 10
    (found,) = report("found")["courses"]
    breaking = found["breaking"]
    assert (found["breaks_at"], breaking["edits"]) == (3, 3)
    assert [request["id"] for request in breaking["requests"]] == ["normal-2"]
    assert breaking["ratio"] is None  # not finite
    assert breaking["ratio_before"] == pytest.approx(1.0, abs=0.1)
    assert "Toren works as a -> teacher (normal-2)" in done.out
    assert "edit 3 (normal-2) broke the model" in done.out
    assert Edit.load(Path("found") / breaking["delta"]).request_ids == ("normal-2",)
    assert breaking["delta"] in done.out
    (line,) = [line for line in done.out.splitlines() if line.startswith("replay")]
    program, *replay = shlex.split(line.removeprefix("replay"))
    assert program == "editsafety"
    assert report("found")["replay"] == line.removeprefix("replay").strip()
    again = command(*replay, "--out", "again")
    assert again.code == 10, again.err
    (second,) = report("again")["courses"]
    assert second["breaking"]["requests"] == breaking["requests"]
    assert len(second["steps"]) == 1


def test_single_edits_are_cases_as_in_a_run_and_one_that_breaks_the_model_stops_none(
    paths: dict[str, str], command: Command
) -> None:
    done = command(*words_of(paths, "Trips"), "--schedule", "single", "--limit", "4", "--out", "found")
    assert done.code == 10
    found = report("found")
    assert found["courses"] == []
    (group,) = found["groups"]
    verdicts = {case["requests"][0]["id"]: case["verdict"] for case in group["cases"]}
    assert verdicts == {"normal-0": "PASS", "normal-1": "PASS", "normal-2": "COLLAPSE", "normal-3": "PASS"}
    assert "Toren works as a" in done.out


def test_streams_schedules_and_sizes_are_chosen_and_the_same_command_goes_on(
    paths: dict[str, str], tmp_path: Path, command: Command
) -> None:
    hard = [*words_of(paths, "Nudge")]
    hard[hard.index(paths["normal"])] = paths["hard"]
    done = command(*hard, "--stream", "hard", "--every", "1")
    assert done.code == 0, done.err
    (folder,) = Path("reports").glob("sequence-*")
    (found,) = report(folder)["courses"]
    assert (found["stream"], [step["block"] for step in found["steps"]]) == ("hard", [["hard-0"], ["hard-1"]])
    assert command(*hard, "--stream", "hard", "--every", "1").code == 0
    assert list(Path("reports").glob("sequence-*")) == [folder]
    assert report(folder)["courses"] == [found]  # seconds and all: nothing was computed again
    batch = command(*words_of(paths, "Nudge"), "--schedule", "batch", "--size", "2", "--size", "4")
    assert batch.code == 13
    assert "Nudge edits one fact at a time; a batch of 4" in batch.out
    assert command(*words_of(paths, "Nudge"), "--schedule", "sideways").code == 4
    assert command(*words_of(paths, "Nudge"), "--stream", "soft").code == 4
    assert command(*words_of(paths, "Nudge"), "--only", "nobody").code == 4
    mine = ["--out", "mine"]
    assert command(*words_of(paths, "Nudge"), *mine, "--limit", "2").code == 0
    other = command(*words_of(paths, "Nudge"), *mine, "--limit", "3")
    assert other.code == 4
    assert "holds another run" in other.err


def test_a_stored_sequence_is_reported_as_it_was_run_whatever_its_schedule(
    paths: dict[str, str], command: Command
) -> None:
    """`run` would lay out batches of other sizes from the same settings."""
    words = [*words_of(paths, "Nudge"), "--schedule", "batch", "--size", "1", "--out", "found"]
    done = command(*words)
    assert done.code == 0, done.out
    again = command("report", "found")
    assert (again.code, again.out.splitlines()[-1]) == (0, done.out.splitlines()[-1])
    assert "1 course" in again.out


def test_along_facts_that_the_model_does_not_know_there_is_nothing_to_edit(
    command: Command, paths: dict[str, str]
) -> None:
    rows = [json.loads(line) for line in Path(paths["normal"]).read_text().splitlines()]
    Path(paths["normal"]).write_text("".join(json.dumps({**row, "target_true": "zzz"}) + "\n" for row in rows))
    words = [*words_of(paths, "Nudge"), "--known", "--limit", "3"]
    for _ in range(2):  # the folder is free again
        done = command(*words, "--out", "out")
        assert done.code == 4
        assert "nothing to edit: tiny-model normal: the unedited model gives the true answer of 0 of the" in " ".join(
            done.err.split()
        )


def test_all_abilities_of_a_world_are_asked_for_by_its_name_and_every_figure_is_shown(
    paths: dict[str, str], command: Command
) -> None:
    done = command(*words_of(paths, "Nudge"), "--probe", "english", "--items", "2", "--limit", "1", "--out", "found")
    assert done.code in (0, 11), done.err
    (row,) = [line for line in done.out.splitlines() if line.split()[:1] == ["1"] and len(line.split()) == 13]
    assert "…" not in row, "an 80-column terminal"
    assert command(*words_of(paths, "Nudge"), "--probe", "none", "--limit", "1", "--out", "bare").code == 0
    refused = command(*words_of(paths, "Nudge"), "--probe", "lambada", "--out", "none")
    assert (refused.code, "pocket-world/abilities/lambada if that is meant" in " ".join(refused.err.split())) == (
        4,
        True,
    )
