"""What KN as published and KN as in the paper have in common: integrated gradients over the neurons of every MLP.

A neuron is an entry of the vector in the middle of an MLP at the prompt's last token. Its attribution is

    w_i * (1 / steps) * sum_r dP(old answer) / dw_i    at w = alpha_r * w, all neurons of the layer scaled together

("Knowledge Neurons in Pretrained Transformers", section 3.2). Neurons above `adaptive_threshold` times the largest
attribution of all layers stay; over several prompts those that more than `p` of them share. The edit adds one and the
same vector v to the value vector (the column of the MLP's down-projection, `[d_out, d_in]`) of each such neuron, so it
is rank one per layer: W += v 1^T, with 1 the indicator of the layer's neurons.

Only the last token is run again and again: what stands before it is kept as keys and values. Where we differ from the
published code: no batch size (a row is one token), and several requests are written one after the other.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from editsafety.datasets.request import EditRequest
from editsafety.editing import gradients
from editsafety.editing.suffix import Suffix
from editsafety.editors import Editor
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError
from editsafety.hyperparameters import Hparams, Published
from editsafety.model import trace
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site

Notes = dict[str, float | str | bool]
Neuron = tuple[int, int]  # layer, index


class Place(Enum):
    """Where a neuron is read: before the activation function, or behind it (and behind the gate, if there is one)."""

    PRE = "pre-activation"
    POST = "post-activation"


class NeuronHparams(Hparams):
    """The numbers of the attribution, named as in the published configurations.

    `refine` uses the request's rephrasings as further prompts. Generalisation is then measured on prompts that the
    editor has seen.
    """

    steps: int = Field(gt=0)
    adaptive_threshold: float = Field(ge=0, lt=1)
    p: float = Field(ge=0, lt=1)
    refine: bool = False

    sought: ClassVar[Mapping[str, tuple[float, ...]]] = {"adaptive_threshold": (0.5, 2), "p": (0.5, 2)}
    published: ClassVar[Published] = Published(
        aside=dict.fromkeys(("lr_scale", "n_toks"), "the published code reads it nowhere")
    )


@dataclass(frozen=True, slots=True)
class NeuronQuestion:
    """Ids of a prompt and the ids whose mean probability behind it is attributed."""

    ids: tuple[int, ...]
    answers: tuple[int, ...]


class NeuronEditor(Editor):
    """An editor of the KN family; a member says where neurons are, what is asked, and what is added."""

    Hparams = NeuronHparams
    folder = "kn"
    hparams: NeuronHparams
    place: ClassVar[Place]

    @abstractmethod
    def alphas(self) -> Tensor:
        """The points of the path from no activation (0) to the model's own (1)."""

    @abstractmethod
    def questions(self, prompt: str, old: str) -> list[NeuronQuestion]:
        """What is asked about one filled prompt and the old answer; attributions are averaged over it."""

    @abstractmethod
    def value(self, request: EditRequest, old: str) -> tuple[Tensor, Notes]:
        """What is added to the value vector of every neuron, `[d_out]`, and notes about it."""

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """A rank-one delta per request and layer that has neurons; none at all when no neuron stands out.

        Each request is computed on the model that carries those before it. Notes: see `_step`; with several requests
        they are numbered ("1.neurons"), and the plain names tell of the largest one.

        Raises EditorError when nothing is requested, or a request does not say the old answer.
        """
        self.refuse_none(requests)
        first, *rest = requests
        found = [self._step(first)]
        if rest:
            with EditSession(self.handle) as session:
                for request in rest:
                    session.apply(Edit(self.name, (), self.handle.identity, deltas=found[-1][0]))
                    found.append(self._step(request))
        return Edit(
            self.name,
            tuple(request.id for request in requests),
            self.handle.identity,
            deltas=tuple(delta for deltas, _ in found for delta in deltas),
            notes=_gather([notes for _, notes in found]),
        )

    def neurons(self, request: EditRequest) -> tuple[list[Neuron], Notes]:
        """The neurons of a request's old answer, sorted, and what is noted about them."""
        old = self._old(request)
        prompts = [request.filled, *(request.rephrasings if self.hparams.refine else ())]
        kept: list[list[Neuron]] = []
        tops: list[float] = []
        for prompt in prompts:
            scores = self._attribute(prompt, old)
            tops.append(max(float(layer.max()) for layer in scores))
            kept.append(coarse(scores, self.hparams.adaptive_threshold * tops[-1]))
        return shared(kept, self.hparams.p), {"prompts": len(prompts), "largest_attribution": tops[0]}

    def _old(self, request: EditRequest) -> str:
        if request.target_true is None:
            raise EditorError(
                f"{self.name} looks for the neurons of the old answer, and request {request.id!r} does not say it. "
                "Give its field 'target_true' (on the command line --true)."
            )
        return request.target_true

    def _attribute(self, prompt: str, old: str) -> list[Tensor]:
        """Mean over the questions about a prompt: one tensor `[d_in]` per layer."""
        asked = self.questions(prompt, old)
        scores = [attributions(self.handle, question, self.alphas(), self.place) for question in asked]
        return [torch.stack(layer).mean(0) for layer in zip(*scores, strict=True)]

    def _step(self, request: EditRequest) -> tuple[tuple[LowRank, ...], Notes]:
        """The deltas of one request, and the figures that explain them.

        neurons and layers (how many), prompts, largest_attribution (of the prompt itself), value_norm ||v||,
        update_norm (Frobenius, over all layers), loudest and loudest_neuron (see `loudest`), and what the member notes.
        """
        chosen, about = self.neurons(request)
        about |= loudest(self.handle, chosen, self.handle.ids(request.filled))
        vector, more = self.value(request, self._old(request))
        by_layer: dict[int, list[int]] = {}
        for layer, index in chosen:
            by_layer.setdefault(layer, []).append(index)
        deltas = tuple(self._delta(layer, indices, vector) for layer, indices in by_layer.items())
        norm = float(vector.norm())
        counts: Notes = {"neurons": len(chosen), "layers": len(by_layer)}
        norms: Notes = {"value_norm": norm, "update_norm": norm * len(chosen) ** 0.5, "place": self.place.value}
        return deltas, {**counts, **about, **norms, **more}

    def _delta(self, layer: int, indices: Sequence[int], vector: Tensor) -> LowRank:
        site = self.handle.mlp_out(layer)
        if site.d_out != len(vector):
            raise EditorError(
                f"{self.name} adds embeddings of {len(vector)} numbers to value vectors of {site.d_out} in "
                f"{self.handle.name}; they have to be equally long. Use another editor."
            )
        here = torch.zeros(1, site.d_in, device=vector.device)
        here[0, list(indices)] = 1.0
        return LowRank(site, vector[:, None], here)


def attributions(handle: ModelHandle, question: NeuronQuestion, alphas: Tensor, place: Place) -> list[Tensor]:
    """Integrated gradients of the mean probability of `question.answers`: one float32 `[d_in]` per layer.

    `alphas` `[steps]` are the points of the path. Gradients are taken with respect to all neurons of one layer at the
    prompt's last token at a time.
    """
    path, last = alphas.to(handle.device), len(question.ids) - 1
    suffix = Suffix(handle, [question.ids] * len(path), [last] * len(path))
    sites = [_site(handle, layer, place) for layer in range(handle.layers)]
    with torch.no_grad(), trace.watch(handle.model, [site.module for site in sites]) as seen:
        suffix.logits()
    answers = torch.tensor(question.answers, device=handle.device)
    found = []
    with gradients.only(handle.model):
        for layer, site in enumerate(sites):
            tensor = (seen.inputs if place is Place.POST else seen.outputs)[site.module]
            own = tensor.reshape(len(path), -1)[0, : handle.mlp_out(layer).d_in].float()
            scaled = (path.to(own.device)[:, None] * own).requires_grad_()
            with _instead(handle.model.get_submodule(site.module), place, scaled):
                probabilities = torch.softmax(suffix.logits()[:, 0], -1)
            (slope,) = torch.autograd.grad(probabilities[:, answers].mean(1).sum(), [scaled])
            found.append(own * slope.mean(0))
    return [layer.to(handle.device) for layer in found]


def loudest(handle: ModelHandle, chosen: Sequence[Neuron], ids: Sequence[int]) -> Notes:
    """The neuron that writes most beside its MLP, at whatever token of a text: how many times, and its name.

    It is |a_i| ||w_i|| at its largest, over the median norm of what the MLP writes at the tokens. A usual neuron writes
    a part of that. Hundreds of times as much are a massive activation, which single neurons write at the first token of
    every text and take back in the last layers ("Massive Activations in Large Language Models", arXiv 2402.17762): all
    attention leans on it, so whoever rewrites such a neuron rewrites every text. Nothing where no figure is finite.
    """
    sites = {layer: handle.mlp_out(layer) for layer, _ in chosen}
    if not sites:
        return {}
    modules = [site.module for site in sites.values()]
    with torch.no_grad(), trace.watch(handle.model, modules, stop=True) as seen:
        handle.logits(handle.batch([ids]))
    times: dict[Neuron, float] = {}
    for layer, site in sites.items():
        indices = [index for at, index in chosen if at == layer]
        fires = seen.inputs[site.module].reshape(-1, site.d_in)[:, indices].float().abs().amax(0)
        writes = fires * handle.weight(site)[:, indices].float().norm(dim=0)
        usual = seen.outputs[site.module].reshape(-1, site.d_out).float().norm(dim=1).median()
        times |= {(layer, i): x for i, x in zip(indices, (writes / usual).tolist(), strict=True) if math.isfinite(x)}
    if not times:
        return {}
    layer, index = max(times, key=lambda neuron: times[neuron])
    return {"loudest": times[layer, index], "loudest_neuron": f"neuron {index} of layer {layer}"}


def coarse(scores: Sequence[Tensor], threshold: float) -> list[Neuron]:
    """(layer, index) of every attribution above `threshold`."""
    return [(i, int(place)) for i, layer in enumerate(scores) for place in (layer > threshold).nonzero()[:, 0]]


def shared(kept: Sequence[Sequence[Neuron]], p: float) -> list[Neuron]:
    """The neurons that more than the share `p` of the prompts have, sorted."""
    counts = Counter(neuron for neurons in kept for neuron in neurons)
    return sorted(neuron for neuron, count in counts.items() if count > p * len(kept))


def embeddings(handle: ModelHandle, ids: Sequence[int]) -> Tensor:
    """Rows of the input embedding, float32 `[n, d]`."""
    weight: Tensor = handle.model.get_input_embeddings().weight
    return weight.detach()[list(ids)].float()


def _site(handle: ModelHandle, layer: int, place: Place) -> Site:
    """The projection whose input (post-activation) or output (pre-activation) the neurons are.

    Of a gated MLP it is the gate; where gate and the rest are one matrix, the gate is its first half.
    """
    out = handle.mlp_out(layer)
    if place is Place.POST:
        return out
    site = handle.sites(Part.MLP_IN, layer)[0]
    if site.d_out not in (out.d_in, 2 * out.d_in):
        raise EditorError(
            f"{site.module} of {handle.name} has {site.d_out} outputs for {out.d_in} neurons; expected as many, or "
            "twice as many with the gate first. Use a method that reads the neurons behind the activation (kn_paper)."
        )
    return site


@contextmanager
def _instead(module: nn.Module, place: Place, neurons: Tensor) -> Iterator[None]:
    """Let `neurons` `[rows, d_in]` stand where a module's first input or output has them, one token per row."""

    def put(tensor: Tensor) -> Tensor:
        flat = tensor.reshape(len(neurons), -1)
        own = neurons.to(tensor)
        return torch.cat([own, flat[:, own.shape[1] :]], 1).reshape(tensor.shape)

    def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (put(args[0]), *args[1:])

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        return put(output)

    post = place is Place.POST
    hook = module.register_forward_pre_hook(before) if post else module.register_forward_hook(after)
    try:
        yield
    finally:
        hook.remove()


def _gather(notes: Sequence[Notes]) -> Notes:
    if len(notes) == 1:
        return notes[0]
    numbered = {f"{i}.{name}": value for i, note in enumerate(notes, 1) for name, value in note.items()}
    return {**max(notes, key=lambda note: float(note["update_norm"])), **numbered}
