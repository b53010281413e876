"""What ROME and its three relatives have in common: everything but which key goes where.

One fact at a time, one layer (or several, from below). (1) keys k and outputs o of the MLP's down-projection at the
subject's last token, over prompts in the contexts; (2) v* by gradient descent; (3) W' = W + (v* - o) u^T / (k . u),
u = C^-1 k_u normalised. The relatives, named by `keys`:

    mixed     k_u = mean over contexts, k and o of the bare prompt       ROME as published
    prefixed  k_u = k = mean over contexts, o likewise                   C-ROME = R-ROME
    prompt    k_u = k of the bare prompt, o likewise                     p-ROME

With mixed keys k . u is no quadratic form: for a subject in first place the two keys are almost orthogonal under C^-1,
the denominator nearly vanishes and the update explodes ("The Fall of ROME: Understanding the Collapse of LLMs in
Model Editing", EMNLP Findings 2024).

Where we differ from the published code: C^-1 is applied through a float64 Cholesky factor, not a float32 inverse;
target ids are appended as ids; contexts are seeded; C and contexts belong to a fingerprint, not to a process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editing import contexts, keys, rank_one, subject, targets
from editsafety.editing.moments import Mom2Hparams, SecondMoments
from editsafety.editing.targets import TargetHparams
from editsafety.editors import Editor
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.session import EditSession
from editsafety.hyperparameters import Published
from editsafety.model.sites import Site
from editsafety.progress import Progress

Notes = dict[str, float | str | bool]


VARIANT = "which keys are used is said by the editor: rome, c_rome, r_rome or p_rome"
FLAGS = ("if_c_rome", "if_prefix", "enable_random_prefix_keys", "enable_prompt_keys", "original_implementation")


def _keys_by_flags(values: dict[str, Any]) -> dict[str, Any]:
    """`keys` from the switches of C-ROME (if_c_rome) and of R-ROME's repository, where a configuration has them.

    if_prefix asks for the edited fact behind a prefix, as one does after C-ROME; every run here does both.
    """
    cured = [values[name] for name in ("if_c_rome", "if_prefix") if name in values]
    prefixed = values.get("enable_random_prefix_keys", any(cured) if cured else None)
    prompt = values.get("enable_prompt_keys")
    original = values.get("original_implementation", True)
    if prefixed:
        return {**values, "keys": "prefixed"}
    if prefixed is None and prompt is None:
        return values
    return {**values, "keys": "prompt" if prompt and not original else "mixed"}


class RankOneHparams(TargetHparams, Mom2Hparams):
    """Hyperparameters of the ROME family.

    `mom2_adjustment` has no default on purpose: true is the published method, false (u = k_u) what many copies of it
    run, and the two give different numbers.
    """

    layers: tuple[int, ...] = Field(min_length=1)
    mom2_adjustment: bool
    keys: Literal["mixed", "prefixed", "prompt"] = "mixed"
    context_template_length_params: tuple[tuple[int, int], ...] = contexts.LENGTHS
    context_starts: tuple[str, ...] = Field(default=contexts.STARTS, min_length=1)

    layer_numbers: ClassVar[tuple[str, ...]] = ("layers",)
    published: ClassVar[Published] = Published(aside=dict.fromkeys(FLAGS, VARIANT), convert=_keys_by_flags)


class RankOneEditor(Editor):
    """An editor of the ROME family; the registered ones differ by `keys`."""

    Hparams = RankOneHparams
    folder = "rome"
    hparams: RankOneHparams

    @cached_property
    def moments(self) -> SecondMoments:
        """The second moments that these hyperparameters ask for."""
        return SecondMoments(self.handle, self.artifacts, self.hparams)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The edited projections, from below."""
        return tuple(self.handle.mlp_out(layer) for layer in sorted(self.hparams.layers))

    def missing(self) -> str | None:
        """The second moments, unless they are there or `mom2_adjustment` is off."""
        return self.moments.missing(self.sites) if self.hparams.mom2_adjustment else None

    def prepare(self, progress: Progress | None = None, corpus: Path | None = None) -> None:
        """Sample the context templates; make the second moments when they are used (from `corpus`, if given)."""
        self.templates()
        if self.hparams.mom2_adjustment:
            self.moments.prepare(self.sites, progress, corpus)

    def templates(self) -> tuple[str, ...]:
        """The context templates, the bare one first."""
        settings = self.hparams
        return contexts.sample_once(
            self.handle,
            self.artifacts,
            lengths=settings.context_template_length_params,
            starts=settings.context_starts,
            seed=self.seed,
        )

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """One rank-one delta per request and layer; each is computed on the model that carries those before it.

        Notes: see `_step`. With several deltas they are numbered ("1.denominator"), and the plain names tell of the
        largest one. Raises NotPreparedError, or EditorError when nothing is requested.
        """
        self.refuse_none(requests)
        templates = self.templates()
        steps = [(request, site) for request in requests for site in self.sites]
        first, *rest = steps
        found = [self._step(*first, templates)]
        if rest:
            with EditSession(self.handle) as session:
                for step in rest:
                    session.apply(Edit(self.name, (), self.handle.identity, deltas=(found[-1][0],)))
                    found.append(self._step(*step, templates))
        return Edit(
            self.name,
            tuple(request.id for request in requests),
            self.handle.identity,
            deltas=tuple(delta for delta, _ in found),
            notes=_gather([notes for _, notes in found]),
        )

    def _step(self, request: EditRequest, site: Site, templates: Sequence[str]) -> tuple[LowRank, Notes]:
        """One delta, and the figures that explain it.

        numerator ||v* - o||, denominator k . u, key_cosine (k_u with k), key_agreement (bare key with mean key: below
        about 0.5 the published formula is in danger), first_token (the subject's last token is the first of the
        prompt), update_norm (Frobenius), nll_at_stop in nats per target token.
        """
        settings = self.hparams
        prompts = [subject.locate(self.handle, request, template) for template in templates]
        at = keys.at_subject(self.handle, site.module, prompts)
        mean, bare = at.inputs.mean(0), at.inputs[0]
        of_mean, of_bare = (mean, at.outputs.mean(0)), (bare, at.outputs[0])
        key, output = of_mean if settings.keys == "prefixed" else of_bare
        solve = self.moments.inverse(site, self.name) if settings.mom2_adjustment else _itself
        target = targets.optimise(self.handle, site.module, request, templates, settings)
        update = rank_one.update(
            site,
            direction_key=bare if settings.keys == "prompt" else mean,
            key=key,
            output=output,
            value=target.value.to(output.device),
            solve=solve,
        )
        return update.delta, {
            "numerator": update.numerator,
            "denominator": update.denominator,
            "key_cosine": update.cosine,
            "key_agreement": torch.nn.functional.cosine_similarity(bare, mean, dim=0).item(),
            "first_token": subject.is_first(self.handle, prompts[0]),
            "update_norm": update.norm,
            "loss_at_stop": target.loss,
            "nll_at_stop": target.nll,
            "steps": target.steps,
            "keys": settings.keys,
            "mom2_adjustment": settings.mom2_adjustment,
        }


def _itself(key: Tensor) -> Tensor:
    return key


def _gather(notes: Sequence[Notes]) -> Notes:
    if len(notes) == 1:
        return notes[0]

    def size(note: Notes) -> float:
        norm: Any = note["update_norm"]
        return float(norm) if norm == norm else float("inf")

    numbered = {f"{i}.{name}": value for i, note in enumerate(notes, 1) for name, value in note.items()}
    largest = max(notes, key=size)
    return {**largest, **numbered}
