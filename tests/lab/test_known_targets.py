"""What one editor of a run has found, another one of its family finds, in the same process and in another."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from editsafety.lab.lab import Lab
from editsafety.progress import Progress
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.store import Store
from tests.system import world

NUMBERS = """
layers: [1]
v_num_grad_steps: 6
v_lr: 0.5
v_weight_decay: 0.01
clamp_norm_factor: 10
mom2_adjustment: false
context_template_length_params: [[8, 3]]
"""


@pytest.fixture
def run(paths, tmp_path: Path):
    """run(folder, editors, **settings): the lab of a run in that folder; called again, that of another process."""
    hparams = tmp_path / "numbers.yaml"
    hparams.write_text(NUMBERS)

    def made(folder: str, editors: Sequence[str] = ("rome", "c_rome"), **more: Any) -> Lab:
        plan = world.plan(paths, *editors, hparams=(str(hparams),), **more)
        return Lab(plan, Store(tmp_path / folder / "store.sqlite"), Progress(io.StringIO(), "quiet"))

    return made


def of(lab: Lab, editor: str) -> list[Case]:
    return [case for case in lab.plan.cases if case.editor == editor]


def records(lab: Lab, editor: str) -> list[CaseRecord]:
    return [lab.record(case) for case in of(lab, editor)]


def test_the_second_editor_finds_what_the_first_one_found_and_its_edits_are_the_plain_ones(run) -> None:
    lab, plain = run("run"), run("plain", plain=True)
    for editor in ("rome", "c_rome"):
        found, expected = records(lab, editor), records(plain, editor)
        assert [one.step.edit_id for one in found] == [one.step.edit_id for one in expected]
        assert found[0].step.cost.reused == 0 if editor == "rome" else all(one.step.cost.reused > 0 for one in found)
        assert not any(one.step.cost.reused for one in expected)
    assert not list(plain.edits.folder.glob("once-*"))


def test_what_was_found_is_a_part_of_what_the_edit_cost(run) -> None:
    lab = run("run")
    first, second = (records(lab, editor) for editor in ("rome", "c_rome"))
    for rome, cured in zip(first, second, strict=True):
        costs = rome.step.cost, cured.step.cost
        assert costs[1].edit > costs[1].reused > 0
        assert costs[1].reused < costs[0].edit


def test_another_process_finds_it_too(run) -> None:
    first = run("run")
    records(first, "rome")
    another = run("run")
    assert all(one.step.cost.reused > 0 for one in records(another, "c_rome"))


def test_nothing_is_written_for_an_editor_that_has_the_requests_to_itself(run) -> None:
    lab = run("run", ["rome"])
    records(lab, "rome")
    assert not list(lab.edits.folder.glob("once-*"))


def test_the_order_of_edits_is_judged_by_computing_them_again(run, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = run("run")
    for editor in ("rome", "c_rome"):
        records(lab, editor)
    again: list[float] = []
    real = lab._again

    def watched(*args: Any) -> Any:
        made = real(*args)
        again.append(made.cost.reused)
        return made

    monkeypatch.setattr(lab, "_again", watched)
    assert lab.same_in_any_order(lab.plan.cases[0].model, "c_rome").holds
    assert again == [0.0, 0.0]


def test_a_plain_case_is_another_case(run) -> None:
    lab, plain = run("run"), run("run", plain=True)
    assert lab.keys.of(lab.plan.cases[0]) != plain.keys.of(plain.plan.cases[0])
