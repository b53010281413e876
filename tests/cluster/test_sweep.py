"""The driver with real workers in this process: whatever dies on the way, the report is that of a straight run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from editsafety.cli import sweep as cli
from editsafety.cluster.sweep import IN_A_ROW
from editsafety.cluster.work import OrderCheck, Portion, Work
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.folders import STORE
from editsafety.runs.store import Store
from tests.cluster.inline import Dies, InlineCrew
from tests.system.commands import Command, Done, given, report, without_times

Sweeping = Callable[..., Done]


class ShownCrew(InlineCrew):
    """With what the command says of a crew."""

    slot = "1 CPU"


@pytest.fixture
def sweep(command: Command, paths: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweeping:
    """`editsafety sweep` into the folder `swept` with a crew in this process, which is left in `sweep.crew`."""

    def typed(*editors: str, dies: Dies = lambda work: False, **more: Any) -> Done:
        crew = typed.crew = ShownCrew(tmp_path / "workers", dies=dies)

        @contextmanager
        def joined(*_: object) -> Iterator[ShownCrew]:
            yield crew

        monkeypatch.setattr(cli.RayCrew, "joined", joined)
        return command("sweep", *given(paths, *editors, **{"out": "swept", "controls": 0, **more}))

    typed.crew = None
    return typed


def records(folder: str) -> list[CaseRecord]:
    with closing(Store(Path(folder) / STORE)) as store:
        return store.records()


def is_about(work: Work, name: str) -> bool:
    return isinstance(work, Portion) and any(case.id.endswith(name) for case in work.cases)


@pytest.mark.thorough
def test_the_report_is_that_of_a_straight_run(sweep: Sweeping, command: Command, paths: dict[str, str]) -> None:
    swept = sweep("Nudge", "Raises", "rome", controls=1, comment="comment.md")
    straight = command("run", *given(paths, "Nudge", "Raises", "rome", out="straight", controls=1))
    assert swept.code == straight.code == 13, swept.err
    assert without_times(report("swept")) == without_times(report("straight"))
    assert "cases: 14 of 14" in swept.err
    assert Path("comment.md").is_file()
    assert {worker for worker, _ in sweep.crew.given} == {"worker-1", "worker-2"}


def test_workers_that_die_now_and_then_change_nothing_but_who_computed_what(
    sweep: Sweeping, command: Command, paths: dict[str, str]
) -> None:
    turns = iter(range(1000))
    swept = sweep("Nudge", "Raises", limit=1, dies=lambda work: next(turns) % 3 == 1)
    assert (
        swept.code == command("run", *given(paths, "Nudge", "Raises", limit=1, out="straight", controls=0)).code == 11
    ), swept.err
    assert without_times(report("swept")) == without_times(report("straight"))
    assert sweep.crew.hired > 2
    assert "worker-2 died: the test says so; another one takes what it had" in swept.err


@pytest.mark.thorough
def test_a_case_that_is_the_end_of_three_workers_is_an_error_and_no_other_is_blamed(sweep: Sweeping) -> None:
    def dies(work: Work) -> bool:
        return is_about(work, "hard-1") and isinstance(work, Portion) and work.deaths < 3

    assert sweep("Nudge", "noop", dies=dies).code == 13
    failed = {record.editor: record for record in records("swept") if record.failure is not None}
    assert {editor: record.case.rpartition("-hard")[2] for editor, record in failed.items()} == {
        "Nudge": "-1",
        "noop": "-1",
    }
    assert {record.failure.kind for record in failed.values()} == {"died"}
    assert len(records("swept")) == 8


@pytest.mark.thorough
def test_workers_of_which_nothing_comes_back_end_the_sweep_and_the_rest_is_incomplete(sweep: Sweeping) -> None:
    done = sweep("Nudge", dies=lambda work: is_about(work, "-0") or is_about(work, "-1"))
    assert done.code == 13
    assert f"{IN_A_ROW} workers died one after the other" in done.err
    assert sweep("Nudge", dies=lambda work: is_about(work, "normal-1")).code == 13
    assert (report("swept")["verdict"], report("swept")["counts"]["missing"]) == ("INCOMPLETE", 1)
    assert sweep("Nudge").code == 11, "the same command goes on"


@pytest.mark.thorough
def test_ctrl_c_gives_a_partial_report_and_2_and_the_same_command_goes_on(
    sweep: Sweeping, command: Command, paths: dict[str, str]
) -> None:
    def interrupts(work: Work) -> bool:
        if is_about(work, "normal-1"):
            raise KeyboardInterrupt
        return False

    stopped = sweep("Nudge", dies=interrupts)
    assert stopped.code == 2
    assert "the same command goes on" in stopped.err
    assert (report("swept")["exit_code"], report("swept")["counts"]["judged"]) == (2, 3)
    assert command("report", "swept").code == 2
    assert sweep("Nudge").code == command("run", *given(paths, "Nudge", out="straight", controls=0)).code
    portions = [work for _, work in sweep.crew.given if isinstance(work, Portion)]
    assert [case.request.id for portion in portions for case in portion.cases] == ["normal-1"]
    assert without_times(report("swept")) == without_times(report("straight"))


def test_known_facts_only_are_found_out_by_a_worker(sweep: Sweeping) -> None:
    done = sweep("Nudge", known=True)
    assert done.code == 14
    assert "nothing was judged" in done.err
    assert "gives the true answer of 0 of the 2 requests" in done.err


@pytest.mark.thorough
def test_a_check_of_the_order_that_kills_workers_is_an_error_of_its_editor(sweep: Sweeping) -> None:
    assert sweep("Nudge", dies=lambda work: isinstance(work, OrderCheck)).code == 13
    with closing(Store(Path("swept") / STORE)) as store:
        (order,) = store.facts().orders.values()
    assert "3 workers died" in order.sentence


def test_what_a_sweep_cannot_do_is_said_before_anything_is_begun(
    command: Command, paths: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    words = [word for word in given(paths, "Nudge", out="swept") if not word.startswith("--device")]
    absent = command("sweep", *words)
    assert absent.code == 4
    assert 'a sweep needs Ray, which is not installed. Run: pip install "editsafety[ray]"' in absent.err
    assert command("sweep", *words, "--device", "cuda:1").code == 4
    assert not Path("swept").exists()
