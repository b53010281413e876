"""Traces several facts; each that is finished is kept among the artifacts, so an interrupted trace goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from editsafety.artifacts import ArtifactKey, ArtifactStore
from editsafety.model.handle import ModelHandle
from editsafety.progress import Progress
from editsafety.research.tracing.effects import KINDS, CausalTrace, TracedFact
from editsafety.research.tracing.facts import CLASSES, KnownFact
from editsafety.research.tracing.runs import DEVIATIONS, Protocol, seconds_of, spread, trace_fact

VERSION = 1  # of what is kept


@torch.no_grad()
def trace_facts(
    handle: ModelHandle,
    facts: Sequence[KnownFact],
    protocol: Protocol,
    artifacts: ArtifactStore,
    progress: Progress | None = None,
) -> CausalTrace:
    """Trace every fact through every layer; says beforehand how long that takes."""
    progress = progress or Progress.quiet()
    noise = DEVIATIONS * spread(handle, facts)
    keys = [_key(handle, fact, noise, protocol) for fact in facts]
    whole = replace(protocol, kinds=KINDS, tokens=CLASSES)  # holds everything that a smaller trace asks for
    kept = [
        artifacts.get(key) or artifacts.get(_key(handle, fact, noise, whole))
        for fact, key in zip(facts, keys, strict=True)
    ]
    traced = [None if one is None else _read(fact, one, protocol) for fact, one in zip(facts, kept, strict=True)]
    left = [fact for fact, one in zip(facts, traced, strict=True) if one is None]
    if left:
        minutes = seconds_of(handle, left, noise, protocol) / 60
        progress.say(f"{len(left)} facts to trace in {handle.name}: about {minutes:.0f} min")
    with progress.task(f"tracing {handle.name}", len(left)) as task:
        for number, (fact, key) in enumerate(zip(facts, keys, strict=True)):
            if traced[number] is None:
                traced[number] = one = trace_fact(handle, fact, noise, protocol)
                artifacts.put(key, _tensors(one))
                task.step(fact.id)
    found = tuple(one for one in traced if one is not None)
    return CausalTrace(
        handle.name, handle.identity, handle.layers, noise, protocol.samples, protocol.window, protocol.seed, found
    )


def _key(handle: ModelHandle, fact: KnownFact, noise: float, protocol: Protocol) -> ArtifactKey:
    settings = {name: value for name, value in asdict(protocol).items() if name != "batch_size"}
    settings |= {"version": VERSION, "ids": fact.ids, "subject": fact.subject, "answer": fact.answer, "noise": noise}
    return ArtifactKey("trace", handle.identity, {**settings, "dtype": str(handle.model.dtype)})


def _tensors(fact: TracedFact) -> dict[str, Tensor]:
    effects = {f"{kind}/{name}": row for kind, rows in fact.effects.items() for name, row in rows.items()}
    named = {"clean": (fact.clean,), "corrupted": (fact.corrupted,), **effects}
    return {name: torch.tensor(row, dtype=torch.float64) for name, row in named.items()}


def _read(fact: KnownFact, tensors: Mapping[str, Tensor], protocol: Protocol) -> TracedFact:
    rows = {name: tuple(tensor.tolist()) for name, tensor in tensors.items()}
    effects = {
        kind: {name: rows[f"{kind}/{name}"] for name in protocol.tokens if f"{kind}/{name}" in rows}
        for kind in protocol.kinds
    }
    return TracedFact(fact.id, rows["clean"][0], rows["corrupted"][0], effects)
