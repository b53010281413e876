"""Courses in the lab: walked once, kept, shared between processes, and gone on with after a kill."""

from __future__ import annotations

import json
import shlex
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from editsafety.edits.edit import Edit
from editsafety.errors import NotPreparedError, UsageError
from editsafety.lab import lab as module
from editsafety.lab.lab import Lab
from editsafety.progress import Progress
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.schedule import Kind, Schedule
from editsafety.runs.store import Store
from tests.system import world
from tests.system.commands import LENIENT_COURSES, ROME, Command, ended, kill, report, start

# Breaks the model at the third edit of a course or at one request; waits where a file beside it says so.
MORE = '''

class Counts(Nudge):
    """At its third edit on top of others the model breaks."""

    def edit(self, requests, carry=None):
        count = int(carry["count"]) + 1 if carry else 1
        edit = super().edit(requests)
        if count == 3:
            edit.deltas[0].left.fill_(float("nan"))
        return Edit(edit.editor, edit.request_ids, edit.made_for, edit.deltas, carry={"count": torch.tensor(count)})


class Trips(Nudge):
    def edit(self, requests, carry=None):
        edit = super().edit(requests)
        if requests[0].id.endswith("-2"):
            edit.deltas[0].left.fill_(float("nan"))
        return edit


class Waits(Nudge):
    """Goes on carrying a count; at request 5 it waits for as long as a file is there."""

    def edit(self, requests, carry=None):
        import time
        from pathlib import Path
        here = Path(__file__).parent
        with (here / "log").open("a") as log:
            log.write(requests[0].id + "\\n")
        while requests[0].id.endswith("-5") and (here / "wait").exists():
            (here / "waiting").touch()
            time.sleep(0.01)
        edit = super().edit(requests)
        count = torch.tensor(int(carry["count"]) + 1 if carry else 1)
        edit.deltas[0].left.mul_(count)
        return Edit(edit.editor, edit.request_ids, edit.made_for, edit.deltas, carry={"count": count})
'''


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    """A world of eight normal requests."""
    found = world.write(tmp_path, normal=8)
    nudge = Path(found["nudge"])
    nudge.write_text(nudge.read_text() + MORE)
    return found


def lab(paths: dict[str, str], folder: Path, *editors: str, **more: Any) -> Lab:
    return Lab(world.plan(paths, *editors, **more), Store(folder / "store.sqlite"), Progress.quiet())


def course(found: Lab, kind: Kind = "sequential", **more: Any) -> Case:
    block = found.plan.blocks[0]
    rows = [case.request for case in found.plan.cases if case.stream == "normal" and case.block == block]
    return Case(*block, "normal", tuple(rows), Schedule(kind, **more))


def never(*_: Any, **__: Any) -> CaseRecord:
    raise AssertionError("a finished course was walked again")


def test_a_finished_course_is_not_walked_again_and_leaves_no_checkpoint(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = lab(paths, tmp_path / "run", "Nudge")
    record = first.record(course(first, every=2))
    assert (record.ended, [step.edits for step in record.steps]) == ("complete", [2, 4, 6, 8])
    assert (record.model, record.editor, record.stream) == ("tiny-model", "Nudge", "normal")
    assert not (tmp_path / "run" / "checkpoints").exists() or not any((tmp_path / "run" / "checkpoints").iterdir())
    monkeypatch.setattr(module, "walk", never)
    again = lab(paths, tmp_path / "run", "Nudge")
    assert again.record(course(again, every=2)).to_text() == record.to_text()
    fresh = lab(paths, tmp_path / "run", "Nudge")
    finished = fresh.store.finished([course(fresh, every=2), course(fresh, "batch")])
    assert {name: one.to_text() for name, one in finished.items()} == {record.case: record.to_text()}
    assert fresh.tools._bench is None  # no model was loaded for that


def test_probes_are_measured_on_the_unedited_model_and_at_every_step(paths: dict[str, str], tmp_path: Path) -> None:
    asked = tmp_path / "choosing.jsonl"
    asked.write_text('{"id": "0", "prompt": "Mirel works as a", "options": ["baker", "judge"], "gold": 0}\n')
    found = lab(paths, tmp_path / "run", "Nudge", probe=(str(asked),))
    record = found.record(course(found, every=4))
    assert record.abilities == ("choosing",)
    assert record.before["choosing"].n == 1
    assert [step.found["choosing"].n for step in record.steps] == [1, 1]


def test_the_edit_that_breaks_a_model_is_kept_beside_the_store(paths: dict[str, str], tmp_path: Path) -> None:
    found = lab(paths, tmp_path / "run", "Counts")
    record = found.record(course(found, every=8))
    assert record.ended == "collapsed"
    assert record.breaking is not None
    assert (record.breaking.edits, record.breaking.requests[0].id) == (3, "normal-2")
    assert record.breaking.delta.startswith("breaking/tiny-model-Counts-normal-sequential-")
    assert Edit.load(tmp_path / "run" / record.breaking.delta).id == record.breaking.edit_id


def test_a_schedule_that_is_none_for_an_editor_is_refused_and_its_cases_are_not(
    paths: dict[str, str], tmp_path: Path
) -> None:
    found = lab(paths, tmp_path / "run", "Nudge")
    along = course(found, "batch", sizes=(4,))
    with pytest.raises(UsageError, match="a batch of 4"):
        found.record(along)
    assert found.record(found.plan.cases[0]).failure is None


def test_what_stands_in_the_way_of_a_block_is_noted_for_courses_as_for_cases(
    paths: dict[str, str], tmp_path: Path
) -> None:
    hparams = tmp_path / "rome.yaml"
    hparams.write_text(ROME)
    found = lab(paths, tmp_path / "run", "rome", hparams=(str(hparams),))
    with pytest.raises(NotPreparedError):
        found.record(course(found))
    assert "prepare" in found.store.facts().problems["tiny-model", "rome"]


def test_a_course_whose_process_died_twice_in_one_place_is_given_up_and_ctrl_c_is_no_death(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lab(paths, tmp_path / "run", "Nudge")
    along = course(found, every=4)

    def stopped(*_: Any, **__: Any) -> CaseRecord:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not interrupted")

    with monkeypatch.context() as patched:
        patched.setattr(module, "walk", stopped)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                found.record(along)
    assert found.record(along).failure is None
    dies = course(found, every=3)
    for _ in range(3):
        found.store.start(found.keys.of(dies))
    record = found.record(dies)
    assert record.ended == "failed"
    assert record.failure is not None
    assert record.failure.kind == "died"
    assert "died 3 times" in record.failure.message


def test_a_course_that_another_process_walks_is_waited_for(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lab(paths, tmp_path / "run", "Nudge")
    along = course(found, every=4)
    key = found.keys.of(along)
    record = lab(paths, tmp_path / "other", "Nudge").record(along)
    (tmp_path / "record").write_text(record.to_text())
    code = f"""
        import sys, time
        from pathlib import Path
        from editsafety.runs.case_record import CaseRecord
        from editsafety.runs.store import Store
        store = Store(Path({str(tmp_path / "run" / "store.sqlite")!r}))
        print(store.claim([{key!r}], 1), flush=True)
        time.sleep(1)
        store.put({key!r}, CaseRecord.from_text(Path({str(tmp_path / "record")!r}).read_text()))
    """
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as other:
        assert other.stdout is not None
        assert key in other.stdout.readline()
        monkeypatch.setattr(module, "walk", never)
        assert found.record(along).to_text() == record.to_text()


def test_while_one_course_is_walked_elsewhere_a_worker_walks_another_that_is_wanted(
    paths: dict[str, str], tmp_path: Path
) -> None:
    plan, store = world.plan(paths, "Nudge"), Store(tmp_path / "run" / "store.sqlite")
    first = Lab(plan, store, Progress.quiet())
    mine, other, impossible = course(first, every=8), course(first, every=4), course(first, "batch", sizes=(4,))
    found = Lab(plan, store, Progress.quiet(), workers=2, wanted=(mine, other, impossible))
    assert {one.id for one in found._beside(mine, found.wanted)} == {mine.id, other.id}
    code = f"""
        import sys
        from pathlib import Path
        from editsafety.runs.store import Store
        store = Store(Path({str(store.path)!r}))
        print(store.claim([{found.keys.of(mine)!r}], 1), flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as elsewhere:
        assert elsewhere.stdout is not None
        assert elsewhere.stdin is not None
        assert found.keys.of(mine) in elsewhere.stdout.readline()
        found._work(mine, found.wanted)
        record = store.record(found.keys.of(other))
        assert record is not None
        assert (record.ended, store.record(found.keys.of(mine))) == ("complete", None)
        elsewhere.stdin.close()
    assert found.record(mine).ended == "complete"


# ------------------------------------------------------------------------------------------------ the command, killed


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


@pytest.mark.slow
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


# ----------------------------------------------------------------------------------------------- the command's answer


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
