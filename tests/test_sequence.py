"""Edits on top of each other: what is measured, when it ends, and that the model comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from editsafety.artifacts import ArtifactStore
from editsafety.edit import Edit, LowRank
from editsafety.editors import Editor, Traits
from editsafety.errors import UsageError
from editsafety.hparams import Hparams
from editsafety.request import EditRequest
from editsafety.seal import Keepsake, Seal
from editsafety.sequence import Step, Walk, walk
from editsafety.session import EditSession
from editsafety.trial import Bench
from tests import tiny

TEXTS = ("The quick brown fox jumps over the lazy dog.", "A farmer grows wheat. A baker bakes bread.")
REQUESTS = tuple(
    tiny.request(f"case-{i}", subject=name) for i, name in enumerate(("Ashurn", "Mirel", "Toren", "Ostrin"))
)


class Push(Editor):
    """Adds the same direction again and again; what it carries counts its edits."""

    Hparams = Hparams
    traits = Traits(batch=True)
    size = 0.01

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        site = self.handle.mlp_out(1)
        count = int(carry["count"]) + 1 if carry else 1
        left = torch.linspace(0.5, 1.5, site.d_out)[:, None] * self.size * count
        delta = LowRank(site, left, torch.ones(1, site.d_in))
        ids = tuple(request.id for request in requests)
        return Edit(self.name, ids, self.handle.identity, (delta,), carry={"count": torch.tensor(count)})


class Shove(Push):
    """Breaks the model: a random one has no perplexity to lose, so only what is not a number does it."""

    size = float("nan")


class Once(Push):
    traits = Traits(sequential=False)


@pytest.fixture
def bench() -> Bench:
    handle = tiny.handle("gpt2")
    made = Bench(handle, TEXTS, (), 8, Keepsake.of(handle))
    made.measure_base()
    return made


def editor(kind: type[Push], bench: Bench, place: Path) -> Push:
    return kind(bench.handle, Hparams(), ArtifactStore(place), name=kind.__name__.lower())


def test_every_edit_lies_on_the_ones_before_and_gets_what_the_last_one_carries(bench: Bench, tmp_path: Path) -> None:
    push = editor(Push, bench, tmp_path)
    weight = bench.handle.mlp_out(1).parameter
    before = bench.handle.model.get_parameter(weight).detach().clone()
    seen = []
    for _ in walk(bench, push, REQUESTS, every=1):
        now = bench.handle.model.get_parameter(weight).detach()
        seen.append(float((now - before).mean()))
    assert seen == pytest.approx([0.01, 0.03, 0.06, 0.10], rel=1e-3)  # 1, 1 + 2, 1 + 2 + 3, ... hundredths


def test_a_step_is_measured_after_every_so_many_edits_and_at_the_end(bench: Bench, tmp_path: Path) -> None:
    steps = list(walk(bench, editor(Push, bench, tmp_path), REQUESTS, every=3))
    assert [step.edits for step in steps] == [3, 4]
    batches = list(walk(bench, editor(Push, bench, tmp_path), REQUESTS, every=1, size=3))
    assert [step.edits for step in batches] == [3, 4]


def test_the_ratio_is_that_of_the_edited_to_the_unedited_perplexity(bench: Bench, tmp_path: Path) -> None:
    push = editor(Push, bench, tmp_path)
    (step,) = walk(bench, push, REQUESTS[:1])
    with EditSession(bench.handle) as session:
        session.apply(push.edit(REQUESTS[:1]))
        after = bench.measures[[m.name for m in bench.measures].index("perplexity")](bench.handle, bench.inputs(None))
    assert step.ratio == pytest.approx((after[0].value or 0) / (bench.base["me_ppl"].value or 1))


def test_a_walk_ends_where_the_model_breaks_and_the_model_comes_back(bench: Bench, tmp_path: Path) -> None:
    seal = Seal.of(bench.handle)
    steps = list(walk(bench, editor(Shove, bench, tmp_path), REQUESTS, every=1, stop=2.0))
    assert [step.edits for step in steps] == [1]
    assert steps[0].broken(2.0)
    assert seal.changed(Seal.of(bench.handle)) == ()
    assert len(list(walk(bench, editor(Shove, bench, tmp_path), REQUESTS, every=1))) == 4


def test_a_walk_that_is_left_half_way_gives_the_model_back(bench: Bench, tmp_path: Path) -> None:
    seal = Seal.of(bench.handle)
    going = walk(bench, editor(Push, bench, tmp_path), REQUESTS, every=1)
    next(going)
    assert seal.changed(Seal.of(bench.handle)) != ()
    going.close()  # type: ignore[attr-defined]
    assert seal.changed(Seal.of(bench.handle)) == ()


def test_what_the_traits_do_not_allow_is_refused(bench: Bench, tmp_path: Path) -> None:
    once = editor(Once, bench, tmp_path)
    with pytest.raises(UsageError, match="one fact at a time"):
        next(walk(bench, once, REQUESTS, size=2))
    with pytest.raises(UsageError, match="on top of itself"):
        next(walk(bench, once, REQUESTS))
    assert [step.edits for step in walk(bench, once, REQUESTS[:1])] == [1]


def test_what_is_not_a_number_is_broken() -> None:
    assert Step(1, math.nan, 0.0, 0.0, 0.1).broken(2.0)
    assert Step(1, math.inf, 0.0, 0.0, 0.1).broken(2.0)
    steps = (Step(10, 1.5, 1.0, 1.0, 0.1), Step(20, 3.0, 0.0, 0.5, 0.1), Step(30, 1.2, 0.0, 0.3, 0.1))
    assert Walk("m", "e", steps).breaks_at(2.0) == 20
    assert Walk("m", "e", steps).breaks_at(5.0) is None
