"""Walks: what is measured along a course, which edit breaks a model, and what goes wrong on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editors import Traits
from editsafety.edits.edit import Delta, Edit, Replace
from editsafety.edits.seal import Seal
from editsafety.edits.session import EditSession
from editsafety.errors import StoreError, UsageError
from editsafety.lab.bench import Bench
from editsafety.model.handle import ModelHandle
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.measurement import Measurement
from editsafety.runs.schedule import Kind, Schedule
from tests.lab.walking import (
    PRINTS,
    REQUESTS,
    Breaks,
    Fails,
    Hard,
    Push,
    Scribbles,
    Stopped,
    bench_of,
    course,
    editor,
    go,
    values,
)


class Recovers(Push):
    """The second edit breaks the model, the third one mends it."""

    def deltas(self, requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        weight = self.handle.mlp_out(1).parameter
        value = self.handle.model.get_parameter(weight).detach()
        return (Replace(weight, torch.full_like(value, math.nan) if count == 2 else torch.ones_like(value) * 1e-3),)


class Once(Push):
    """Cannot be applied on top of itself."""

    traits = Traits(batch=True, sequential=False)


class Alone(Push):
    """Edits one fact at a time."""

    traits = Traits(batch=False)


@pytest.fixture
def bench() -> Bench:
    return bench_of("gpt2")


# -------------------------------------------------------------------------------------------------- what is measured


def test_every_edit_lies_on_the_ones_before_and_gets_what_the_last_one_carries(bench: Bench, tmp_path: Path) -> None:
    weight = bench.handle.mlp_out(1).parameter
    before = bench.handle.model.get_parameter(weight).detach().clone()

    class Mean:
        name = "mean"

        def __call__(self, handle: ModelHandle, batch_size: int) -> Measurement:
            now = handle.model.get_parameter(weight).detach()
            return Measurement("mean", 1, "1", float((now - before).mean()), n=1)

    record = go(bench, editor(Push, bench, tmp_path), course(), limit=math.inf, probes=(Mean(),))
    # 1, 1 + 2, 1 + 2 + 3, ... hundredths
    assert values(record, "mean") == pytest.approx([0.01, 0.03, 0.06, 0.10, 0.15, 0.21, 0.28], rel=1e-3)
    assert record.before["mean"].value == 0.0
    assert record.ended == "complete"
    assert [step.notes["count"] for step in record.steps] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("schedule", "edits", "blocks"),
    [
        (Schedule("sequential", every=3), [3, 6, 7], [3, 3, 1]),
        (Schedule("batch-sequential", (3,), every=1), [3, 6, 7], [3, 3, 1]),
        (Schedule("batch-sequential", (2,), every=4), [4, 7], [4, 3]),
        (Schedule("batch", (2, 5)), [2, 5], [2, 5]),
    ],
    ids=str,
)
def test_steps_are_where_the_schedule_says_and_name_their_requests(
    bench: Bench, tmp_path: Path, schedule: Schedule, edits: list[int], blocks: list[int]
) -> None:
    seen: list[int] = []
    along = replace(course(), schedule=schedule)
    commit: Callable[[CaseRecord], None] = lambda now: seen.append(len(now.steps))  # noqa: E731
    record = go(bench, editor(Push, bench, tmp_path), along, limit=math.inf, on_step=commit)
    assert [step.edits for step in record.steps] == edits
    assert [len(step.block) for step in record.steps] == blocks
    assert seen == list(range(1, len(edits) + 1))
    assert record.planned == 7
    if schedule.cumulative:
        assert [name for step in record.steps for name in step.block] == [request.id for request in REQUESTS]


@pytest.mark.parametrize(
    ("kind", "sizes"), [("batch", (2, 3, 4)), ("sequential", (1,)), ("batch-sequential", (2,))], ids=str
)
def test_the_figures_are_those_of_the_edited_model_and_the_model_comes_back(
    bench: Bench, tmp_path: Path, kind: Kind, sizes: tuple[int, ...]
) -> None:
    seal, push = Seal.of(bench.handle), editor(Push, bench, tmp_path)
    record = go(bench, push, course(kind, REQUESTS[:4], sizes=sizes), limit=math.inf, probes=(PRINTS,))
    assert seal.changed(Seal.of(bench.handle)) == ()
    first = REQUESTS[: sizes[0]]
    with EditSession(bench.handle) as session:
        session.apply(push.edit(first))
        after = {one.name: one for m in bench.measures if m.scope == "model" for one in m(bench.handle, bench.inputs())}
        assert record.steps[0].found["prints"] == PRINTS(bench.handle, 8)
    step = record.steps[0]
    assert step.found["me_ppl"] == after["me_ppl"]
    assert step.ratio(record.before) == pytest.approx((after["me_ppl"].value or 0) / (bench.base["me_ppl"].value or 1))
    assert step.found["drift_relative"].value is not None
    if kind == "batch":
        assert len(record.steps) == 3
        assert len(set(values(record, "prints"))) == 1  # the same edit on the same model, again and again


# --------------------------------------------------------------------------------------------------- when it breaks


def test_a_course_ends_at_the_collapse_or_goes_on_and_keeps_the_running_maximum(bench: Bench, tmp_path: Path) -> None:
    recovers = editor(Recovers, bench, tmp_path)
    ended = go(bench, recovers, course())
    assert (ended.ended, [step.edits for step in ended.steps]) == ("collapsed", [1, 2])
    on = go(bench, recovers, course(), stop=False)
    assert (on.ended, len(on.steps)) == ("complete", 7)
    assert on.ratios[1] == math.inf
    assert (on.ratios[2] or 0) <= 2
    assert on.worst == math.inf
    assert on.breaks_at(2.0) == 2
    assert on.breaking is not None
    assert on.breaking.edits == 2


@pytest.mark.parametrize("every", [1, 3, 7])
@pytest.mark.parametrize("at", range(1, 8))
def test_the_edit_that_breaks_a_model_is_found_wherever_it_is_in_its_block(
    bench: Bench, tmp_path: Path, every: int, at: int
) -> None:
    breaks = editor(Breaks, bench, tmp_path)
    breaks.at = at  # type: ignore[attr-defined]
    delta = tmp_path / "breaking" / "delta.safetensors"
    record = go(bench, breaks, course("sequential", every=every), delta=delta, probes=(PRINTS,))
    found = record.breaking
    assert found is not None
    assert (found.edits, [request.id for request in found.requests]) == (at, [f"case-{at - 1}"])
    assert found.ratio == math.inf
    assert found.ratio_before == pytest.approx(1.0, abs=0.2)
    assert found.alone == (math.inf if at == 1 else pytest.approx(1.0, abs=0.2))  # alone it is the first edit
    assert found.notes == {"count": float(at)}
    assert found.delta == "breaking/delta.safetensors"
    assert Edit.load(delta).id == found.edit_id
    assert bench.handle.fingerprint() == bench.handle.identity


def test_looking_for_the_edit_computes_none_again_and_leaves_the_model_as_it_was(bench: Bench, tmp_path: Path) -> None:
    calls: list[int] = []

    class Counted(Breaks):
        def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
            calls.append(int(requests[0].id[-1]))
            return super().edit(requests, carry)

    class Wanders(Counted):
        """Every edit depends on the weights that it finds, and breaks none of them for good."""

        def deltas(self, requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
            weight = self.handle.mlp_out(1).parameter
            value = self.handle.model.get_parameter(weight).detach() * 1.01
            return (Replace(weight, torch.full_like(value, math.nan) if count == self.at else value.nan_to_num(0.1)),)

    wanders = editor(Wanders, bench, tmp_path)
    wanders.at = 2  # type: ignore[attr-defined]
    searched = go(bench, wanders, course("sequential", every=2), stop=False, probes=(PRINTS,))
    assert calls == [0, 1, 1, 2, 3, 4, 5, 6]  # once more: alone
    quiet = go(bench, wanders, course("sequential", every=2), stop=False, probes=(PRINTS,), limit=math.inf)
    assert searched.breaking is not None
    assert quiet.breaking is None  # nothing is past infinity, so nothing was looked for
    assert values(searched, "prints") == values(quiet, "prints")


def test_a_hard_case_breaks_the_model_alone_as_well(bench: Bench, tmp_path: Path) -> None:
    hard = editor(Hard, bench, tmp_path)
    found = go(bench, hard, course("batch-sequential", sizes=(2,), every=6)).breaking
    assert found is not None
    assert (found.edits, [request.id for request in found.requests]) == (4, ["case-2", "case-3"])
    assert found.alone == math.inf


def test_batches_end_at_a_collapse_or_go_on_behind_it(bench: Bench, tmp_path: Path) -> None:
    hard = editor(Hard, bench, tmp_path)
    ended = go(bench, hard, course("batch", sizes=(2, 4, 6)))
    assert (ended.ended, [step.edits for step in ended.steps]) == ("collapsed", [2, 4])
    on = go(bench, hard, course("batch", sizes=(2, 4, 6)), stop=False)
    assert (on.ended, [step.edits for step in on.steps]) == ("complete", [2, 4, 6])
    for record in (ended, on):
        assert record.breaking is not None
        assert (record.breaking.edits, len(record.breaking.requests)) == (4, 4)
        found = record.breaking
        assert (found.ratio_before, found.ratio, found.alone) == (1.0, math.inf, math.inf)


# --------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("along", [course("batch", sizes=(1, 2, 3)), course()], ids=lambda one: one.schedule.kind)
@pytest.mark.parametrize(
    ("wrong", "failure", "said"), [(Fails, "editor", "half way through"), (Scribbles, "undeclared", "wte.weight")]
)
def test_what_an_editor_does_wrong_is_on_record_behind_the_steps_that_were_made(
    bench: Bench, tmp_path: Path, wrong: type[Push], failure: str, said: str, along: Case
) -> None:
    record = go(bench, editor(wrong, bench, tmp_path), along, limit=math.inf)
    assert record.ended == "failed"
    assert record.failure is not None
    assert (record.failure.kind, said in record.failure.message) == (failure, True)
    assert record.undeclared == (("transformer.wte.weight differs",) if failure == "undeclared" else ())
    assert len(record.steps) == 2
    assert bench.handle.fingerprint() == bench.handle.identity


def test_ctrl_c_and_what_cannot_be_committed_pass_through_and_the_model_comes_back(
    bench: Bench, tmp_path: Path
) -> None:
    seen: list[CaseRecord] = []
    with pytest.raises(KeyboardInterrupt):
        go(bench, editor(Stopped, bench, tmp_path), course(), limit=math.inf, on_step=seen.append)
    assert [len(record.steps) for record in seen] == [1, 2]

    def full(record: CaseRecord) -> None:
        raise StoreError("disk full")

    with pytest.raises(StoreError, match="disk full"):
        go(bench, editor(Push, bench, tmp_path), course(), limit=math.inf, on_step=full)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="checkpoint cannot be written"):
        go(bench, editor(Push, bench, tmp_path), course(), limit=math.inf, checkpoints=tmp_path / "file" / "x")
    assert bench.handle.fingerprint() == bench.handle.identity


def test_a_hook_that_an_editor_leaves_is_named(bench: Bench, tmp_path: Path) -> None:
    push = editor(Push, bench, tmp_path)
    plain = push.deltas

    def hooked(requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        push.handle.model.get_submodule(push.handle.block(0)).register_forward_hook(lambda *_: None)
        return plain(requests, count)

    push.deltas = hooked  # type: ignore[method-assign]
    (said,) = go(bench, push, course(), limit=math.inf).remarks
    assert "left something behind: 1 forward hooks left on transformer.h.0" in said


def test_what_the_traits_do_not_allow_is_refused_with_a_sentence(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="once cannot be applied on top of itself; give at most 1 request"):
        go(bench, editor(Once, bench, tmp_path), course())
    with pytest.raises(UsageError, match="alone edits one fact at a time; a batch of 3 cannot be given to it"):
        go(bench, editor(Alone, bench, tmp_path), course("batch", sizes=(3,)))
    with pytest.raises(UsageError, match="no request to edit"):
        go(bench, editor(Push, bench, tmp_path), course("sequential", ()))
    assert go(bench, editor(Once, bench, tmp_path), course("sequential", REQUESTS[:1]), limit=math.inf).steps
    batches = course("batch", sizes=(1, 3))  # each on the unedited model
    assert go(bench, editor(Once, bench, tmp_path), batches, limit=math.inf).ended == "complete"
    assert go(bench, editor(Alone, bench, tmp_path), course("batch", sizes=(1,)), limit=math.inf).steps
