"""Courses in the lab: walked once, kept, shared between processes, and gone on with after a kill."""

from __future__ import annotations

import json
import shlex
import signal
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from editsafety.edits.edit import Edit
from editsafety.errors import NotPreparedError, UsageError
from editsafety.lab import courses as module
from editsafety.lab.courses import Terms
from editsafety.lab.lab import Lab
from editsafety.progress import Progress
from editsafety.runs.course_record import CourseRecord
from editsafety.runs.measurement import Measurement
from editsafety.runs.schedule import Course, Kind, Schedule
from editsafety.runs.store import Store
from tests.system import world
from tests.system.commands import ROME, Command, ended, kill, start

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


def course(found: Lab, kind: Kind = "sequential", **more: Any) -> Course:
    block = found.plan.blocks[0]
    rows = [case.request for case in found.plan.cases if case.stream == "normal" and case.block == block]
    return Course(*block, "normal", Schedule(kind, **more), tuple(rows))


def never(*_: Any, **__: Any) -> CourseRecord:
    raise AssertionError("a finished course was walked again")


@dataclass(frozen=True)
class Constant:
    """A probe."""

    value: float
    name: str = "constant"

    def __call__(self, handle: Any, batch_size: int) -> Measurement:
        return Measurement(self.name, 1, "rate", self.value, n=1)


def test_a_finished_course_is_not_walked_again_and_leaves_no_checkpoint(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = lab(paths, tmp_path / "run", "Nudge")
    record = first.course(course(first, every=2))
    assert (record.ended, [step.edits for step in record.steps]) == ("complete", [2, 4, 6, 8])
    assert (record.model, record.editor, record.stream) == ("tiny-model", "Nudge", "normal")
    assert list((tmp_path / "run").rglob("*.safetensors")) == []
    monkeypatch.setattr(module, "walk", never)
    again = lab(paths, tmp_path / "run", "Nudge")
    assert again.course(course(again, every=2)).to_text() == record.to_text()
    fresh = lab(paths, tmp_path / "run", "Nudge")
    finished = fresh.finished_courses([course(fresh, every=2), course(fresh, "single")])
    assert {name: one.to_text() for name, one in finished.items()} == {record.course: record.to_text()}
    assert fresh._bench is None  # no model was loaded for that


def test_what_can_change_a_record_is_in_its_key_and_a_probe_that_cannot_be_told_apart_is_refused(
    paths: dict[str, str], tmp_path: Path
) -> None:
    found = lab(paths, tmp_path / "run", "Nudge")
    along = course(found)
    model = along.model
    keys = [found.course_key(along), found.course_key(course(found, every=3))]
    plain = found.terms[model]
    for terms in (
        replace(plain, limit=3.0),
        replace(plain, stop=False),
        replace(plain, probes=(Constant(0.5),)),
        replace(plain, probes=(Constant(0.6),)),
    ):
        found.terms[model] = terms
        keys.append(found.course_key(along))
    assert len(set(keys)) == 6
    assert found.store.get(f"course key:{along.id}") == found.terms[model].shared(found._shared_key(along))
    found.terms[model] = Terms(probes=(lambda handle, size: Constant(1.0)(handle, size),))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="its repr has to tell what it measures"):
        found.course_key(along)
    assert lab(paths, tmp_path / "run", "Nudge", seed=1).course_key(along) not in keys


def test_probes_are_measured_on_the_unedited_model_and_at_every_step(paths: dict[str, str], tmp_path: Path) -> None:
    found = lab(paths, tmp_path / "run", "Nudge")
    found.terms[paths["model"]] = Terms(probes=(Constant(0.5),))
    record = found.course(course(found, every=4))
    assert record.before["constant"].value == 0.5
    assert [step.found["constant"].value for step in record.steps] == [0.5, 0.5]


def test_the_edit_that_breaks_a_model_is_kept_beside_the_store(paths: dict[str, str], tmp_path: Path) -> None:
    found = lab(paths, tmp_path / "run", "Counts")
    record = found.course(course(found, every=8))
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
    assert module.refusal(along) == "Nudge edits one fact at a time; a batch of 4 cannot be given to it."
    assert module.refusal(course(found)) is None
    with pytest.raises(UsageError, match="a batch of 4"):
        found.course(along)
    assert found.record(found.plan.cases[0]).failure is None


def test_what_stands_in_the_way_of_a_block_is_noted_for_courses_as_for_cases(
    paths: dict[str, str], tmp_path: Path
) -> None:
    hparams = tmp_path / "rome.yaml"
    hparams.write_text(ROME)
    found = lab(paths, tmp_path / "run", "rome", hparams=(str(hparams),))
    with pytest.raises(NotPreparedError):
        found.course(course(found))
    assert "prepare" in found.store.get("problem:tiny-model:rome")


def test_a_course_whose_process_died_twice_in_one_place_is_given_up_and_ctrl_c_is_no_death(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lab(paths, tmp_path / "run", "Nudge")
    along = course(found, every=4)

    def stopped(*_: Any, **__: Any) -> CourseRecord:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "walk", stopped)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                found.course(along)
    assert found.course(along).failure is None
    dies = course(found, every=3)
    for _ in range(2):
        found.store.start(found.course_key(dies))
    record = found.course(dies)
    assert record.ended == "failed"
    assert record.failure is not None
    assert record.failure.kind == "died"
    assert "died 2 times" in record.failure.message


def test_a_course_that_another_process_walks_is_waited_for(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lab(paths, tmp_path / "run", "Nudge")
    along = course(found, every=4)
    key = found.course_key(along)
    record = lab(paths, tmp_path / "other", "Nudge").course(along)
    (tmp_path / "record").write_text(record.to_text())
    code = f"""
        import sys, time
        from pathlib import Path
        from editsafety.runs.course_record import CourseRecord
        from editsafety.runs.store import Store
        store = Store(Path({str(tmp_path / "run" / "store.sqlite")!r}))
        print(store.claim([{key!r}], 1), flush=True)
        time.sleep(1)
        store.put_course({key!r}, CourseRecord.from_text(Path({str(tmp_path / "record")!r}).read_text()))
    """
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as other:
        assert other.stdout is not None
        assert key in other.stdout.readline()
        monkeypatch.setattr(module, "walk", never)
        assert found.course(along).to_text() == record.to_text()


def test_several_workers_share_the_courses_of_a_block(paths: dict[str, str], tmp_path: Path) -> None:
    """While one course is claimed elsewhere, a worker walks another one that is wanted."""
    found = lab(paths, tmp_path / "run", "Nudge")
    found.workers = 2
    mine, other = course(found, every=8), course(found, "single")
    found.wanted_courses = (mine, other)
    assert {one.id for one in found._unfinished(mine)} == {mine.id, other.id}
    found.course(other)
    assert {one.id for one in found._unfinished(mine)} == {mine.id}


# ------------------------------------------------------------------------------------------------ the command, killed


def steps(path: Path) -> Any:
    """A --json file without seconds."""
    (walk,) = json.loads(path.read_text())
    return {**walk, "steps": [{**step, "seconds": None} for step in walk["steps"]]}


def committed(store: Path) -> int:
    if not store.is_file():
        return 0
    with sqlite3.connect(store) as db:
        rows = db.execute("SELECT record FROM courses").fetchall()
    db.close()
    return len(json.loads(rows[0][0])["steps"]) if rows else 0


@pytest.mark.slow
def test_a_sequence_that_is_killed_half_way_goes_on_and_comes_to_the_same(
    paths: dict[str, str], tmp_path: Path
) -> None:
    words = [
        "sequence", "--model", paths["model"], "--editor", f"{paths['nudge']}:Waits", "--requests", paths["normal"],
        "--texts", paths["texts"], "--device", "cpu", "--every", "2", "--quiet",
    ]  # fmt: skip
    log = tmp_path / "log"
    whole = ended(start(*words, "--store", "whole", "--json", "whole.json", cwd=tmp_path))
    assert whole.code == 0, whole.err
    log.unlink()
    (tmp_path / "wait").touch()
    going = start(*words, "--store", "killed", "--json", "killed.json", cwd=tmp_path)
    kill(going, when=lambda: (tmp_path / "waiting").exists(), how=signal.SIGKILL)
    assert committed(tmp_path / "killed" / "store.sqlite") == 2
    assert len(list((tmp_path / "killed" / "checkpoints").iterdir())) == 1
    (tmp_path / "wait").unlink()
    again = ended(start(*words, "--store", "killed", "--json", "killed.json", cwd=tmp_path))
    assert again.code == 0, again.err
    assert steps(tmp_path / "killed.json") == steps(tmp_path / "whole.json")
    done = log.read_text().split()
    assert done == [f"normal-{i}" for i in (0, 1, 2, 3, 4, 5)] + [f"normal-{i}" for i in (4, 5, 6, 7)]
    assert list((tmp_path / "killed" / "checkpoints").iterdir()) == []


# ----------------------------------------------------------------------------------------------- the command's answer


def words_of(paths: dict[str, str], editor: str) -> list[str]:
    given = ["--model", paths["model"], "--editor", f"{paths['nudge']}:{editor}", "--requests", paths["normal"]]
    return ["sequence", *given, "--texts", paths["texts"], "--device", "cpu"]


@pytest.mark.parametrize(
    ("editor", "more", "at"),
    [
        ("Counts", ["--every", "8"], 3),
        ("Trips", ["--schedule", "single"], 1),
    ],
)
def test_the_breaking_edit_is_told_and_the_printed_command_breaks_the_model_again(
    paths: dict[str, str], tmp_path: Path, command: Command, editor: str, more: list[str], at: int
) -> None:
    done = command(*words_of(paths, editor), *more, "--json", "found.json")
    assert done.code == 10
    (found,) = json.loads(Path("found.json").read_text())
    breaking = found["breaking"]
    assert (found["breaks_at"], breaking["edits"], breaking["requests"]) == (at, at, ["normal-2"])
    assert breaking["ratio"] is None  # not finite
    assert breaking["ratio_before"] == pytest.approx(1.0, abs=0.1)
    assert "Toren works as a -> teacher (normal-2)" in done.out
    assert "not finite after" in done.out
    (line,) = [line for line in done.out.splitlines() if line.startswith("replay")]
    (delta,) = [line.split()[1] for line in done.out.splitlines() if line.startswith("delta")]
    assert Edit.load(Path(delta)).request_ids == ("normal-2",)
    program, *replay = shlex.split(line.removeprefix("replay"))
    assert program == "editsafety"
    assert replay == shlex.split(breaking["reproducer"])[1:]
    again = command(*replay, "--json", "again.json")
    assert again.code == 10, again.err
    (second,) = json.loads(Path("again.json").read_text())
    assert second["breaking"]["requests"] == breaking["requests"]
    assert len(second["steps"]) == 1


def test_streams_schedules_and_sizes_are_chosen_and_the_same_command_goes_on(
    paths: dict[str, str], tmp_path: Path, command: Command
) -> None:
    hard = [*words_of(paths, "Nudge")]
    hard[hard.index(paths["normal"])] = paths["hard"]
    done = command(*hard, "--stream", "hard", "--every", "1", "--json", "hard.json")
    assert done.code == 0, done.err
    (found,) = json.loads(Path("hard.json").read_text())
    assert (found["stream"], [step["requests"] for step in found["steps"]]) == ("hard", [["hard-0"], ["hard-1"]])
    before = sorted(Path("reports").glob("sequence-*"))
    again = command(*hard, "--stream", "hard", "--every", "1", "--json", "again.json")
    assert again.code == 0
    assert json.loads(Path("again.json").read_text()) == [found]  # seconds and all: nothing was computed again
    assert sorted(Path("reports").glob("sequence-*")) == before
    batch = command(*words_of(paths, "Nudge"), "--schedule", "batch", "--size", "2", "--size", "4")
    assert batch.code == 13
    assert "Nudge edits one fact at a time; a batch of 4" in batch.out
    assert command(*words_of(paths, "Nudge"), "--schedule", "sideways").code == 4
    assert command(*words_of(paths, "Nudge"), "--stream", "soft").code == 4
    assert command(*words_of(paths, "Nudge"), "--only", "nobody").code == 4
    folder = ["--store", "mine"]
    assert command(*words_of(paths, "Nudge"), *folder, "--edits", "2").code == 0
    other = command(*words_of(paths, "Nudge"), *folder, "--edits", "3")
    assert other.code == 13 or other.code == 4
    assert "holds another sequence" in other.err
