"""Walks: what is measured along a course, which edit breaks a model, and how a killed walk goes on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor, Traits
from editsafety.edits.edit import Delta, Edit, LowRank, Replace
from editsafety.edits.seal import Keepsake, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import StoreError, UsageError
from editsafety.hyperparameters import Hparams
from editsafety.lab.trial import Bench
from editsafety.lab.walk import walk
from editsafety.lab.walk_bisection import crossing
from editsafety.model.handle import ModelHandle
from editsafety.runs.course_record import CourseRecord
from editsafety.runs.measurement import Measurement
from editsafety.runs.schedule import Course, Kind, Schedule
from tests import tiny

TEXTS = ("The quick brown fox jumps over the lazy dog.", "A farmer grows wheat. A baker bakes bread.")
NAMES = ("Ashurn", "Mirel", "Toren", "Ostrin", "Kelmar", "Dorvan", "Velland")
REQUESTS = tuple(tiny.request(f"case-{i}", subject=name) for i, name in enumerate(NAMES))


class Push(Editor):
    """Adds the same direction again and again; what it carries counts its edits."""

    Hparams = Hparams
    traits = Traits(batch=True)

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        count = int(carry["count"]) + 1 if carry else 1
        ids = tuple(request.id for request in requests)
        deltas, notes = self.deltas(requests, count), {"count": float(count)}
        return Edit(self.name, ids, self.handle.identity, deltas, notes=notes, carry={"count": torch.tensor(count)})

    def deltas(self, requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        return (self.along(0.01 * count),)

    def along(self, size: float) -> LowRank:
        site = self.handle.mlp_out(1)
        left = torch.linspace(0.5, 1.5, site.d_out)[:, None] * size
        return LowRank(site, left, torch.ones(1, site.d_in))


class Breaks(Push):
    """Breaks the model with the `at`-th edit of a course, harmless alone: not a number times 0 is harmless, too."""

    at = 1

    def deltas(self, requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        return (self.along(math.nan if count == self.at else 0.01),)


class Hard(Push):
    """Breaks the model with one request, whatever came before."""

    hard = "case-3"

    def deltas(self, requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        return (self.along(math.nan if self.hard in [request.id for request in requests] else 0.01),)


class Parrot(Push):
    """Makes the model say the last target and nothing else: what was said before is forgotten."""

    def deltas(self, requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        (token,) = self.handle.target_ids(requests[-1].target_new)
        words = self.handle.model.get_input_embeddings().weight.detach()
        norm = "transformer.ln_f"
        loud = words[token] * 100 / words[token].norm()
        return Replace(f"{norm}.weight", torch.zeros_like(loud)), Replace(f"{norm}.bias", loud)


class Recovers(Push):
    """The second edit breaks the model, the third one mends it."""

    def deltas(self, requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        weight = self.handle.mlp_out(1).parameter
        value = self.handle.model.get_parameter(weight).detach()
        return (Replace(weight, torch.full_like(value, math.nan) if count == 2 else torch.ones_like(value) * 1e-3),)


class Once(Push):
    traits = Traits(sequential=False)


class Alone(Push):
    traits = Traits(batch=False)


class Fails(Push):
    """Does something wrong at its third edit."""

    def wrong(self) -> None:
        raise RuntimeError("half way through")

    def deltas(self, requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        if count == 3 or requests[0].id == "case-2":
            self.wrong()
        return super().deltas(requests, count)


class Scribbles(Fails):
    def wrong(self) -> None:
        with torch.no_grad():
            self.handle.model.get_input_embeddings().weight[0, 0] += 1.0


class Stopped(Fails):
    def wrong(self) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def bench() -> Bench:
    return bench_of("gpt2")


def bench_of(family: str) -> Bench:
    handle = tiny.handle(family)
    made = Bench(handle, TEXTS, (), 8, Keepsake.of(handle))
    made.measure_base()
    return made


def editor(kind: type[Push], bench: Bench, place: Path) -> Push:
    return kind(bench.handle, Hparams(), ArtifactStore(place), name=kind.__name__.lower())


def course(kind: Kind = "sequential", requests: Sequence[EditRequest] = REQUESTS, **more: Any) -> Course:
    return Course("tiny-gpt2", "push", "normal", Schedule(kind, **more), tuple(requests))


class Prints:
    """A probe: the first bytes of a sha256 over weights and logits. Equal numbers, equal models."""

    name = "prints"

    def __call__(self, handle: ModelHandle, batch_size: int) -> Measurement:
        prompts = [handle.ids(request.filled) for request in REQUESTS]
        with torch.no_grad():
            logits = [handle.logits(handle.batch([prompt])).numpy().tobytes() for prompt in prompts]
        body = handle.fingerprint().encode() + b"".join(logits)
        return Measurement("prints", 1, "hash", float(int(hashlib.sha256(body).hexdigest()[:12], 16)), n=1)


PRINTS = Prints()


def timeless(record: CourseRecord) -> CourseRecord:
    """A record without seconds and bytes: what must be equal however a course was walked."""
    return replace(record, steps=tuple(replace(step, seconds=None, peak_bytes=None) for step in record.steps))


def values(record: CourseRecord, name: str) -> list[float | None]:
    return [step.found[name].value for step in record.steps]


# -------------------------------------------------------------------------------------------------- what is measured


def test_every_edit_lies_on_the_ones_before_and_gets_what_the_last_one_carries(bench: Bench, tmp_path: Path) -> None:
    weight = bench.handle.mlp_out(1).parameter
    before = bench.handle.model.get_parameter(weight).detach().clone()

    class Mean:
        name = "mean"

        def __call__(self, handle: ModelHandle, batch_size: int) -> Measurement:
            now = handle.model.get_parameter(weight).detach()
            return Measurement("mean", 1, "1", float((now - before).mean()), n=1)

    record = walk(bench, editor(Push, bench, tmp_path), course(), limit=math.inf, probes=(Mean(),))
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
        (Schedule("single"), [1] * 7, [1] * 7),
        (Schedule("batch", (2, 5)), [2, 5], [2, 5]),
    ],
    ids=str,
)
def test_steps_are_where_the_schedule_says_and_name_their_requests(
    bench: Bench, tmp_path: Path, schedule: Schedule, edits: list[int], blocks: list[int]
) -> None:
    seen: list[int] = []
    along = replace(course(), schedule=schedule)
    commit: Callable[[CourseRecord], None] = lambda now: seen.append(len(now.steps))  # noqa: E731
    record = walk(bench, editor(Push, bench, tmp_path), along, limit=math.inf, on_step=commit)
    assert [step.edits for step in record.steps] == edits
    assert [len(step.block) for step in record.steps] == blocks
    assert seen == list(range(1, len(edits) + 1))
    assert record.planned == 7
    if schedule.cumulative:
        assert [name for step in record.steps for name in step.block] == [request.id for request in REQUESTS]


@pytest.mark.parametrize("kind", ["single", "batch", "sequential", "batch-sequential"])
def test_the_figures_are_those_of_the_edited_model_and_the_model_comes_back(
    bench: Bench, tmp_path: Path, kind: Kind
) -> None:
    seal, push = Seal.of(bench.handle), editor(Push, bench, tmp_path)
    sizes = (2,) if "batch" in kind else (1,)
    record = walk(bench, push, course(kind, REQUESTS[:4], sizes=sizes), limit=math.inf, probes=(PRINTS,))
    assert seal.changed(Seal.of(bench.handle)) == ()
    first = REQUESTS[: sizes[0]]
    with EditSession(bench.handle) as session:
        session.apply(push.edit(first))
        after = {
            one.name: one for m in bench.measures if m.scope == "model" for one in m(bench.handle, bench.inputs(None))
        }
        assert record.steps[0].found["prints"] == PRINTS(bench.handle, 8)
    step = record.steps[0]
    assert step.found["me_ppl"] == after["me_ppl"]
    assert step.ratio(record.before) == pytest.approx((after["me_ppl"].value or 0) / (bench.base["me_ppl"].value or 1))
    assert step.found["drift_relative"].value is not None
    if kind in ("single", "batch"):
        again = [one.found["prints"].value for one in record.steps]
        assert len(set(again)) == 1  # the same edit on the same model, again and again


def test_recent_and_kept_are_the_exact_match_of_efficacy_and_forgetting_shows(bench: Bench, tmp_path: Path) -> None:
    words = [word for word in ("a", "the", "in", "of", "works", "farmer") if len(bench.handle.target_ids(word)) == 1]
    assert len(words) >= 2, words
    one, two = words[:2]
    said = [one, one, two, two, two, one]
    requests = [replace(request, target_new=word) for request, word in zip(REQUESTS, said, strict=False)]
    along = course("sequential", requests, every=2)
    record = walk(bench, editor(Parrot, bench, tmp_path), along, limit=math.inf, stop=False)
    # By hand: after "one one" all is kept; after "two two" the first two are lost; after "two one" the ones are back.
    assert values(record, "recent") == [1.0, 1.0, 0.5]
    assert values(record, "kept") == [1.0, 0.5, 0.5]
    assert record.steps[1].found["kept"].items == (0.0, 0.0, 1.0, 1.0)
    assert record.steps[2].found["kept"].n == 6
    assert record.steps[1].found["recent"].answers[0].startswith(f" {two}")
    assert record.steps[0].found["locality"].value == 0.0  # every neighbour is answered with the target now


def test_neighbours_are_compared_with_what_the_unedited_model_says_of_them(bench: Bench, tmp_path: Path) -> None:
    gentle = editor(Push, bench, tmp_path)
    gentle.deltas = lambda requests, count: (gentle.along(1e-9),)  # type: ignore[method-assign]
    record = walk(bench, gentle, course("sequential", every=3), limit=math.inf)
    assert values(record, "locality") == [1.0, 1.0, 1.0]
    assert [step.found["locality"].n for step in record.steps] == [3, 3, 1]


# --------------------------------------------------------------------------------------------------- when it breaks


def test_a_course_ends_at_the_collapse_or_goes_on_and_keeps_the_running_maximum(bench: Bench, tmp_path: Path) -> None:
    recovers = editor(Recovers, bench, tmp_path)
    ended = walk(bench, recovers, course())
    assert (ended.ended, [step.edits for step in ended.steps]) == ("collapsed", [1, 2])
    on = walk(bench, recovers, course(), stop=False)
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
    record = walk(bench, breaks, course("sequential", every=every), delta=delta, probes=(PRINTS,))
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
    searched = walk(bench, wanders, course("sequential", every=2), stop=False, probes=(PRINTS,))
    assert calls == [0, 1, 1, 2, 3, 4, 5, 6]  # once more: alone
    quiet = walk(bench, wanders, course("sequential", every=2), stop=False, probes=(PRINTS,), limit=math.inf)
    assert searched.breaking is not None
    assert quiet.breaking is None  # nothing is past infinity, so nothing was looked for
    assert values(searched, "prints") == values(quiet, "prints")


def test_a_hard_case_breaks_the_model_alone_as_well(bench: Bench, tmp_path: Path) -> None:
    hard = editor(Hard, bench, tmp_path)
    found = walk(bench, hard, course("batch-sequential", sizes=(2,), every=6)).breaking
    assert found is not None
    assert (found.edits, [request.id for request in found.requests]) == (4, ["case-2", "case-3"])
    assert found.alone == math.inf


def test_single_edits_go_on_behind_a_collapse_and_batches_end_there(bench: Bench, tmp_path: Path) -> None:
    hard = editor(Hard, bench, tmp_path)
    single = walk(bench, hard, course("single"))
    assert (single.ended, len(single.steps)) == ("complete", 7)
    assert single.breaking is not None
    assert single.breaking.requests[0].id == "case-3"
    assert (single.breaking.ratio_before, single.breaking.ratio, single.breaking.alone) == (1.0, math.inf, math.inf)
    batch = walk(bench, hard, course("batch", sizes=(2, 4, 6)))
    assert (batch.ended, [step.edits for step in batch.steps]) == ("collapsed", [2, 4])
    assert batch.breaking is not None
    assert len(batch.breaking.requests) == 4


@pytest.mark.parametrize("count", range(1, 10))
def test_bisection_finds_every_crossing_in_log_many_looks(count: int) -> None:
    for at in range(1, count + 1):
        asked: list[int] = []

        def ratio(k: int, at: int = at, asked: list[int] = asked) -> float:
            asked.append(k)
            return 3.0 + k if k >= at else 1.0 + k / 100

        found = crossing(count, ratio, limit=2.0, fine=1.0, broken=3.0 + count)
        assert (found[0], found[2]) == (at, 3.0 + at)
        assert found[1] == pytest.approx(1.0 + (at - 1) / 100)
        assert len(asked) <= math.ceil(math.log2(count))


def test_where_perplexity_falls_again_bisection_still_finds_an_edit_that_takes_it_past_the_limit() -> None:
    ratios = [1.0, 1.1, 9.0, 1.2, 1.3, 1.4, math.nan, 8.0]
    at, fine, broken = crossing(7, lambda k: ratios[k], limit=2.0, fine=1.0, broken=8.0)
    assert fine == ratios[at - 1] <= 2.0
    assert not ratios[at] <= 2.0
    assert math.isnan(broken)


# --------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("kind", ["single", "sequential"])
@pytest.mark.parametrize(
    ("wrong", "failure", "said"), [(Fails, "editor", "half way through"), (Scribbles, "undeclared", "wte.weight")]
)
def test_what_an_editor_does_wrong_is_on_record_behind_the_steps_that_were_made(
    bench: Bench, tmp_path: Path, wrong: type[Push], failure: str, said: str, kind: Kind
) -> None:
    record = walk(bench, editor(wrong, bench, tmp_path), course(kind), limit=math.inf)
    assert record.ended == "failed"
    assert record.failure is not None
    assert (record.failure.kind, said in record.failure.message) == (failure, True)
    assert len(record.steps) == 2
    assert bench.handle.fingerprint() == bench.handle.identity


def test_ctrl_c_and_what_cannot_be_committed_pass_through_and_the_model_comes_back(
    bench: Bench, tmp_path: Path
) -> None:
    seen: list[CourseRecord] = []
    with pytest.raises(KeyboardInterrupt):
        walk(bench, editor(Stopped, bench, tmp_path), course(), limit=math.inf, on_step=seen.append)
    assert [len(record.steps) for record in seen] == [1, 2]

    def full(record: CourseRecord) -> None:
        raise StoreError("disk full")

    with pytest.raises(StoreError, match="disk full"):
        walk(bench, editor(Push, bench, tmp_path), course(), limit=math.inf, on_step=full)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="checkpoint cannot be written"):
        walk(bench, editor(Push, bench, tmp_path), course(), limit=math.inf, checkpoints=tmp_path / "file" / "x")
    assert bench.handle.fingerprint() == bench.handle.identity


def test_a_hook_that_an_editor_leaves_is_named(bench: Bench, tmp_path: Path) -> None:
    push = editor(Push, bench, tmp_path)
    plain = push.deltas

    def hooked(requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        push.handle.model.get_submodule(push.handle.block(0)).register_forward_hook(lambda *_: None)
        return plain(requests, count)

    push.deltas = hooked  # type: ignore[method-assign]
    (said,) = walk(bench, push, course(), limit=math.inf).remarks
    assert "left something behind: 1 forward hooks left on transformer.h.0" in said


def test_what_the_traits_do_not_allow_is_refused_with_a_sentence(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="once cannot be applied on top of itself; give at most 1 request"):
        walk(bench, editor(Once, bench, tmp_path), course())
    with pytest.raises(UsageError, match="alone edits one fact at a time; a batch of 3 cannot be given to it"):
        walk(bench, editor(Alone, bench, tmp_path), course("batch", sizes=(3,)))
    with pytest.raises(UsageError, match="no request to edit"):
        walk(bench, editor(Push, bench, tmp_path), course("single", ()))
    assert walk(bench, editor(Once, bench, tmp_path), course("sequential", REQUESTS[:1]), limit=math.inf).steps
    assert walk(bench, editor(Once, bench, tmp_path), course("single"), limit=math.inf).ended == "complete"
    assert walk(bench, editor(Alone, bench, tmp_path), course("batch", sizes=(1,)), limit=math.inf).steps
