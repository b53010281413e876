"""What MEMIT, EMMET and AlphaEdit have in common: a batch of facts, spread over several layers.

(1) v* of every request at the output of decoder block z, the last of `layers`, by gradient descent on the model as it
is. (2) From the lowest layer up, each on the model that carries the updates below it: keys K `[m, n]` (a mean within
each group of contexts, then over the groups: the bare prompt weighs 1/2, each of five prefixed ones 1/10); hidden
states H `[d, n]` at block z for the bare prompts; the layer takes its share of what is still missing,

    R = (V* - H) / (number of layers left),   W' = W + R X^T.

(3) What earlier edits of a sequence have to say, if the method asks, is the keys of their requests on the model that
they left behind. The methods differ in X alone (`answers`). MEMIT, arXiv 2210.07229, algorithm 1.

Where we differ from the published code: ids are joined and contexts seeded, as in `rome_family`; v* is never read from
a cache of files that does not know which model and target it was made for; layers are sorted; an update is kept as its
two factors and applied once, where the published code applies, undoes and applies it again.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editing import contexts, keys, subject, targets
from editsafety.editing.moments import CorpusHparams, SecondMoments
from editsafety.editing.solve import Earlier
from editsafety.editing.subject import Located
from editsafety.editing.targets import Target, TargetHparams
from editsafety.editors import Editor
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.session import EditSession
from editsafety.errors import NotPreparedError
from editsafety.hyperparameters import Hparams, Published
from editsafety.model.sites import Site
from editsafety.progress import Progress

Notes = dict[str, float | str | bool]


class SpreadHparams(TargetHparams, CorpusHparams):
    """Hyperparameters that the three share, named as in the published configurations.

    The contexts are those of memit/memit_main.py at 80426fd: five of ten tokens, one for each start. `v_loss_layer` is
    not known here: v* is read off the model's output, as every published configuration has it.
    """

    layers: tuple[int, ...] = Field(min_length=1)
    context_template_length_params: tuple[tuple[int, int], ...] = ((10, 5),)
    context_starts: tuple[str, ...] = Field(default=contexts.STARTS, min_length=1)

    layer_numbers: ClassVar[tuple[str, ...]] = ("layers",)
    published: ClassVar[Published] = Published(
        aside={
            "mom2_adjustment": "C is always used",
            "mom2_update_weight": "AlphaEdit's update holds no C",
            "emmet_lambda": "it is EMMET's",
            "reset_cache": "what an edit leaves to the next travels with it, and nowhere else",
        },
        only={"update_norm_lambda": (0,)},
    )


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer's update and the figures that explain it."""

    delta: LowRank
    residual: float
    agreement: float
    notes: Notes


class SpreadEditor(Editor):
    """An editor of the MEMIT family; the registered ones differ by X."""

    Hparams: ClassVar[type[Hparams]] = SpreadHparams
    hparams: SpreadHparams

    @abstractmethod
    def answers(self, site: Site, found: Tensor, earlier: Earlier) -> tuple[Tensor, Notes]:
        """X `[d_in, n]` of one layer for its keys `found` `[d_in, n]`, and notes."""

    @property
    def protects(self) -> bool:
        """Whether the next edit of a sequence is told the keys of this one."""
        return False

    @cached_property
    def moments(self) -> SecondMoments:
        """The second moments that these hyperparameters ask for."""
        return SecondMoments(self.handle, self.artifacts, self.hparams)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The edited projections, from below."""
        return tuple(self.handle.mlp_out(layer) for layer in sorted(set(self.hparams.layers)))

    def missing(self) -> str | None:
        """The second moments, unless they are there."""
        return self.moments.missing(self.sites)

    def prepare(self, progress: Progress | None = None, corpus: Path | None = None) -> None:
        """Sample the context templates and make the second moments (from `corpus`, if given)."""
        self.groups()
        self.moments.prepare(self.sites, progress, corpus)

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The context templates by group, the bare one first and alone."""
        lengths, starts = self.hparams.context_template_length_params, self.hparams.context_starts
        found = contexts.sample_once(self.handle, self.artifacts, lengths=lengths, starts=starts, seed=self.seed)
        return contexts.group_by_length(found, lengths)

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """One low-rank delta per layer, of rank n for n requests. Notes: see `_told`.

        Raises NotPreparedError, or EditorError when nothing is requested.
        """
        self.refuse_none(requests)
        missing = self.missing()
        if missing is not None:
            raise NotPreparedError(self.name, self.handle.spec.name, missing)
        batch = _RequestBatch.of(self, requests)
        earlier = {site: Earlier.read(carry, site) for site in self.sites}
        layers: list[Layer] = []
        with EditSession(self.handle) as session:
            for site in self.sites:
                layers.append(self._layer(batch, site, earlier[site], len(self.sites) - len(layers)))
                session.apply(Edit(self.name, (), self.handle.identity, deltas=(layers[-1].delta,)))
            left_over = float(batch.missing().norm(dim=0).max())
            kept: dict[str, Tensor] = {}
            for site in self.sites if self.protects else ():
                kept |= earlier[site].plus(batch.keys(site)[0]).written(site)
        return Edit(
            self.name,
            tuple(request.id for request in requests),
            self.handle.identity,
            deltas=tuple(layer.delta for layer in layers),
            notes=self._notes(batch, layers, left_over),
            carry=kept if self.protects else None,
        )

    def _layer(self, batch: _RequestBatch, site: Site, earlier: Earlier, left: int) -> Layer:
        found, bare = batch.keys(site)
        residual = batch.missing()
        right, notes = self.answers(site, found, earlier)
        delta = LowRank(site, (residual / left).to(found), right.T.to(found).contiguous())
        return Layer(
            delta,
            residual=float(residual.norm(dim=0).max()),
            agreement=float(torch.nn.functional.cosine_similarity(bare, found, dim=0).min()),
            notes=notes,
        )

    def _notes(self, batch: _RequestBatch, layers: Sequence[Layer], left_over: float) -> Notes:
        """Figures of the edit; over several requests or layers the worst, which is the largest unless said otherwise.

        numerator: ||v* - h|| at block z before the first layer; left_over: the same after the last; denominator
        (smallest): 1 / ||x||, so that a residual r of one request changes W by ||r|| / denominator, which is what
        ROME's k . u is; update_norm: Frobenius, over all layers; key_agreement (smallest): cosine of the bare with the
        averaged key; first_token: some subject is one token in first place; loss_at_stop and nll_at_stop in nats,
        steps the sum over requests. Those with a layer in front ("5.update_norm") are that layer's.
        """
        norms = [float(layer.delta.matrix().norm()) for layer in layers]
        longest = max(float(layer.delta.right.norm(dim=1).max()) for layer in layers)
        notes: Notes = {
            "numerator": layers[0].residual,
            "denominator": 1 / longest if longest else math.inf,
            "left_over": left_over,
            "update_norm": math.hypot(*norms),
            "key_agreement": min(layer.agreement for layer in layers),
            "first_token": any(subject.is_first(self.handle, prompts[0]) for prompts in batch.prompts),
            "loss_at_stop": max(target.loss for target in batch.targets),
            "nll_at_stop": max(target.nll for target in batch.targets),
            "steps": sum(target.steps for target in batch.targets),
            "requests": len(batch.targets),
        }
        for number, layer, norm in zip(sorted(set(self.hparams.layers)), layers, norms, strict=True):
            about = {"residual": layer.residual, "update_norm": norm, **layer.notes}
            notes |= {f"{number}.{name}": value for name, value in about.items()}
        return notes


@dataclass(frozen=True, eq=False)
class _RequestBatch:
    """The requests of one edit: where they are read, and where block z should come out."""

    editor: SpreadEditor
    prompts: Sequence[Sequence[Located]]
    weights: Tensor
    block: str
    targets: Sequence[Target]

    @classmethod
    def of(cls, editor: SpreadEditor, requests: Sequence[EditRequest]) -> _RequestBatch:
        """v* of every request, on the model as it is."""
        handle, groups = editor.handle, editor.groups()
        templates = [template for group in groups for template in group]
        weights = torch.tensor([1 / (len(groups) * len(group)) for group in groups for _ in group])
        prompts = [[subject.locate(handle, request, template) for template in templates] for request in requests]
        block = handle.block(max(editor.hparams.layers))
        found = targets.optimise_many(handle, block, requests, templates, editor.hparams)
        return cls(editor, prompts, weights, block, found)

    def keys(self, site: Site) -> tuple[Tensor, Tensor]:
        """Averaged keys and bare keys of a site on the model as it is, `[d_in, n]`."""
        return keys.average(self.editor.handle, site.module, self.prompts, self.weights)

    def missing(self) -> Tensor:
        """V* - H: what block z still lacks for the bare prompts, `[d, n]`."""
        now = keys.outputs(self.editor.handle, self.block, [prompts[0] for prompts in self.prompts])
        return torch.stack([target.value for target in self.targets], 1).to(now) - now
