"""WISE: a side copy of one MLP matrix is edited; a router sends to it the tokens that an edit is about.

The side copy W' = W + D is trained by gradient descent on the target, D only where a random mask allows it, together
with a margin on what D does to the layer: with d(x) = ||act(x W') - act(x W)|| of a token with input x,

    loss = mean over contexts of -(1/T) sum_a log P(t_a)
         + mean relu(gamma + mean d_out - d_in) + mean relu(d_out - alpha) + mean relu(beta - d_in)

where d_in are the tokens that the edit is about and d_out the others of the same rows (Wang et al., section 2.3.1).
Afterwards a token goes to W' when d(x) exceeds `act_ratio` times the smallest d_in seen while editing, else it stays
with W. After `save_freq` edits W' joins the memory and training begins again at W; every `merge_freq` edits the
youngest memories are merged by TIES. Of several side copies whose bar a token exceeds, the one with the largest d(x)
has it.

Which tokens an edit is about is `scope`: the subject's last token ("subject", for a layer where facts are still looked
up), or those at which the target is read, from the last prompt token on ("last", for a late layer). The published code
takes the subject's tokens or the mean over all tokens, depending on the locality prompt.

Where we differ from the published code: routing is decided token by token (theirs is one decision for a batch, so that
the company a prompt comes in decides), and so are distances and thresholds; in training W' is used at the tokens that
will be sent to it and nowhere else; D is added to the layer's own output, which keeps its bias and knows no
orientation; weight decay works inside the mask only; the loss is read at the target's tokens; what an edit is not about
is the rest of its own prompts, the contexts before them included, not a data set's locality prompt. `act` is the
model's activation function on the layer's output, as in their code; the paper measures the layer's input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editing import contexts, gradients
from editsafety.editors import Traits
from editsafety.editors._sidecar import SidecarEditor, SidecarHparams, riding
from editsafety.editors.wise.memory import Routed, WiseState
from editsafety.editors.wise.prompts import EditPrompts, Learner
from editsafety.editors.wise.side_copy import activation_of, margin
from editsafety.edits.edit import Edit, Sidecar
from editsafety.hyperparameters import Published
from editsafety.progress import Progress

# easyeditor/models/wise/utils.py at 14cea82: the loss has converged when it moves by less than STILL, below LOW.
STILL, LOW = 1e-4, 0.02

Notes = dict[str, float | str | bool]


class WiseHparams(SidecarHparams):
    """Hyperparameters of WISE, named as in the published configurations; `act_margin` is (alpha, beta, gamma).

    `norm_constraint` is the half-width of the box that every entry of D stays in, None for no box.
    """

    mask_ratio: float = Field(gt=0, le=1)
    edit_lr: float = Field(gt=0)
    n_iter: int = Field(gt=0)
    norm_constraint: float | None
    act_margin: tuple[float, float, float]
    act_ratio: float = Field(gt=0)
    save_freq: int = Field(gt=0)
    merge_freq: int = Field(gt=0)
    densities: float = Field(gt=0, le=1)
    scope: Literal["subject", "last"]
    weight_decay: float = 1e-5  # easyeditor/models/wise/WISE.py at 14cea82
    # easyeditor/models/wise/wise_main.py and utils.py at 14cea82
    context_template_length_params: tuple[tuple[int, int], ...] = Field(default=((5, 5), (10, 5)), min_length=1)
    context_starts: tuple[str, ...] = Field(default=("I", "You", "Because", "Yes", "Q: "), min_length=1)

    sought: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "edit_lr": (0.5, 2),
        "n_iter": (0.5, 2),
        "norm_constraint": (0.5, 2),
        "mask_ratio": (0.5, 2),
    }
    published: ClassVar[Published] = Published(
        only={
            "merge_alg": ("ties",),
            "objective_optimization": ("only_label",),
            "weights": (1.0,),
            "retrieve": (True,),
            "replay": (False,),
        },
        implied={"scope": "last"},
    )

    @model_validator(mode="after")
    def _merges_whole_memories(self) -> Self:
        if self.merge_freq % self.save_freq:
            raise ValueError(f"merge_freq must be a multiple of save_freq, which is {self.save_freq}")
        return self


class Wise(SidecarEditor):
    """WISE as an editor."""

    Hparams = WiseHparams
    hparams: WiseHparams
    sidecars: ClassVar[Mapping[str, type[Sidecar]]] = {Routed.kind: Routed}
    traits: ClassVar[Traits] = Traits(
        changes="sidecar",
        paper="WISE: Rethinking the Knowledge Memory for Lifelong Model Editing of LLMs, arXiv 2405.14768",
        reference="https://github.com/zjunlp/EasyEdit, easyeditor/models/wise at 14cea82",
    )

    def prepare(self, progress: Progress | None = None, corpus: Path | None = None) -> None:
        """Sample the context templates."""
        self.templates()

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
        """A sidecar with D and the memories, those of `carry` included. `carry` is a `WiseState` as tensors.

        Notes of the last request: steps; nll_at_stop (nats per target token), margin_at_stop and their sum
        loss_at_stop; inside_least, inside_mean, outside_mean, outside_most (distances); side_norm (of D); memories.
        """
        self.refuse_none(requests)
        settings, state = self.hparams, self._open(carry, requests[0])
        notes: Notes = {}
        for request in requests:
            if int(state.count) % settings.save_freq == 0:
                drawn = torch.rand(state.mask.shape, generator=self.generator(request)) < settings.mask_ratio
                state = replace(state, mask=drawn.to(state.side.device))
            with riding(self.handle.model, self._sidecar(state)):
                learned, notes = self._learn(state, request)
            state = learned.after_edit(
                save_freq=settings.save_freq, merge_freq=settings.merge_freq, densities=settings.densities
            )
        return Edit(
            self.name,
            tuple(request.id for request in requests),
            self.handle.identity,
            sidecars=(self._sidecar(state),),
            notes={**notes, "memories": len(state.kept)},
            carry={part.name: getattr(state, part.name) for part in fields(WiseState)},
        )

    def _open(self, carry: Mapping[str, Tensor] | None, first: EditRequest) -> WiseState:
        weight = self.handle.weight(self.site)
        if carry:
            shape = (self.site.d_out, self.site.d_in)
            self.expect_shapes(carry, {"side": shape, "mask": shape, "kept": shape})
            return WiseState(**{part.name: carry[part.name].to(weight.device) for part in fields(WiseState)})
        side = torch.zeros(weight.shape, device=weight.device)
        floors = torch.full((1,), math.inf, device=weight.device)
        count = torch.zeros((), dtype=torch.long)
        return WiseState(side, side > 0, weight.new_zeros(0, *side.shape), floors, count, self.new_lineage(first))

    def _sidecar(self, state: WiseState) -> Routed:
        begun = int(state.floors[-1].isfinite())
        sides = torch.cat([state.kept, state.side[None][:begun].to(state.kept)])
        bars = state.floors[: len(sides)] * self.hparams.act_ratio
        return Routed(self.site.module, int(state.lineage), activation_of(self.handle), sides, bars)

    def _learn(self, state: WiseState, request: EditRequest) -> tuple[WiseState, Notes]:
        """D trained on one request, and the floor lowered to what its tokens reach."""
        settings, step, last = self.hparams, 0, math.inf
        weight, side = self.handle.weight(self.site).float(), state.side.clone().requires_grad_(True)
        with gradients.only(self.handle.model):
            learner = Learner(self.site.module, int(state.lineage), side, torch.zeros(()))
            by_subject = settings.scope == "subject"
            prompts = EditPrompts(self.handle, request, self.templates(), learner, by_subject=by_subject)
            while True:
                inside, outside = prompts.distances()
                nll, spread = prompts.nll(), margin(inside, outside, settings.act_margin)
                loss = nll + spread
                now = loss.item()
                settled = abs(now - last) <= STILL and now <= LOW
                if settled or step == settings.n_iter or not math.isfinite(now):
                    break
                last, step = now, step + 1
                (slope,) = torch.autograd.grad(loss, [side])
                with torch.no_grad():
                    side -= settings.edit_lr * state.mask * (slope + settings.weight_decay * (weight + side))
                    if settings.norm_constraint is not None:
                        side.clamp_(-settings.norm_constraint, settings.norm_constraint)
        floors = torch.cat([state.floors[:-1], torch.minimum(state.floors[-1:], inside.detach().min()[None])])
        return replace(state, side=side.detach(), floors=floors), {
            "steps": step,
            "loss_at_stop": now,
            "nll_at_stop": nll.item(),
            "margin_at_stop": spread.item(),
            "inside_least": inside.min().item(),
            "inside_mean": inside.mean().item(),
            "outside_mean": outside.mean().item(),
            "outside_most": outside.max().item(),
            "side_norm": side.norm().item(),
        }


EDITOR = Wise
