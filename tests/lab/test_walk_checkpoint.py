"""A walk that was stopped goes on to the same bytes; what cannot be used is said, and the course begun again."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from editsafety import tensor_files
from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Delta, Edit, Sidecar
from editsafety.lab.bench import Bench
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord
from tests import tiny
from tests.lab.walking import (
    FACTS,
    PRINTS,
    REQUESTS,
    TEXTS,
    Breaks,
    Fails,
    Push,
    bench_of,
    course,
    editor,
    go,
    real,
    timeless,
    values,
)


@pytest.fixture
def bench() -> Bench:
    return bench_of("gpt2")


# --------------------------------------------------------------------------------------------------------- going on


ALWAYS = ("rome", "ft", "memit", "alphaedit", "grace")  # with and without a carry, deltas of every kind, a sidecar
OTHERS = ("mend", "prune(rome)", "wise", "ike", "serac")
REAL = (*ALWAYS, *(pytest.param(name, marks=pytest.mark.thorough) for name in OTHERS))


class Louder(Sidecar):
    """Scales what its target returns. It has no lineage: every one that was applied goes on running."""

    kind = "louder"

    def __init__(self, target: str, factor: Tensor) -> None:
        self.target, self.factor = target, factor

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        return output * self.factor

    def tensors(self) -> Mapping[str, Tensor]:
        return {"factor": self.factor}

    def settings(self) -> Mapping[str, Any]:
        return {}

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        return cls(target, tensors["factor"])


class Stacks(Push):
    """Every edit puts one more sidecar on top."""

    sidecars = {Louder.kind: Louder}

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        car = Louder(self.handle.mlp_out(1).module, torch.tensor(1.1))
        return Edit(self.name, tuple(request.id for request in requests), self.handle.identity, sidecars=(car,))


def test_sidecars_that_stack_are_all_there_again(bench: Bench, tmp_path: Path) -> None:
    stacks, place = editor(Stacks, bench, tmp_path), tmp_path / "point.safetensors"
    rest: dict[str, Any] = {"limit": math.inf, "probes": (PRINTS,), "checkpoints": place}
    along = course("sequential", every=3)
    whole = go(bench, stacks, along, **rest)
    assert len(set(values(whole, "prints"))) == 3
    assert len(tensor_files.load(place)[1]["sidecars"]) == 6  # at the last step but one
    record = go(bench, stacks, along, known=whole.up_to(2), **rest)
    assert timeless(record).to_text() == timeless(whole).to_text()
    assert record.remarks == ()


class Killed(BaseException):
    """What nothing catches, as it comes from a signal and not from an editor."""


@pytest.fixture(autouse=True)
def dies_of_sigterm() -> Iterator[None]:
    """SIGTERM raises Killed where the process is just then."""

    def die(*_: object) -> None:
        raise Killed

    before = signal.signal(signal.SIGTERM, die)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("name", REAL)
def test_a_walk_that_was_killed_goes_on_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    bench = bench_of("gpt2")
    along, place = course("sequential", FACTS, every=2), tmp_path / "point.safetensors"
    rest: dict[str, Any] = {"limit": math.inf, "probes": (PRINTS,)}
    whole = go(bench, real(name, bench, tmp_path), along, **rest)
    assert [step.edits for step in whole.steps] == [2, 4, 5]
    assert len(set(values(whole, "prints"))) == 3, "the edits do nothing"
    for kill_at in ("between the record and its checkpoint", "in the next edit"):
        kept: list[CaseRecord] = []

        def commit(now: CaseRecord, kept: list[CaseRecord] = kept, kill_at: str = kill_at) -> None:
            kept.append(now)
            if len(now.steps) == 2 and kill_at.startswith("between"):
                signal.raise_signal(signal.SIGTERM)

        dying = real(name, bench, tmp_path)
        if kill_at.startswith("in"):
            edit: Any = dying.edit

            def dies(requests: Sequence[EditRequest], carry: Any = None, edit: Any = edit) -> Edit:
                if requests[0].id == "fact-4":
                    signal.raise_signal(signal.SIGTERM)
                found: Edit = edit(requests) if carry is None else edit(requests, carry)
                return found

            dying.edit = dies  # type: ignore[method-assign]
        with pytest.raises(Killed):
            go(bench, dying, along, checkpoints=place, on_step=commit, **rest)
        known = CaseRecord.from_text(kept[-1].to_text())  # as the store gives it back
        assert len(known.steps) == 2
        fresh = bench_of("gpt2")
        record = go(fresh, real(name, fresh, tmp_path), along, known=known, checkpoints=place, **rest)
        assert timeless(record).to_text() == timeless(whole).to_text()


def halfway(bench: Bench, place: Path, along: Case, **more: Any) -> CaseRecord:
    """A walk of Push that died behind its second step."""
    kept: list[CaseRecord] = []
    push = editor(Push, bench, place)
    plain = push.deltas

    def dies(requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        if count == 5:
            signal.raise_signal(signal.SIGTERM)
        return plain(requests, count)

    push.deltas = dies  # type: ignore[method-assign]
    with pytest.raises(Killed):
        go(bench, push, along, on_step=kept.append, **more)
    return kept[-1]


@pytest.mark.parametrize("harm", ["a byte", "the file", "another course", "another step", "another model"])
def test_a_checkpoint_that_cannot_be_used_is_named_and_the_course_begun_again(
    bench: Bench, tmp_path: Path, harm: str
) -> None:
    along, place = course("sequential", every=2), tmp_path / "point.safetensors"
    rest: dict[str, Any] = {"limit": math.inf, "probes": (PRINTS,), "checkpoints": place}
    known = halfway(bench, tmp_path, along, **rest)
    said = "belongs to another course"
    if harm == "a byte":
        data = bytearray(place.read_bytes())
        data[-3] ^= 1
        place.write_bytes(bytes(data))
        said = "was altered after it was written"
    elif harm == "the file":
        place.unlink()
        said = "there is no such file"
    elif harm == "another course":
        along = replace(along, requests=tuple(reversed(REQUESTS)))
    elif harm == "another step":
        known = known.up_to(1)
        said = "is of step 2, which is not on record"
    else:
        bench = Bench(tiny.handle("gpt2", seed=5), TEXTS, (), 8, bench.keepsake)
        bench.measure_base()
    record = go(bench, editor(Push, bench, tmp_path), along, known=known, **rest)
    again = go(bench, editor(Push, bench, tmp_path), along, **rest)
    (remark,) = record.remarks
    assert said in remark
    assert remark.startswith(f"begun again after {known.steps[-1].edits} edits")
    assert record.ended == "complete"
    assert values(record, "prints") == values(again, "prints")


def test_a_course_that_has_ended_is_not_walked_again(bench: Bench, tmp_path: Path) -> None:
    record = go(bench, editor(Push, bench, tmp_path), course(), limit=math.inf)
    dead = editor(Fails, bench, tmp_path)
    assert go(bench, dead, course(), known=record, limit=math.inf) is record


def test_edits_apart_go_on_behind_the_last_step(bench: Bench, tmp_path: Path) -> None:
    push = editor(Push, bench, tmp_path)
    batches = course("batch", sizes=(1, 2, 3, 5))
    whole = go(bench, push, batches, limit=math.inf)
    assert len(whole.steps) == 4
    on = go(bench, push, batches, limit=math.inf, known=whole.up_to(3))
    assert timeless(on).to_text() == timeless(whole).to_text()


def test_a_breaking_edit_behind_the_checkpoint_is_found_again(bench: Bench, tmp_path: Path) -> None:
    breaks = editor(Breaks, bench, tmp_path)
    breaks.at = 4  # type: ignore[attr-defined]
    whole = go(bench, breaks, course("sequential", every=2), stop=False)
    assert whole.up_to(2).breaking == whole.breaking
    assert whole.up_to(1).breaking is None
