"""LoRA: low-rank adapters beside some projections, trained on the target, then read off as data.

peft puts W x + s B A x in the place of W x and trains A and B; the edit is `W += s B A`. `lora_type: adalora` trains
W x + s B diag(E) A x with a penalty that keeps A and B orthogonal, which is what the published editing configurations
ask for.

Where we differ from the published code (EasyEdit):
- its edited model keeps the adapters' dropout switched on, so that it says something else at every call; ours is a
  sum of matrices. Dropout works while the adapters are trained, drawn from the editor's seed;
- the base model is in evaluation mode throughout; neither gradient checkpointing nor `use_cache=False` stays behind;
- ids of prompt and target are joined, so neither padding nor a BOS can become a target, and no end of text is trained
  behind the target;
- AdaLoRA never reads `r`: its rank is `init_r`, 12 unless given. Our `rank` is the rank that is used. As there, the
  schedule that would take rank away from some projections is never run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editing import gradients
from editsafety.editors import Editor, Traits
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.session import EditSession
from editsafety.errors import UsageError
from editsafety.hyperparameters import Hparams, Published
from editsafety.model import logits
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Layout, Site

ADAPTER = "default"
RANK_FLOOR = 1e-5  # peft's SVDLinear divides by the rank plus this


class LoraHparams(Hparams):
    """Hyperparameters of LoRA, named as in the published configurations.

    `target_modules` are the parts attention_in, attention_out, mlp_in and mlp_out, which every family has, or the
    model's own names of projections inside a block ("c_attn", "self_attn.q_proj"). `layers`: all when empty.
    `stop_loss` ends training early; the published code never stops. `orth_reg_weight` belongs to adalora.
    """

    layers: tuple[int, ...] = ()
    target_modules: tuple[str, ...] = Field(min_length=1)
    lora_type: Literal["lora", "adalora"]
    rank: int = Field(gt=0)
    lora_alpha: float = Field(gt=0)
    lora_dropout: float = Field(ge=0, lt=1)
    num_steps: int = Field(gt=0)
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=1, gt=0)
    stop_loss: float = Field(default=0.0, ge=0)
    orth_reg_weight: float = Field(default=0.5, ge=0)  # peft's default, which the published code leaves as it is

    layer_numbers: ClassVar[tuple[str, ...]] = ("layers",)
    sought: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "lr": (0.25, 4),
        "num_steps": (0.5, 2),
        "lora_alpha": (0.5, 2),
        "rank": (0.5, 2),
    }
    projection_names: ClassVar[tuple[str, ...]] = ("target_modules",)
    published: ClassVar[Published] = Published(
        only={"norm_constraint": (False,)},
        implied={"lora_type": "adalora"},  # what EasyEdit did before its files said which
        refused={"sh_lr": "lowers the rate from step to step, which is not done here"},
    )


class Lora(Editor):
    """LoRA as an editor."""

    Hparams = LoraHparams
    hparams: LoraHparams
    traits: ClassVar[Traits] = Traits(
        batch=True,
        paper="LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685; AdaLoRA, arXiv 2303.10512",
        reference="https://github.com/zjunlp/EasyEdit, easyeditor/models/lora at 14cea82",
    )

    def missing(self) -> str | None:
        """Nothing has to be prepared. Raises UsageError when peft is not installed."""
        if importlib.util.find_spec("peft") is None:
            raise UsageError(f"{self.name} needs peft, which is not installed here: pip install 'editsafety[lora]'.")
        return None

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The adapted projections, from below. Raises UsageError for a name that no block has."""
        layers = sorted(self.hparams.layers) or range(self.handle.layers)
        names = self.hparams.target_modules
        found = [site for layer in layers for name in names for site in _sites_named(self.handle, name, layer)]
        return tuple(dict.fromkeys(found))

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """One delta of rank `rank` per projection, trained together on all requests.

        Notes: steps, loss_at_stop (mean of the last epoch, dropout and penalty included), nll_at_stop (nats per target
        token without them), update_norm (Frobenius, over all projections), modules.
        """
        self.refuse_none(requests)
        self.missing()
        with (
            EditSession(self.handle),
            _drawn_from(self.generator(requests[0]), self.handle.device),
            gradients.only(self.handle.model),
            _adapted(self.handle, self.sites, self._config(len(requests))) as layers,
        ):
            steps, loss, nll = self._train(requests, list(layers.values()))
            deltas = tuple(self._delta(site, layers[site.module]) for site in self.sites)
        return Edit(
            self.name,
            tuple(request.id for request in requests),
            self.handle.identity,
            deltas=deltas,
            notes={
                "steps": steps,
                "loss_at_stop": loss,
                "nll_at_stop": nll,
                "update_norm": sum(_squared_norm(delta) for delta in deltas) ** 0.5,
                "modules": len(deltas),
                "lora_type": self.hparams.lora_type,
            },
        )

    def _config(self, requests: int) -> Any:
        import peft

        settings = self.hparams
        both: dict[str, Any] = {
            "target_modules": [site.module for site in self.sites],
            "lora_alpha": settings.lora_alpha,
            "lora_dropout": settings.lora_dropout,
            "fan_in_fan_out": self.sites[0].layout is Layout.IN_OUT,
        }
        if settings.lora_type == "lora":
            return peft.LoraConfig(r=settings.rank, **both)
        total = settings.num_steps * -(-requests // settings.batch_size)
        return peft.AdaLoraConfig(init_r=settings.rank, total_step=total, **both)

    def _train(self, requests: Sequence[EditRequest], layers: Sequence[Any]) -> tuple[int, float, float]:
        """Epochs over the requests in their order: optimiser steps, the last epoch's mean loss, nats per token."""
        settings = self.hparams
        tensors = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
        optimiser = torch.optim.Adam(tensors, lr=settings.lr, weight_decay=settings.weight_decay)
        size = settings.batch_size
        read = [_Targets(self.handle, requests[at : at + size]) for at in range(0, len(requests), size)]
        steps, mean = 0, float("nan")
        for _ in range(settings.num_steps):
            total = 0.0
            for targets in read:
                loss = targets.nll() + self._penalty(layers)
                total += loss.item() * targets.count
                if not loss.item() < settings.stop_loss:
                    for parameter, slope in zip(tensors, torch.autograd.grad(loss, tensors), strict=True):
                        parameter.grad = slope
                    optimiser.step()
                    steps += 1
            mean = total / len(requests)
            if mean < settings.stop_loss:
                break
        for layer in layers:
            layer.lora_dropout.eval()
        with torch.no_grad():
            nll = sum(targets.nll().item() * targets.count for targets in read) / len(requests)
        return steps, mean, nll

    def _penalty(self, layers: Sequence[Any]) -> Tensor | float:
        """AdaLoRA's regulariser as peft has it: weight times the mean over all A, B of ||A A^T - I||, ||B^T B - I||."""
        if self.hparams.lora_type == "lora":
            return 0.0
        grams = [a @ a.T for layer in layers for a in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER].T)]
        ones = torch.eye(self.hparams.rank, device=grams[0].device, dtype=grams[0].dtype)
        distances = torch.stack([torch.linalg.norm(gram.to(ones) - ones) for gram in grams])
        return self.hparams.orth_reg_weight * distances.mean()

    def _delta(self, site: Site, layer: Any) -> LowRank:
        """What a trained layer adds to its projection."""
        scale, a, b = layer.scaling[ADAPTER], layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
        if self.hparams.lora_type == "lora":
            left, right = b.weight * scale, a.weight
        else:
            left, right = b * layer.lora_E[ADAPTER].T * (scale / (self.hparams.rank + RANK_FLOOR)), a
        return LowRank(site, left.detach().clone(), right.detach().clone())


class _Targets:
    """The rows of some requests and where their targets are predicted."""

    def __init__(self, handle: ModelHandle, requests: Sequence[EditRequest]) -> None:
        self.handle = handle
        self.count = len(requests)
        pairs = [(handle.ids(one.filled), handle.target_ids(one.target_new, one.filled)) for one in requests]
        self._batch = handle.batch([[*prompt, *target[:-1]] for prompt, target in pairs])
        places = [
            (row, len(prompt) - 1 + i, token, 1 / (len(target) * self.count))
            for row, (prompt, target) in enumerate(pairs)
            for i, token in enumerate(target)
        ]
        self._rows, self._positions = (torch.tensor([place[i] for place in places]) for i in (0, 1))
        self._labels = torch.tensor([place[2] for place in places], device=handle.device)
        self._weights = torch.tensor([place[3] for place in places], device=handle.device)

    def nll(self) -> Tensor:
        """Mean over requests of the mean over target tokens; nats."""
        with logits.only_at(self.handle, self._rows, self._positions):
            scores = logits.log_probabilities(self.handle.logits(self._batch)[0]).to(self._labels.device)
        return -(scores.gather(1, self._labels[:, None])[:, 0] * self._weights).sum()


def _sites_named(handle: ModelHandle, name: str, layer: int) -> tuple[Site, ...]:
    """The projections that a name means in one block."""
    if name in {part.value for part in Part}:
        return handle.sites(Part(name), layer)
    block = handle.block(layer)
    inside = [inner for inner, _ in handle.model.get_submodule(block).named_modules() if inner]
    chosen = [inner for inner in inside if f".{inner}".endswith(f".{name}")]
    if not chosen:
        known = ", ".join([*(part.value for part in Part), *inside])
        raise UsageError(f"target_modules: {block} of {handle.name} has no {name!r}. It has: {known}.")
    return tuple(handle.site(f"{block}.{inner}") for inner in chosen)


@contextmanager
def _adapted(handle: ModelHandle, sites: Sequence[Site], config: Any) -> Iterator[dict[str, Any]]:
    """Inside the block peft's layers stand in the place of the projections, by name; afterwards the projections do."""
    import peft

    model = handle.model
    kept = {site.module: model.get_submodule(site.module) for site in sites}
    try:
        peft.inject_adapter_in_model(config, model)
        layers: dict[str, Any] = {name: model.get_submodule(name) for name in kept}
        for layer in layers.values():
            for parameter in layer.parameters():
                if parameter.requires_grad:  # Adam in 16 bits divides by what has become 0
                    parameter.data = parameter.data.float()
            layer.lora_dropout.train()
        yield layers
    finally:
        for name, module in kept.items():
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module)
        vars(model).pop("peft_config", None)


@contextmanager
def _drawn_from(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Inside the block torch's own random numbers (first values and dropout, in peft) follow from `generator`."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        yield


def _squared_norm(delta: LowRank) -> float:
    """||left right||_F^2 from two small matrices."""
    left, right = delta.left.float(), delta.right.float()
    return float(((left.T @ left) * (right @ right.T)).sum())


EDITOR = Lora
