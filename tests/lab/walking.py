"""Editors whose edits are known by hand, for walks and attempts on a tiny model, and how to walk along with them."""

from __future__ import annotations

import hashlib
import math
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor, Traits
from editsafety.edits.baseline import Baseline
from editsafety.edits.edit import Delta, Edit, LowRank, Replace
from editsafety.edits.seal import Keepsake
from editsafety.hyperparameters import Hparams
from editsafety.lab.attempt import compute
from editsafety.lab.bench import Bench
from editsafety.lab.terms import Terms
from editsafety.lab.walk import walk
from editsafety.measures import AbilityProbe
from editsafety.model.handle import ModelHandle
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord, Cost
from editsafety.runs.measurement import Measurement
from editsafety.runs.schedule import Kind, Schedule
from tests import tiny
from tests.editors.conftest import NUMBERS, material

TEXTS = ("The quick brown fox jumps over the lazy dog.", "A farmer grows wheat. A baker bakes bread.")
NAMES = ("Ashurn", "Mirel", "Toren", "Ostrin", "Kelmar", "Dorvan", "Velland")
REQUESTS = tuple(tiny.request(f"case-{i}", subject=name) for i, name in enumerate(NAMES))
FACTS = tuple(
    tiny.request(f"fact-{i}", subject=name, target_new=target)
    for i, (name, target) in enumerate(zip(NAMES, ("teacher", "baker", "farmer", "teacher", "baker"), strict=False))
)


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


class Fails(Push):
    """Does something wrong at its third edit, or with one request, or with a batch that large."""

    def wrong(self) -> None:
        raise RuntimeError("half way through")

    def deltas(self, requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        if count == 3 or requests[0].id == "case-2" or len(requests) == 3:
            self.wrong()
        return super().deltas(requests, count)


class Scribbles(Fails):
    """Writes into the weights by itself."""

    def wrong(self) -> None:
        with torch.no_grad():
            self.handle.model.get_input_embeddings().weight[0, 0] += 1.0


class Stopped(Fails):
    """Somebody presses Ctrl-C."""

    def wrong(self) -> None:
        signal.raise_signal(signal.SIGINT)


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


def bench_of(family: str = "gpt2", **more: Any) -> Bench:
    """A bench of a fresh tiny model, measured unedited."""
    handle = tiny.handle(family, **more)
    bench = Bench(handle, TEXTS, (), 8, Keepsake.of(handle))
    bench.measure_base()
    bench.baseline = Baseline.of(handle)
    return bench


def editor(kind: type[Push], bench: Bench, place: Path) -> Push:
    """An editor of one of the kinds above."""
    return kind(bench.handle, Hparams(), ArtifactStore(place), name=kind.__name__.lower())


def real(name: str, bench: Bench, place: Path) -> Editor:
    """A shipped editor with hyperparameters for a tiny model, ready to edit."""
    kind = editors.load(name)
    numbers = {**NUMBERS.get(kind.folder or name, {}), **kind.overrides, **material(kind, place)}
    made = kind(bench.handle, kind.Hparams(**numbers), ArtifactStore(place / "store"), name=name)
    made.prepare()
    return made


def course(kind: Kind = "sequential", requests: Sequence[EditRequest] = REQUESTS, **more: Any) -> Case:
    """A course of a kind over these requests."""
    return Case("tiny-gpt2", "push", "normal", tuple(requests), Schedule(kind, **more))


def go(
    bench: Bench,
    along: Editor,
    case: Case,
    *,
    limit: float = 2.0,
    stop: bool = True,
    probes: Sequence[AbilityProbe] = (),
    **more: Any,
) -> CaseRecord:
    """Walk a course with every edit computed on the spot."""
    terms = Terms(limit, stop, probes)
    return walk(bench, along, case, terms, lambda requests: compute(bench.handle, along, requests), **more)


def timeless(record: CaseRecord) -> CaseRecord:
    """A record without seconds and bytes: what must be equal however a case was run."""
    return replace(record, steps=tuple(replace(step, cost=Cost()) for step in record.steps))


def values(record: CaseRecord, name: str) -> list[float | None]:
    """A figure along the steps."""
    return [step.found[name].value for step in record.steps]
