"""Courses in the lab: walked once, kept, shared between processes, and gone on with after a kill."""

from __future__ import annotations

import io
import signal
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
from tests.lab.course_world import written
from tests.system import world
from tests.system.commands import ROME


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    """A world of eight normal requests, with editors for courses."""
    return written(tmp_path)


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


def test_progress_counts_every_edit_of_a_course_and_not_its_measurements(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten edits that took four minutes were `1 of 60, 4 min each, 4.1 h left`."""
    monkeypatch.setattr("editsafety.progress.EVERY", 0.0)  # a line for every step
    told = io.StringIO()
    found = lab(paths, tmp_path / "run", "Nudge")
    found.progress = Progress(told)
    found.record(course(found, every=4))
    lines = [line for line in told.getvalue().splitlines() if "normal sequential" in line]
    assert [line.split(": ")[1].split(",")[0] for line in lines] == [f"{n} of 8" for n in range(9)]
    assert all(("perplexity" in line) == (n >= 4) for n, line in enumerate(lines))  # known from the fourth on
    found = lab(paths, tmp_path / "batch", "Several")
    found.progress = Progress(told := io.StringIO())
    found.record(course(found, "batch", sizes=(1, 3)))
    lines = [line for line in told.getvalue().splitlines() if "normal batch" in line]
    assert [line.split(": ")[1].split(",")[0] for line in lines] == ["0 of 4", "1 of 4", "4 of 4"]


def test_progress_of_a_course_that_goes_on_counts_what_is_left_of_it(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier process wrote came in no time at all, and made the rest look as fast."""
    monkeypatch.setattr("editsafety.progress.EVERY", 0.0)
    found = lab(paths, tmp_path / "run", "Nudge")
    along = course(found, every=3)
    put = found.store.put

    def stopped(key: str, record: CaseRecord) -> None:
        put(key, record)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(found.store, "put", stopped)
        with pytest.raises(KeyboardInterrupt):
            found.record(along)
    again = lab(paths, tmp_path / "run", "Nudge")
    again.progress = Progress(told := io.StringIO())
    assert [step.edits for step in again.record(along).steps] == [3, 6, 8]
    lines = [line for line in told.getvalue().splitlines() if "normal sequential" in line]
    assert [line.split(": ")[1].split(",")[0] for line in lines] == [f"{n} of 5" for n in range(6)]


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
