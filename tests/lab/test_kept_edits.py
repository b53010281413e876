"""Edits that several cases need are computed once and kept; a record does not tell whether one was."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from editsafety.lab import edit_store
from editsafety.lab.lab import Lab
from editsafety.runs.case import Case
from editsafety.runs.schedule import Schedule
from editsafety.runs.store import Store
from tests.lab.test_lab import QUIET, lab
from tests.lab.walking import timeless
from tests.system import world

COUNTED = '''

class Counted(Nudge):
    """Logs every edit that it computes, and carries how many there were."""

    traits = Traits(batch=True)

    def edit(self, requests, carry=None):
        from pathlib import Path
        count = int(carry["count"]) + 1 if carry else 1
        with (Path(__file__).parent / "log").open("a") as log:
            log.write(f"{'+'.join(one.id for one in requests)} {count}\\n")
        edit = super().edit(requests)
        edit.deltas[0].left.mul_(count)
        ids = tuple(one.id for one in requests)
        return Edit(edit.editor, ids, edit.made_for, edit.deltas, carry={"count": torch.tensor(count)})


class Trips(Counted):
    """Breaks the model with one request."""

    def edit(self, requests, carry=None):
        edit = super().edit(requests, carry)
        if any(one.id == "normal-1" for one in requests):
            edit.deltas[0].left.fill_(float("nan"))
        return edit
'''
COURSES = (
    Schedule("sequential", every=2),
    Schedule("batch", sizes=(1, 2)),
    Schedule("batch-sequential", sizes=(1,), every=2),
)


@pytest.fixture
def counted(paths, tmp_path):
    """What every editor of `COUNTED` has computed so far, as ids and the number of edits in the model by then."""
    nudge = tmp_path / "nudge.py"
    nudge.write_text(nudge.read_text().replace("import Edit, Editor", "import Edit, Editor, Traits") + COUNTED)
    log = tmp_path / "log"
    return lambda: Counter(log.read_text().splitlines()) if log.exists() else Counter()


def with_courses(paths, folder, editor, *, probed=(), **more):
    """A lab that is about the normal requests of a plan one by one, and along every schedule of `COURSES`."""
    laid = world.plan(paths, editor, **more)
    singles = [replace(case, probed=case.id in probed) for case in laid.cases if case.stream == "normal"]
    rows = tuple(case.request for case in singles)
    courses = [Case(*singles[0].block, "normal", rows, schedule) for schedule in COURSES]
    wanted = [*singles, *courses]
    return Lab(laid, Store(folder / "store.sqlite"), QUIET, wanted=wanted), wanted


def test_an_edit_that_several_cases_need_is_computed_once(paths, tmp_path, counted):
    found, wanted = with_courses(paths, tmp_path / "run", "Counted")
    first, second, sequential, batch, batches = [found.record(case) for case in wanted]
    # All courses begin with the first single edit; what lies on top of it is computed on each of them.
    assert counted() == {"normal-0 1": 1, "normal-1 1": 1, "normal-1 2": 2, "normal-0+normal-1 1": 1}
    assert batch.steps[0].edit_id == first.step.edit_id != second.step.edit_id
    assert sequential.step.edit_id == batches.step.edit_id != second.step.edit_id


def test_the_edit_that_bisection_tries_alone_is_the_single_one(paths, tmp_path, counted):
    found, wanted = with_courses(paths, tmp_path / "run", "Trips")
    along = next(case for case in wanted if case.schedule.kind == "sequential")
    for case in (*wanted[:2], along):
        found.record(case)
    assert found.record(along).breaking.requests[0].id == "normal-1"
    assert counted() == {"normal-0 1": 1, "normal-1 1": 1, "normal-1 2": 1}


def test_a_record_is_the_same_with_and_without_kept_edits(paths, tmp_path, counted, monkeypatch):
    for editor in ("Counted", "Trips"):
        found, wanted = with_courses(paths, tmp_path / f"{editor} kept", editor)
        kept = [timeless(found.record(case)) for case in wanted]
        with monkeypatch.context() as patched:
            patched.setattr(edit_store, "LARGEST", -1)
            other, wanted = with_courses(paths, tmp_path / f"{editor} computed", editor)
            computed = [timeless(other.record(case)) for case in wanted]
        assert not list((tmp_path / f"{editor} computed").rglob("edits/*"))
        assert kept == computed
        assert [one.to_text() for one in kept] == [one.to_text() for one in computed]


def test_an_edit_that_one_case_alone_needs_is_not_written(paths, tmp_path, counted):
    found = lab(paths, tmp_path / "run", "Counted")
    for case in found.plan.cases:
        found.record(case)
    assert not (tmp_path / "run" / "edits").exists()


def test_a_kept_edit_that_was_damaged_is_computed_again(paths, tmp_path, counted):
    found, wanted = with_courses(paths, tmp_path / "run", "Counted")
    whole, _ = with_courses(paths, tmp_path / "whole", "Counted")
    for case in wanted[:2]:
        found.record(case)
    for path in (tmp_path / "run" / "edits").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    along = wanted[2]
    assert timeless(found.record(along)) == timeless(whole.record(along))


def test_an_edit_of_other_settings_is_another_edit(paths, tmp_path, counted):
    for seed in (0, 1):
        found, wanted = with_courses(paths, tmp_path / "run", "Counted", seed=seed)
        found.record(wanted[0])
    assert counted() == {"normal-0 1": 2, "normal-1 1": 2}


def test_a_single_edit_with_its_abilities_is_another_record_of_the_same_edit(paths, tmp_path, counted):
    asked = tmp_path / "choosing.jsonl"
    asked.write_text('{"id": "0", "prompt": "Mirel works as a", "options": ["baker", "judge"], "gold": 0}\n')
    found, (one, *_) = with_courses(paths, tmp_path / "run", "Counted", probe=(str(asked),))
    plain, probed = found.record(one, beside=()), found.record(replace(one, probed=True), beside=())
    assert (plain.abilities, probed.abilities) == ((), ("choosing",))
    assert probed.after["choosing"].n == probed.before["choosing"].n == 1
    assert plain.step.edit_id == probed.step.edit_id
    assert counted() == {"normal-0 1": 1}
