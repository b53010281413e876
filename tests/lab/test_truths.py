"""Truths: a model knows a fact if it says so, greedily; a model that has learnt nothing knows none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from editsafety import datasets
from editsafety.lab.lab import Lab
from editsafety.lab.truths import gives_true_answers
from editsafety.measures import Inputs
from editsafety.measures.efficacy import Efficacy
from editsafety.model.handle import ModelHandle
from editsafety.progress import Progress
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store
from tests import tiny


def test_the_pocket_model_knows_its_world_and_not_what_was_made_up() -> None:
    handle = ModelHandle.load("pocket-neo")
    rows = datasets.requests("pocket-world/normal", limit=20)
    known = gives_true_answers(handle, rows)
    assert sum(known) >= 18
    assert sum(gives_true_answers(handle, [replace(row, target_true=row.target_new) for row in rows])) <= 1


def test_it_is_the_rule_by_which_an_edit_has_taken() -> None:
    handle = ModelHandle.load("pocket-neo")
    rows = datasets.requests("pocket-world/pool", limit=30)
    asked = tuple(replace(row, target_new=row.target_true or "", target_true=row.target_new) for row in rows)
    (efficacy, *_) = Efficacy()(handle, Inputs(requests=asked))
    assert [float(known) for known in gives_true_answers(handle, rows)] == list(efficacy.items)


def test_a_request_without_a_true_answer_is_not_known() -> None:
    assert gives_true_answers(tiny.handle("gpt2"), [tiny.request(target_true=None)]) == [False]
    assert gives_true_answers(tiny.handle("gpt2"), []) == []


def test_a_lab_asks_the_model_of_its_plan(tmp_path: Path) -> None:
    plan = RunPlan.of(Settings(("pocket-neo",), ("noop",), limit=3, texts=5))
    rows = [case.request for case in plan.cases]
    lab = Lab(plan, Store(tmp_path / "store.sqlite"), Progress.quiet())
    assert lab.knows("pocket-neo", rows) == gives_true_answers(lab.tools.bench("pocket-neo").handle, rows)
