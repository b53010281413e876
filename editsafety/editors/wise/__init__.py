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
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import linear

from editsafety.datasets.request import EditRequest
from editsafety.editing import contexts, gradients, logits, subject
from editsafety.editing.keys import by_token
from editsafety.editing.suffix import Suffix
from editsafety.editors import Traits
from editsafety.editors._sidecar import SidecarEditor, SidecarHparams, Voice, riding
from editsafety.editors.wise import ties
from editsafety.editors.wise.side_copy import activation_of, distances, margin
from editsafety.edits.edit import Edit, Sidecar
from editsafety.errors import EditorError
from editsafety.hyperparameters import Published
from editsafety.model import trace
from editsafety.progress import Progress

STILL, LOW = (
    1e-4,
    0.02,
)  # easyeditor/models/wise/utils.py at 14cea82: it has converged when it moves by less, below this

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


@dataclass(frozen=True, eq=False)
class Progressed:
    """What a sequence hands on.

    D and its mask `[d_out, d_in]`; the finished sides `[m, d_out, d_in]`; the smallest in-scope distances `[m + 1]` of
    the finished sides and, last, of D (infinite before its first edit); the number of edits; the lineage.
    """

    side: Tensor
    mask: Tensor
    kept: Tensor
    floors: Tensor
    count: Tensor
    lineage: Tensor

    def filed(self, settings: WiseHparams) -> Self:
        """After another edit: a full D joins the finished sides, and the youngest of these are merged when due."""
        count, found = self.count + 1, self
        if int(count) % settings.save_freq == 0:
            found = replace(
                found,
                side=torch.zeros_like(self.side),
                kept=torch.cat([self.kept, self.side[None].to(self.kept)]),
                floors=torch.cat([self.floors, self.floors.new_tensor([math.inf])]),
            )
        if int(count) % settings.merge_freq == 0:
            old = len(found.kept) - settings.merge_freq // settings.save_freq
            one = ties.merged(found.kept[old:], settings.densities)
            floor = found.floors[old:-1].min()
            floors = torch.cat([found.floors[:old], floor[None], found.floors[-1:]])
            found = replace(found, kept=torch.cat([found.kept[:old], one[None]]), floors=floors)
        return replace(found, count=count)


@dataclass(eq=False)
class Routed(Voice, Sidecar):
    """Side copies at work: differences `[n, d_out, d_in]`, and the distance `[n]` that a token has to exceed."""

    kind: ClassVar[str] = "wise"
    target: str
    lineage: int
    activation: str
    sides: Tensor
    bars: Tensor
    _here: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def speak(self, received: Tensor, output: Tensor) -> Tensor:
        """Each token goes to the side with the largest distance among those whose bar it exceeds, else nowhere."""
        if received.device not in self._here:
            self._here[received.device] = (self.sides.to(received), self.bars.to(received.device))
        sides, bars = self._here[received.device]
        best, found = torch.zeros_like(output[..., :1], dtype=torch.float32), output
        for side, bar in zip(sides, bars, strict=True):
            moved = output + linear(received, side)
            distance = distances(self.activation, moved, output)[..., None]
            wins = (distance > bar) & (distance > best)
            best, found = torch.where(wins, distance, best), torch.where(wins, moved, found)
        return found

    def tensors(self) -> Mapping[str, Tensor]:
        """sides, bars"""
        return {"sides": self.sides, "bars": self.bars}

    def settings(self) -> Mapping[str, Any]:
        """lineage, activation"""
        return {"lineage": self.lineage, "activation": self.activation}

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """The inverse of `tensors` and `settings`."""
        return cls(target, int(settings["lineage"]), settings["activation"], tensors["sides"], tensors["bars"])


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
        return contexts.stored(
            self.handle,
            self.artifacts,
            lengths=settings.context_template_length_params,
            starts=settings.context_starts,
            seed=self.seed,
        )

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """A sidecar with D and the memories, those of `carry` included. `carry` is a `Progressed` as tensors.

        Notes of the last request: steps; nll_at_stop (nats per target token), margin_at_stop and their sum
        loss_at_stop; inside_least, inside_mean, outside_mean, outside_most (distances); side_norm (of D); memories.
        """
        if not requests:
            raise EditorError(f"{self.name} was given no request to edit.")
        settings, state = self.hparams, self._opened(carry, requests[0])
        notes: Notes = {}
        for request in requests:
            if int(state.count) % settings.save_freq == 0:
                drawn = torch.rand(state.mask.shape, generator=self.generator(request)) < settings.mask_ratio
                state = replace(state, mask=drawn.to(state.side.device))
            with riding(self.handle.model, self._sidecar(state)):
                learned, notes = self._learned(state, request)
            state = learned.filed(settings)
        return Edit(
            self.name,
            tuple(request.id for request in requests),
            self.handle.identity,
            sidecars=(self._sidecar(state),),
            notes={**notes, "memories": len(state.kept)},
            carry={one.name: getattr(state, one.name) for one in fields(Progressed)},
        )

    def _opened(self, carry: Mapping[str, Tensor] | None, first: EditRequest) -> Progressed:
        weight = self.handle.weight(self.site)
        if carry:
            shape = (self.site.d_out, self.site.d_in)
            self.expect_shapes(carry, {"side": shape, "mask": shape, "kept": shape})
            return Progressed(**{one.name: carry[one.name].to(weight.device) for one in fields(Progressed)})
        side = torch.zeros(weight.shape, device=weight.device)
        floors = torch.full((1,), math.inf, device=weight.device)
        count = torch.zeros((), dtype=torch.long)
        return Progressed(side, side > 0, weight.new_zeros(0, *side.shape), floors, count, self.new_lineage(first))

    def _sidecar(self, state: Progressed) -> Routed:
        begun = int(state.floors[-1].isfinite())
        sides = torch.cat([state.kept, state.side[None][:begun].to(state.kept)])
        bars = state.floors[: len(sides)] * self.hparams.act_ratio
        return Routed(self.site.module, int(state.lineage), activation_of(self.handle), sides, bars)

    def _learned(self, state: Progressed, request: EditRequest) -> tuple[Progressed, Notes]:
        """D trained on one request, and the floor lowered to what its tokens reach."""
        settings, step, last = self.hparams, 0, math.inf
        weight, side = self.handle.weight(self.site).float(), state.side.clone().requires_grad_(True)
        with gradients.only(self.handle.model):
            lesson = _Lesson(self, request, int(state.lineage), side)
            while True:
                inside, outside = lesson.distances()
                nll, spread = lesson.nll(), margin(inside, outside, settings.act_margin)
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


@dataclass(eq=False)
class _Learner(Voice):
    """D while it is trained, added where `here` `[rows, seq, 1]` is 1."""

    target: str
    lineage: int
    side: Tensor
    here: Tensor

    def speak(self, received: Tensor, output: Tensor) -> Tensor:
        here = self.here.to(output).reshape(*output.shape[:-1], 1)
        return output + here * linear(received, self.side.to(received))


class _Lesson:
    """The prompts of one edit in all contexts, each followed by the target.

    Below the edited layer nothing changes: what the layer receives and returns is recorded once, and so is everything
    before the first token that goes to the side copy.
    """

    def __init__(self, editor: Wise, request: EditRequest, lineage: int, side: Tensor) -> None:
        self.handle, self.activation = editor.handle, activation_of(editor.handle)
        target = self.handle.target_ids(request.target_new)
        prompts = [subject.locate(self.handle, request, template) for template in editor.templates()]
        by_subject = editor.hparams.scope == "subject"
        starts = [p.subject if by_subject else len(p.ids) - 1 for p in prompts]
        rows = [[*p.ids, *target[:-1]] for p in prompts]
        self.learner = _Learner(editor.site.module, lineage, side, torch.zeros(()))
        self._record(rows, starts, by_subject)
        self.suffix = Suffix(self.handle, rows, starts)
        here = torch.ones_like(self.suffix.batch.mask)
        if by_subject:
            here[:, 1:] = 0
        self.learner.here = here[..., None]
        read = [(j, len(p.ids) - 1 + a - starts[j]) for j, p in enumerate(prompts) for a in range(len(target))]
        self.rows, self.positions = torch.tensor(read).T
        self.labels = torch.tensor(target * len(prompts), device=self.handle.device)

    @torch.no_grad()
    def _record(self, rows: Sequence[Sequence[int]], starts: Sequence[int], by_subject: bool) -> None:
        batch, name = self.handle.batch(rows), self.learner.target
        with trace.watch(self.handle.model, [name], stop=True) as seen:
            self.handle.run(batch.ids, batch.mask)
        received = by_token(seen.inputs[name], *batch.ids.shape)
        output = self.handle.model.get_submodule(name).forward(received)  # its own: hooks do not run
        place = torch.arange(batch.ids.shape[1], device=output.device)
        first, real = torch.tensor(starts, device=output.device)[:, None], batch.mask.bool().to(output.device)
        inside = place == first if by_subject else (place >= first) & real
        outside = real & ~inside
        self.inside, self.outside = (received[inside], output[inside]), (received[outside], output[outside])

    def nll(self) -> Tensor:
        """Mean over contexts of the mean over target tokens, nats."""
        with riding(self.handle.model, self.learner), logits.only_at(self.handle, self.rows, self.positions):
            scores = logits.log_probabilities(self.suffix.logits()[0]).to(self.labels.device)
        return -scores.gather(1, self.labels[:, None]).mean()

    def distances(self) -> tuple[Tensor, Tensor]:
        """Of the tokens that the edit is about, and of the others."""
        side = self.learner.side
        inside, outside = (
            distances(self.activation, output + linear(received, side.to(received)), output)
            for received, output in (self.inside, self.outside)
        )
        return inside, outside


EDITOR = Wise
