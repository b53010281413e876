"""Models spread from intact to dead, by the same edits at growing strength: what perplexity says about abilities.

Published models lie at one times the unedited perplexity or far above ("Butterfly Effect", figure 2: nothing between
68 and 247 on GPT-2 XL). Here the update of a collapsing edit is applied at a fraction of its size, so that every degree
of damage is there, the range between 1x and 2x included, where a gate has to decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from editsafety import abilities
from editsafety.edits.edit import Delta, Edit, LowRank, Replace
from editsafety.edits.session import EditSession
from editsafety.errors import UsageError
from editsafety.lab.attempt import compute
from editsafety.measures import AbilityProbe, Inputs, load
from editsafety.model.handle import ModelHandle
from editsafety.research.experiments import BUTTERFLY, Cell, Context, Result, spell
from editsafety.research.surrogate import Observation, correlation
from editsafety.runs.measurement import Measurement

DOSES = tuple(2.0**-power for power in range(11, -1, -1))  # of the whole update: 1/2048 to 1
BINS = ((0.0, 1.05), (1.05, 1.25), (1.25, 2.0), (2.0, 10.0), (10.0, 100.0), (100.0, math.inf))
LOST = 0.05  # the drop that the default policy no longer calls a warning


class Dose:
    """Spearman of log-perplexity with every ability, over all models and between 1x and 2x, and scores by range."""

    name: ClassVar[str] = "dose"
    paper: ClassVar[str] = f"{BUTTERFLY}, figure 2"
    title: ClassVar[str] = "abilities against perplexity, from intact to dead"

    def __call__(self, context: Context) -> Result:
        """A row per ability, with its mean score below each perplexity ratio and not below the one before.

        Raises UsageError for a model without abilities to measure: name some by `--probe`.
        """
        handle, plan = context.handle, context.lab.plan
        probes = [abilities.load(spec, plan.settings.items) for spec in plan.probes(context.model)]
        if not probes:
            raise UsageError(f"{context.model} comes with no abilities to measure; give some: --probe READER:FILE.")
        before = {probe.name: probe(handle, context.bench.batch_size) for probe in probes}
        models = list(_models(context, probes))
        rows = tuple(_row(name, found, models) for name, found in before.items())
        headings = ("ability", "unedited", "rho", "rho 1x-2x", *(_range(*one) for one in BINS))
        published = (
            "Spearman over about 23 models: -0.85 to -1.00 (PIQA, HellaSwag, LAMBADA), -0.59 to -0.90 (MMLU, SQuAD 2, "
            "NQ on Llama-2-7b); no model between the unedited one and 3.6 times its perplexity"
        )
        return Result(self.name, handle.name, headings, rows, _sentence(models, before), published)


def _models(context: Context, probes: Sequence[AbilityProbe]) -> Iterator[Observation]:
    """Every hard request at every dose, measured."""
    editor, handle, bench = context.ready(context.editor), context.handle, context.bench
    base, requests = bench.base["me_ppl"].value or math.nan, context.requests("hard")
    texts = Inputs(texts=bench.texts, batch_size=bench.batch_size)
    with context.progress.task(f"doses of {context.editor} on {handle.name}", len(requests) * len(DOSES)) as task:
        for request in requests:
            edit = compute(handle, editor, (request,)).edit
            for dose in DOSES:
                with EditSession(handle) as session:
                    session.apply(at(edit, dose, handle))
                    found = load("perplexity")(handle, texts)[0]
                    scores = {probe.name: probe(handle, bench.batch_size).value for probe in probes}
                past = math.inf if found.value is None else found.value / base
                known = {name: score for name, score in scores.items() if score is not None}
                yield Observation(handle.name, context.editor, f"{request.id}@{dose:g}", past, known)
                task.step(f"{request.id} x {dose:g}")


def at(edit: Edit, dose: float, handle: ModelHandle) -> Edit:
    """The edit at a fraction of its size: W + dose (W' - W). Raises UsageError for one that changes no weights."""
    if edit.sidecars or not edit.deltas:
        raise UsageError(f"{edit.editor} changes no weights, so there is no half of its edit; use one that does.")
    return replace(edit, deltas=tuple(_part(delta, dose, handle) for delta in edit.deltas))


def _part(delta: Delta, dose: float, handle: ModelHandle) -> Delta:
    if isinstance(delta, LowRank):
        return replace(delta, left=delta.left * dose)
    weight: Tensor = handle.model.get_parameter(delta.parameter).detach()
    value = delta.value.to(weight.device, weight.dtype)
    return Replace(delta.parameter, weight + dose * (value - weight))


def _row(name: str, before: Measurement, models: Sequence[Observation]) -> tuple[Cell, ...]:
    whole, near = correlation(models, name, "spearman"), correlation(models, name, "spearman", "1x to 2x")
    means = (_mean([one.probes[name] for one in _inside(models, *bin_) if name in one.probes]) for bin_ in BINS)
    return (
        name,
        *(None if cell is None else round(cell, 2) for cell in (before.value, whole.value, near.value, *means)),
    )


def _sentence(models: Sequence[Observation], before: dict[str, Measurement]) -> str:
    found = [correlation(models, name, "spearman").value for name in before]
    rhos = sorted(rho for rho in found if rho is not None)
    near = [one for one in models if 1.0 <= one.ratio < 2.0]
    warned = [one for one in near if _lost(one, before)]
    first = min((one.ratio for one in models if _lost(one, before)), default=None)
    spread = f"Spearman {rhos[0]:.2f} to {rhos[-1]:.2f}" if rhos else "no correlation could be computed"
    starts = (
        "no ability lost" if first is None else f"the first ability lost {100 * LOST:g} points at {spell(first, 4)}x,"
    )
    return (
        f"over {len(models)} edited models, {spread}; {starts} and of the {len(near)} models between 1x and 2x "
        f"{len(warned)} have lost that much in some ability"
    )


def _lost(one: Observation, before: dict[str, Measurement]) -> bool:
    return any((found.value or 0.0) - one.probes.get(name, 0.0) > LOST for name, found in before.items())


def _inside(models: Sequence[Observation], low: float, high: float) -> list[Observation]:
    return [one for one in models if low <= one.ratio < high or one.ratio == high == math.inf]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _range(low: float, high: float) -> str:
    return f">{low:g}x" if high == math.inf else f"<{high:g}x"


EXPERIMENT = Dose()
