"""The runs of one fact: clean, corrupted, and restored at one place.

Below the lowest layer that is restored a run is the corrupted one again, so it is entered there (`engine.layers`);
with `--plain` every run is whole.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from editsafety.editing.keys import by_token
from editsafety.engine.layers import Entrance, LowerLayers, enter, record, stands_alone
from editsafety.errors import UsageError
from editsafety.model import logits, trace
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle
from editsafety.research.tracing.effects import KINDS, TracedFact
from editsafety.research.tracing.facts import CLASSES, KnownFact

Change = Callable[[Tensor], Tensor]
DEVIATIONS = 3.0  # of the embeddings, as noise
PARTS: Mapping[str, Part] = {"mlp": Part.MLP_OUT, "attention": Part.ATTENTION_OUT}


@dataclass(frozen=True, slots=True)
class Protocol:
    """How facts are traced."""

    # What is restored: `state`, `mlp`, `attention`.
    kinds: tuple[str, ...] = KINDS
    # Runs with noise of their own, for each fact. ROME has ten; in the same time, more facts tell more than that.
    samples: int = 1
    # Layers whose MLPs or attentions are restored together.
    window: int = 1
    seed: int = 0
    # Runs per forward pass.
    batch_size: int = 64
    # Where the restored tokens stand.
    tokens: tuple[str, ...] = CLASSES

    # ROME restores ten of the 48 layers of GPT-2 XL.
    SHARE: ClassVar[float] = 10 / 48

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise UsageError(f"no kind of place {unknown[0]!r} to restore; there are {', '.join(KINDS)}.")

    @classmethod
    def window_of(cls, layers: int) -> int:
        """The window of a model of so many layers: the share of them that ROME restores."""
        return max(1, round(cls.SHARE * layers))

    def places(self, fact: KnownFact) -> list[int]:
        """The tokens of a fact that are restored."""
        return [at for at in fact.places if fact.class_of(at) in self.tokens]

    def restored(self, kind: str, layer: int, layers: int) -> range:
        """The layers that are restored together around one."""
        width = 1 if kind == "state" else self.window
        low = layer - width // 2
        return range(max(low, 0), min(low + width, layers))

    def work(self, fact: KnownFact, layers: int) -> int:
        """What tracing a fact takes, in tokens that are taken through one layer, where runs are entered."""
        passed = sum(
            layers - self.restored(kind, layer, layers).start for kind in self.kinds for layer in range(layers)
        )
        return passed * len(self.places(fact)) * self.samples * len(fact.ids)


def trace_fact(handle: ModelHandle, fact: KnownFact, noise: float, protocol: Protocol) -> TracedFact:
    """Every layer and token of one fact; `noise` is its standard deviation."""
    runs = _Runs(handle, fact, noise, protocol)
    names = {kind: modules(handle, kind) for kind in protocol.kinds}
    clean, kept = runs.clean([name for found in names.values() for name in found])
    corrupted, lower = runs.corrupted()
    places = protocol.places(fact)
    effects: dict[str, dict[str, tuple[float, ...]]] = {}
    for kind, found in names.items():
        layers: list[list[float]] = []
        for layer in range(handle.layers):
            together = protocol.restored(kind, layer, handle.layers)
            chosen = {found[one]: kept[found[one]] for one in together}
            layers.append([p - corrupted for p in runs.restored(places, chosen, lower.get(together.start))])
        effects[kind] = _by_class(fact, places, layers)
    return TracedFact(fact.id, clean, corrupted, effects)


def seconds_of(handle: ModelHandle, facts: Sequence[KnownFact], noise: float, protocol: Protocol) -> float:
    """What tracing these facts takes, told from whole runs of the first one: as many as one layer of it takes."""
    first, layers = facts[0], handle.layers
    places = protocol.places(first)
    runs = _Runs(handle, first, noise, protocol)
    started = time.monotonic()
    runs.restored(places, {})
    pace = (time.monotonic() - started) / (layers * len(places) * protocol.samples * len(first.ids))
    return pace * sum(protocol.work(fact, layers) for fact in facts)


def spread(handle: ModelHandle, facts: Sequence[KnownFact]) -> float:
    """Standard deviation of the embeddings of the subjects' tokens, over tokens and dimensions."""
    ids = [token for fact in facts for token in fact.ids[fact.subject[0] : fact.subject[1] + 1]]
    name = _name_of_embeddings(handle)
    with trace.watch(handle.model, [name], stop=True) as seen:
        batch = handle.batch([ids[start : start + handle.context] for start in range(0, len(ids), handle.context)])
        handle.run(batch.ids, batch.mask)
    return float(seen.outputs[name][batch.mask.bool()].float().std())


def modules(handle: ModelHandle, kind: str) -> list[str]:
    """What is restored, by layer."""
    layers = range(handle.layers)
    if kind == "state":
        return [handle.block(layer) for layer in layers]
    return [handle.sites(PARTS[kind], layer)[0].module for layer in layers]


class _Runs:
    """The forward passes of one fact; each gives the probability of its answer."""

    def __init__(self, handle: ModelHandle, fact: KnownFact, noise: float, protocol: Protocol) -> None:
        self.handle, self.fact, self.protocol = handle, fact, protocol
        self.embeddings = _name_of_embeddings(handle)
        first, last = fact.subject
        digest = hashlib.sha256(f"{protocol.seed}:{fact.ids}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        width = int(handle.model.get_input_embeddings().weight.shape[1])
        drawn = torch.randn(protocol.samples, last - first + 1, width, generator=generator)
        self.noise = (drawn * noise).to(handle.device)
        self.samples = torch.arange(protocol.samples)

    def clean(self, names: Sequence[str]) -> tuple[float, dict[str, Tensor]]:
        """Without noise, and what these modules gave, `[seq, d]` each."""
        with trace.watch(self.handle.model, names) as seen:
            (probability,) = self._probabilities(1)
        return probability, {name: by_token(seen.outputs[name], 1, len(self.fact.ids))[0] for name in names}

    def corrupted(self) -> tuple[float, dict[int, LowerLayers]]:
        """With noise, mean over samples; and, a row for each sample, where later runs may be entered, by layer."""
        layers = range(1, self.handle.layers) if self._may_enter else ()
        with ExitStack() as stack:
            stack.enter_context(trace.watch(self.handle.model, change={self.embeddings: self._disturbed(self.samples)}))
            kept = {layer: stack.enter_context(record(self.handle, Entrance(layer))) for layer in layers}
            found = self._probabilities(len(self.samples))
        lower = {layer: one.lower for layer, one in kept.items() if one.lower is not None}
        return statistics.fmean(found), lower

    def restored(
        self, places: Sequence[int], clean: Mapping[str, Tensor], lower: LowerLayers | None = None
    ) -> list[float]:
        """With noise, these modules' outputs being the clean ones at each of these places; mean over samples, by place.

        `lower` is what the corrupted run gives below the modules; None for whole runs.
        """
        rows = [(place, sample) for place in places for sample in self.samples.tolist()]
        found: list[float] = []
        for start in range(0, len(rows), self.protocol.batch_size):
            at, samples = torch.tensor(rows[start : start + self.protocol.batch_size]).unbind(1)
            change = {name: self._restored(output, at) for name, output in clean.items()}
            if lower is None:
                change[self.embeddings] = self._disturbed(samples)
            inside = nullcontext() if lower is None else enter(self.handle, lower.taken(samples))
            with inside, trace.watch(self.handle.model, change=change):
                found += self._probabilities(len(samples))
        count = len(self.samples)
        return [statistics.fmean(found[i * count : (i + 1) * count]) for i in range(len(places))]

    @property
    def _may_enter(self) -> bool:
        return not self.handle.engine.plain and stands_alone(self.handle)

    def _disturbed(self, samples: Tensor) -> Change:
        first, last = self.fact.subject

        def change(output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, first : last + 1] += self.noise[samples.to(self.noise.device)].to(changed)
            return changed

        return change

    def _restored(self, clean: Tensor, places: Tensor) -> Change:
        def change(output: Tensor) -> Tensor:
            changed = by_token(output.clone(), len(places), len(self.fact.ids))
            rows = torch.arange(len(places), device=changed.device)
            changed[rows, places.to(changed.device)] = clean[places.to(clean.device)].to(changed)
            return changed.reshape(output.shape)

        return change

    def _probabilities(self, rows: int) -> list[float]:
        """Of the answer behind the prompt, one for each row; from float64 scores."""
        batch = self.handle.batch([self.fact.ids] * rows)
        last = torch.full((rows,), len(self.fact.ids) - 1)
        with logits.only_at(self.handle, torch.arange(rows), last):
            scores = self.handle.logits(batch)[0]
        probabilities: list[float] = scores.cpu().double().softmax(-1)[:, self.fact.answer].tolist()
        return probabilities


def _by_class(
    fact: KnownFact, places: Sequence[int], layers: Sequence[Sequence[float]]
) -> dict[str, tuple[float, ...]]:
    """Effects (a row of places for each layer) by class, averaged over its tokens."""
    found = {}
    for name in CLASSES:
        own = [number for number, at in enumerate(places) if fact.class_of(at) == name]
        if own:
            found[name] = tuple(statistics.fmean(row[number] for number in own) for row in layers)
    return found


def _name_of_embeddings(handle: ModelHandle) -> str:
    wanted = handle.model.get_input_embeddings()
    return next(str(name) for name, module in handle.model.named_modules() if module is wanted)
