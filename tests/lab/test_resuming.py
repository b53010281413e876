"""A walk that was stopped goes on to the same bytes; what cannot be used is said, and the course begun again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from editsafety import editors, tensor_files
from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor
from editsafety.edits.edit import Delta, Edit, Sidecar
from editsafety.lab import walk as module
from editsafety.lab.trial import Bench
from editsafety.lab.walk import walk
from editsafety.runs.course_record import CourseRecord
from editsafety.runs.schedule import Course
from tests import tiny
from tests.editors.conftest import NUMBERS, material
from tests.lab.test_walk import (
    NAMES,
    PRINTS,
    REQUESTS,
    TEXTS,
    Breaks,
    Fails,
    Push,
    bench_of,
    course,
    editor,
    timeless,
    values,
)


@pytest.fixture
def bench() -> Bench:
    return bench_of("gpt2")


# --------------------------------------------------------------------------------------------------------- going on


ALWAYS = ("rome", "ft", "memit", "alphaedit", "grace")  # with and without a carry, deltas of every kind, a sidecar
OTHERS = ("mend", "prune(rome)", "wise", "ike", "serac")
REAL = (*ALWAYS, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS))
FACTS = tuple(
    tiny.request(f"fact-{i}", subject=name, target_new=target)
    for i, (name, target) in enumerate(zip(NAMES, ("teacher", "baker", "farmer", "teacher", "baker"), strict=False))
)


def real(name: str, bench: Bench, place: Path) -> Editor:
    kind = editors.load(name)
    numbers = {**NUMBERS.get(kind.folder or name, {}), **kind.overrides, **material(kind, place)}
    made = kind(bench.handle, kind.Hparams(**numbers), ArtifactStore(place / "store"), name=name)
    made.prepare()
    return made


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
    whole = walk(bench, stacks, along, **rest)
    assert len(set(values(whole, "prints"))) == 3
    assert len(tensor_files.load(place)[1]["sidecars"]) == 6  # at the last step but one
    record = walk(bench, stacks, along, known=whole.up_to(2), **rest)
    assert timeless(record).to_text() == timeless(whole).to_text()
    assert record.remarks == ()


class Killed(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize("name", REAL)
def test_a_walk_that_was_killed_goes_on_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    bench = bench_of("gpt2")
    along, place = course("sequential", FACTS, every=2), tmp_path / "point.safetensors"
    rest: dict[str, Any] = {"limit": math.inf, "probes": (PRINTS,)}
    whole = walk(bench, real(name, bench, tmp_path), along, **rest)
    assert [step.edits for step in whole.steps] == [2, 4, 5]
    assert len(set(values(whole, "prints"))) == 3, "the edits do nothing"
    for kill_at in ("between the record and its checkpoint", "in the next edit"):
        kept: list[CourseRecord] = []

        def commit(now: CourseRecord, kept: list[CourseRecord] = kept, kill_at: str = kill_at) -> None:
            kept.append(now)
            if len(now.steps) == 2 and kill_at.startswith("between"):
                raise Killed

        dying = real(name, bench, tmp_path)
        if kill_at.startswith("in"):
            edit: Any = dying.edit

            def dies(requests: Sequence[EditRequest], carry: Any = None, edit: Any = edit) -> Edit:
                if requests[0].id == "fact-4":
                    raise Killed
                found: Edit = edit(requests) if carry is None else edit(requests, carry)
                return found

            dying.edit = dies  # type: ignore[method-assign]
        with pytest.raises(Killed):
            walk(bench, dying, along, checkpoints=place, on_step=commit, **rest)
        known = CourseRecord.from_text(kept[-1].to_text())  # as the store gives it back
        assert len(known.steps) == 2
        fresh = bench_of("gpt2")
        record = walk(fresh, real(name, fresh, tmp_path), along, known=known, checkpoints=place, **rest)
        assert timeless(record).to_text() == timeless(whole).to_text()


def halfway(bench: Bench, place: Path, along: Course, **more: Any) -> CourseRecord:
    """A walk of Push that died behind its second step."""
    kept: list[CourseRecord] = []
    push = editor(Push, bench, place)
    plain = push.deltas

    def dies(requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        if count == 5:
            raise Killed
        return plain(requests, count)

    push.deltas = dies  # type: ignore[method-assign]
    with pytest.raises(Killed):
        walk(bench, push, along, on_step=kept.append, **more)
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
    record = walk(bench, editor(Push, bench, tmp_path), along, known=known, **rest)
    again = walk(bench, editor(Push, bench, tmp_path), along, **rest)
    (remark,) = record.remarks
    assert said in remark
    assert remark.startswith(f"begun again after {known.steps[-1].edits} edits")
    assert record.ended == "complete"
    assert values(record, "prints") == values(again, "prints")


def test_a_course_that_has_ended_is_not_walked_again(bench: Bench, tmp_path: Path) -> None:
    record = walk(bench, editor(Push, bench, tmp_path), course(), limit=math.inf)
    dead = editor(Fails, bench, tmp_path)
    assert walk(bench, dead, course(), known=record, limit=math.inf) is record


def test_edits_apart_go_on_behind_the_last_step(bench: Bench, tmp_path: Path) -> None:
    push = editor(Push, bench, tmp_path)
    whole = walk(bench, push, course("single"), limit=math.inf)
    on = walk(bench, push, course("single"), limit=math.inf, known=whole.up_to(3))
    assert timeless(on).to_text() == timeless(whole).to_text()


def test_a_breaking_edit_behind_the_checkpoint_is_found_again(bench: Bench, tmp_path: Path) -> None:
    breaks = editor(Breaks, bench, tmp_path)
    breaks.at = 4  # type: ignore[attr-defined]
    whole = walk(bench, breaks, course("sequential", every=2), stop=False)
    assert whole.up_to(2).breaking == whole.breaking
    assert whole.up_to(1).breaking is None


def test_the_default_limit_is_that_of_the_default_policy() -> None:
    from editsafety.judging.policy import Policy

    assert Policy.read("default").collapse == module.LIMIT
