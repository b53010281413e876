"""A worker by itself: it computes what a lab computes, looks after its model, and gives back only what is new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editsafety.cluster.sweep import brief_of
from editsafety.cluster.work import Inquiry, KeyQuestion, OrderCheck, Portion
from editsafety.cluster.worker import Worker
from editsafety.errors import DataError, StoreError
from editsafety.lab.lab import Lab
from editsafety.progress import Progress
from editsafety.runs.facts import BlockKey, ModelFacts, OrderFacts, Problem, Unedited, Wanted
from editsafety.runs.plan import RunPlan
from editsafety.runs.store import Store
from tests.system import world


@pytest.fixture
def plan(paths: dict[str, str]) -> RunPlan:
    return world.plan(paths, "Nudge", "Raises", "noop")


@pytest.fixture
def worker(plan: RunPlan, tmp_path: Path) -> Iterator[Worker]:
    made = Worker(brief_of(plan, plan.cases), tmp_path / "worker")
    yield made
    made.close()


def model_of(worker: Worker) -> torch.nn.Module:
    """The model that the worker has in memory."""
    bench = worker._labs.here.tools.in_memory(worker._plan.settings.models[0])
    assert bench is not None
    return bench.handle.model


@pytest.mark.thorough
def test_it_finds_what_a_lab_finds_and_tells_each_fact_once(plan: RunPlan, worker: Worker, tmp_path: Path) -> None:
    store = Store(tmp_path / "straight" / "store.sqlite")
    lab = Lab(plan, store, Progress.quiet())
    straight = {lab.keys.of(case): lab.record(case) for case in plan.cases}
    model, half = plan.settings.models[0], len(plan.cases) // 2
    first = worker.do(Portion(model, plan.cases[:half]))
    second = worker.do(Portion(model, plan.cases[half:]))
    found = {**first.records, **second.records}
    assert found.keys() == straight.keys()
    for key, record in found.items():
        assert untimed(record.to_text()) == untimed(straight[key].to_text())
    kinds = [type(fact) for fact in first.facts]
    assert kinds.count(ModelFacts) == kinds.count(Unedited) == 1
    assert not {ModelFacts, Unedited, Wanted} & {type(fact) for fact in second.facts}
    assert first.seconds > 0


def untimed(text: str) -> object:
    """A record without seconds and bytes."""
    import json

    from tests.system.commands import without_times

    return without_times(json.loads(text))


def test_a_model_that_changed_between_two_portions_is_brought_back_and_that_is_said(
    plan: RunPlan, worker: Worker
) -> None:
    model = plan.settings.models[0]
    before = worker.do(Portion(model, plan.cases[:1]))
    again = worker.do(Portion(model, plan.cases[:1]))
    weight = next(iter(model_of(worker).parameters()))
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] += 1.0
    after = worker.do(Portion(model, plan.cases[1:2]))
    assert torch.equal(weight, kept)
    assert before.remarks == again.remarks == ()
    assert after.remarks == ("tiny-model had changed while nothing was run on it, and was brought back",)
    assert [record.failure for record in after.records.values()] == [None]


def test_a_case_that_ended_three_workers_is_given_up_in_the_words_of_a_run(plan: RunPlan, worker: Worker) -> None:
    case = plan.cases[0]
    tried = worker.do(Portion(case.model, (plan.cases[1],), deaths=2))
    given_up = worker.do(Portion(case.model, (case,), deaths=3))
    (record,) = given_up.records.values()
    assert record.failure is not None
    assert (record.case, record.failure.kind, record.ended) == (case.id, "died", "failed")
    assert "died 3 times" in record.failure.message
    assert [record.failure for record in tried.records.values()] == [None]


def test_the_order_is_checked_on_records_that_others_computed(plan: RunPlan, worker: Worker, tmp_path: Path) -> None:
    other = Worker(brief_of(plan, plan.cases), tmp_path / "other")
    block = plan.blocks[0]
    ends = [case for case in plan.cases if case.block == block]
    found = other.do(Portion(block[0], (ends[0], ends[-1])))
    other.close()
    parcel = worker.do(OrderCheck(block, found.records))
    (order,) = (fact for fact in parcel.facts if isinstance(fact, OrderFacts))
    assert (order.compared, order.different, order.holds) == (2, (), True)


@pytest.mark.thorough
def test_what_stands_in_the_way_of_one_editor_is_a_fact_and_the_others_are_run(
    paths: dict[str, str], tmp_path: Path
) -> None:
    plan = world.plan(paths, "mend", "Nudge")  # nobody trained MEND on this model, and no numbers of it ship
    worker = Worker(brief_of(plan, plan.cases), tmp_path / "worker")
    parcel = worker.do(Portion(plan.settings.models[0], plan.cases))
    worker.close()
    assert {record.editor for record in parcel.records.values()} == {"Nudge"}
    (problem,) = (fact for fact in parcel.facts if isinstance(fact, Problem))
    assert problem.editor == "mend"


def test_questions_about_the_model_are_answered(plan: RunPlan, worker: Worker) -> None:
    model = plan.settings.models[0]
    requests = tuple(case.request for case in plan.cases[:2])
    lab = Lab(plan, Store(worker._store.path.parent / "beside.sqlite"), Progress.quiet())
    assert list(worker.do(Inquiry(model, requests)).answers) == lab.knows(model, requests)
    keys = worker.do(KeyQuestion(model, tuple(editor for _, editor in plan.blocks)))
    assert {fact.editor for fact in keys.facts if isinstance(fact, BlockKey)} == {"Nudge", "Raises", "noop"}


def test_another_version_of_an_editor_s_file_is_refused(plan: RunPlan, paths: dict[str, str], tmp_path: Path) -> None:
    brief = brief_of(plan, plan.cases)
    with (Path(paths["nudge"])).open("a") as file:
        file.write("# changed\n")
    with pytest.raises(DataError, match="another one on this machine"):
        Worker(brief, tmp_path / "worker")


def test_other_weights_than_the_driver_has_results_of_are_refused(
    plan: RunPlan, worker: Worker, tmp_path: Path
) -> None:
    found = worker.do(Portion(plan.settings.models[0], plan.cases[:1])).facts
    (facts,) = (fact for fact in found if isinstance(fact, ModelFacts))
    other = replace(facts, fingerprint="0" * 64)
    late = Worker(brief_of(plan, plan.cases, [other]), tmp_path / "late")
    with pytest.raises(StoreError, match="has other weights"):
        late.do(Portion(plan.settings.models[0], plan.cases[:1]))
    late.close()
