"""An editor that hangs, crashes, ends or loses its process: an error of its case, and the next one is run."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest

from editsafety.errors import DataError, EditorError, StoreError
from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.lab.lab import Lab
from editsafety.progress import Progress
from editsafety.runs.plan import RunPlan
from editsafety.runs.store import Store
from editsafety.supervision import SupervisedLab
from tests.system import world
from tests.system.conftest import own_cache, paths

__all__ = ["own_cache", "paths"]

FATAL = '''

class Fatal(Nudge):
    """Does to its process what the file `orders` beside it says of the case: the word after the request's id."""

    def edit(self, requests, carry=None):
        import ctypes, os, threading, time
        from pathlib import Path
        here = Path(__file__).parent
        with (here / "log").open("a") as log:
            log.write(f"{requests[0].id} {os.getpid()}\\n")
        print("about to", requests[0].id)
        orders = dict(line.split() for line in (here / "orders").read_text().splitlines())
        order = orders.get(requests[0].id)
        if order == "hang":
            threading.Thread(target=time.sleep, args=(60,)).start()
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass
        if order == "memory":
            raise MemoryError("no more")
        if order == "crash":
            ctypes.string_at(0)
        if order == "no-room":
            from editsafety.errors import StoreError
            raise StoreError("no room is left for results")
        if order == "exit":
            os._exit(0)
        return super().edit(requests)


class FatalToMake(Nudge):
    def __init__(self, *args, **more):
        print("no such library")
        raise SystemExit(3)
'''
ORDERS = {"hard-1": "hang", "hard-2": "memory", "normal-0": "crash", "normal-1": "exit", "normal-2": "hang"}


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    return tmp_path / "orders"


@pytest.fixture
def fatal(tmp_path: Path, orders: Path) -> dict[str, str]:
    found = world.write(tmp_path, hard=4, normal=4)
    nudge = Path(found["nudge"])
    nudge.write_text(nudge.read_text() + FATAL)
    orders.write_text("")
    return found


def supervised(plan: RunPlan, folder: Path) -> SupervisedLab:
    store = Store(folder / "store.sqlite")
    progress = Progress(io.StringIO())
    return SupervisedLab(plan, store, progress, wanted=plan.cases, log=folder / "output.log")


@pytest.mark.slow
def test_every_case_has_a_verdict_and_the_others_are_what_an_undisturbed_process_finds(
    fatal: dict[str, str], orders: Path, tmp_path: Path
) -> None:
    orders.write_text("".join(f"{case} {order}\n" for case, order in ORDERS.items()))
    plan = world.plan(fatal, "Fatal", timeout=2.0)
    lab = supervised(plan, tmp_path)
    found = {case.request.id: lab.record(case) for case in plan.cases}
    lab.close()
    verdicts = {name: judge_case(Policy.read("default"), record).verdict for name, record in found.items()}
    good = ("hard-0", "hard-3")
    assert {name for name, verdict in verdicts.items() if verdict is Verdict.PASS} == set(good)
    assert set(verdicts.values()) == {Verdict.PASS, Verdict.ERROR}

    orders.write_text("")
    alone = Lab(plan, Store(tmp_path / "alone" / "store.sqlite"), Progress.quiet())
    for case in plan.cases:
        if case.request.id in good:
            record, same = found[case.request.id], alone.record(case)
            assert (record.after, record.before, record.step.edit_id) == (same.after, same.before, same.step.edit_id)

    failures = {name: record.failure for name, record in found.items() if record.failure is not None}
    assert {name: failure.kind for name, failure in failures.items()} == {
        "hard-1": "timeout", "hard-2": "oom", "normal-0": "died", "normal-1": "died", "normal-2": "timeout",
        "normal-3": "timeout",
    }  # fmt: skip
    assert "did not end within 2 s" in failures["hard-1"].message
    assert "SIGSEGV" in failures["normal-0"].message
    assert "exit status 0" in failures["normal-1"].message
    for name in ("hard-1", "normal-0"):
        assert failures[name].where.startswith("nudge.py:")
        assert any(" in edit" in call for call in failures[name].stack)
    assert "was not run, as the 3 cases before ended so" in failures["normal-3"].message
    edited = dict(line.split() for line in (tmp_path / "log").read_text().splitlines()[:7])
    assert list(edited) == [case.request.id for case in plan.cases[:7]], "none was run twice"
    assert len(set(edited.values())) == 5, "after everything but a good case there is a new process"
    assert all(gone(int(process)) for process in edited.values())
    assert "about to hard-0" in (tmp_path / "output.log").read_text()


def gone(process: int) -> bool:
    """Whether a process has ended."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
def test_an_editor_whose_making_ends_the_process_is_refused_with_its_last_words(
    fatal: dict[str, str], tmp_path: Path
) -> None:
    nudge = Path(fatal["nudge"])
    nudge.write_text(nudge.read_text().replace("raise SystemExit(3)", "import os; os._exit(3)"))
    plan = world.plan(fatal, "FatalToMake")
    lab = supervised(plan, tmp_path)
    for case in plan.cases[:2]:
        with pytest.raises(EditorError, match=r"while the editor was made.*exit status 3.*no such library"):
            lab.record(case)
    assert "exit status 3" in Store(tmp_path / "store.sqlite").facts().problems["tiny-model", "FatalToMake"]


@pytest.mark.slow
def test_errors_of_the_lab_come_through_and_a_log_that_cannot_be_written_is_told(
    fatal: dict[str, str], tmp_path: Path
) -> None:
    plan = world.plan(fatal, "Nudge")
    lab = supervised(plan, tmp_path)
    nudge = Path(fatal["nudge"])
    nudge.write_text(nudge.read_text() + "\n")
    with pytest.raises(DataError, match="have changed since it was begun"):
        lab.record(plan.cases[0])
    lab.close()
    lab = supervised(plan, tmp_path)
    (tmp_path / "output.log").unlink()
    (tmp_path / "output.log").mkdir()
    with pytest.raises(StoreError, match=r"output\.log"):
        lab.record(plan.cases[0])


def test_results_that_the_other_process_cannot_keep_end_the_run_and_the_store_says_why(
    fatal: dict[str, str], orders: Path, tmp_path: Path
) -> None:
    orders.write_text("hard-0 no-room\n")
    plan = world.plan(fatal, "Fatal")
    lab = supervised(plan, tmp_path)
    for case in plan.cases[:2]:
        with pytest.raises(StoreError, match="no room is left for results"):
            lab.record(case)
    lab.close()
    assert Store(tmp_path / "store.sqlite").facts().problems == {("tiny-model", "Fatal"): "no room is left for results"}


def test_another_process_says_which_facts_the_model_knows(paths, tmp_path):
    plan = world.plan(paths, "Nudge")
    rows = [case.request for case in plan.cases]
    store = Store(tmp_path / "run" / "store.sqlite")
    lab = SupervisedLab(plan, store, Progress.quiet(), wanted=(), log=tmp_path / "run" / "output.log")
    try:
        assert lab.knows(paths["model"], rows) == [False] * len(rows)
        with pytest.raises(DataError, match="Shorten the prompt"):
            lab.knows(paths["model"], [replace(rows[0], prompt="{} " + "and so on " * 300)])
    finally:
        lab.close()
