"""A workplace for races: one model with its requests, editors that are ready, and a bench to measure on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch

from editsafety import datasets, editors, measures
from editsafety.datasets.request import EditRequest
from editsafety.editing import contexts
from editsafety.editors import Editor
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.seal import Keepsake
from editsafety.judging.policy import Policy
from editsafety.lab.bench import Bench
from editsafety.lab.tools import artifacts_for
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec
from editsafety.progress import Progress
from editsafety.runs import plan as plans
from editsafety.runs.settings import Settings

# Second moments of random weights say nothing, but must be there: as few tokens as can be, and a matrix that has an
# inverse.
DAMPING = 1e-2
TEXTS = 50
BATCH = 64


@dataclass(eq=False)
class Workplace:
    """A loaded model, and what is made on it once."""

    handle: ModelHandle
    progress: Progress
    seed: int = 0
    _editors: dict[str, Editor] = field(default_factory=dict)

    @classmethod
    def at(cls, spec: ModelSpec, progress: Progress, seed: int = 0) -> Workplace:
        """Load a model."""
        return cls(ModelHandle.load(spec), progress, seed)

    def editor(self, name: str) -> Editor:
        """An editor that can edit at once."""
        if name not in self._editors:
            few = {"mom2_tokens": self.handle.mlp_out(0).d_in, "mom2_damping": DAMPING} if self._random else {}
            known = editors.load(name).Hparams.model_fields
            changes = {key: value for key, value in few.items() if key in known}
            made = editors.make(name, self.handle, artifacts_for(self.handle), changes=changes, seed=self.seed)
            if made.missing() is not None:
                made.prepare(self.progress)
            self._editors[name] = made
        return self._editors[name]

    @cached_property
    def requests(self) -> tuple[EditRequest, ...]:
        """Ordinary requests in the language of the model."""
        return datasets.read_requests(plans.streams(self._settings, self._name)["normal"]).requests

    @cached_property
    def bench(self) -> Bench:
        """The model, measured unedited."""
        texts = datasets.texts(plans.text_source(self._settings, self._name), limit=TEXTS)
        prefixes = contexts.prefixes(self.handle, artifacts_for(self.handle), seed=self.seed)
        bench = Bench(self.handle, texts, prefixes, BATCH, Keepsake.of(self.handle), measures.needed())
        bench.open(Policy.read("default"))
        return bench

    def nudge(self, layer: int, generator: torch.Generator) -> Edit:
        """A small random rank-one edit of a layer's down-projection."""
        site = self.handle.mlp_out(layer)
        left = 1e-3 * torch.randn(site.d_out, 1, generator=generator)
        right = torch.randn(1, site.d_in, generator=generator) / site.d_in**0.5
        delta = LowRank(site, left.to(self.handle.device), right.to(self.handle.device))
        return Edit("nudge", ("nudge",), self.handle.identity, deltas=(delta,))

    @property
    def _name(self) -> str:
        return self.handle.spec.name

    @property
    def _random(self) -> bool:
        return self._name.startswith("random:")

    @property
    def _settings(self) -> Settings:
        """A random model has a pocket model's tokenizer, so it is given a pocket model's texts."""
        texts = "pocket-world/texts" if self._random else ""
        return Settings((self._name,), ("rome",), texts_from=texts)
