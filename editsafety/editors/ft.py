"""Fine-tuning of the MLP's down-projection, with or without a bound: FT, FT-L and FT-M.

Adam on the weights of `layers`, everything else frozen, evaluation mode, until the mean loss is below `stop_loss`.
With `norm_constraint` e, every entry stays within e of its value at the start (FT-L, ROME's baseline).
`loss` says what is trained:

    prompt_last  the probability of every target token *at the last prompt token*: a mixture, not a sequence, when the
                 target has several tokens. What ROME and its successors call FT.
    target_new   the usual cross entropy of the target's tokens behind the prompt. What EasyEdit calls FT-M.

Where we differ from the published code: the labels are the ids of the target as it continues the prompt. Published FT-L
tokenises the target by itself, and tells its padding by the UNK token: with a tokenizer that has none (Llama 3), BOS
and padding are trained as targets, too, at the same place as the answer. Here neither can become one. The bias is
trained only with `train_bias` (their substring matching of names trains GPT-2's unasked); the result is the trained
weight itself, not a difference that is added again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from editsafety.datasets.request import EditRequest
from editsafety.editing import gradients
from editsafety.editors import Editor, Traits
from editsafety.edits.edit import Edit, Replace
from editsafety.edits.session import EditSession
from editsafety.hyperparameters import Hparams, Published
from editsafety.model import logits
from editsafety.model.handle import ModelHandle


class FtHparams(Hparams):
    """Hyperparameters of fine-tuning, named as in the published configurations."""

    layers: tuple[int, ...] = Field(min_length=1)
    num_steps: int = Field(gt=0)
    lr: float = Field(gt=0)
    norm_constraint: float | None
    loss: Literal["prompt_last", "target_new"]
    weight_decay: float = 0.0
    batch_size: int = Field(default=64, gt=0)
    train_bias: bool = False
    stop_loss: float = 0.01  # rome/baselines/ft/ft_main.py at 0874014

    layer_numbers: ClassVar[tuple[str, ...]] = ("layers",)
    sought: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "lr": (0.25, 4),
        "num_steps": (0.5, 2),
        "norm_constraint": (0.25, 4),
        "weight_decay": (0.1, 10),
    }
    published: ClassVar[Published] = Published(
        aside={"wd_power_law": "the published code never applies it"},
        renamed={"objective_optimization": "loss"},
        implied={"loss": "prompt_last"},
    )


class FineTuning(Editor):
    """Fine-tuning as an editor."""

    Hparams = FtHparams
    hparams: FtHparams
    traits: ClassVar[Traits] = Traits(
        batch=True,
        paper="Modifying Memories in Transformer Models, arXiv 2012.00363; baseline of arXiv 2202.05262",
        reference="https://github.com/kmeng01/rome, baselines/ft at 0874014",
    )

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """The trained parameters, whole. Notes: steps, loss_at_stop (mean of the last epoch), update_norm."""
        self.refuse_none(requests)
        with EditSession(self.handle) as session:
            names = self._names()
            before = {name: self.handle.model.get_parameter(name).detach().clone() for name in names}
            trained = session.borrow(names)
            with gradients.only(self.handle.model, trained.values()):
                steps, loss = self._train(requests, trained, before)
            after = {name: parameter.detach().clone() for name, parameter in trained.items()}
        norm = sum(float((after[name] - before[name]).float().norm()) ** 2 for name in names) ** 0.5
        return Edit(
            self.name,
            tuple(request.id for request in requests),
            self.handle.identity,
            deltas=tuple(Replace(name, value) for name, value in after.items()),
            notes={"steps": steps, "loss_at_stop": loss, "update_norm": norm, "loss": self.hparams.loss},
        )

    def _names(self) -> list[str]:
        names = []
        for layer in sorted(self.hparams.layers):
            site = self.handle.mlp_out(layer)
            names.append(site.parameter)
            module = self.handle.model.get_submodule(site.module)
            if self.hparams.train_bias and getattr(module, "bias", None) is not None:
                names.append(f"{site.module}.bias")
        return names

    def _train(
        self, requests: Sequence[EditRequest], trained: Mapping[str, nn.Parameter], before: Mapping[str, Tensor]
    ) -> tuple[int, float]:
        """Epochs over the requests in their order; returns optimiser steps and the last epoch's mean loss."""
        settings = self.hparams
        tensors = list(trained.values())
        optimiser = torch.optim.Adam(tensors, lr=settings.lr, weight_decay=settings.weight_decay)
        size = settings.batch_size
        chunks = [requests[start : start + size] for start in range(0, len(requests), size)]
        read = [_TargetLoss(self.handle, chunk, settings.loss) for chunk in chunks]
        steps, mean = 0, float("nan")
        for _ in range(settings.num_steps):
            total = 0.0
            for reading in read:
                loss = reading.loss()
                total += loss.item() * reading.count
                if not loss.item() < settings.stop_loss:
                    for parameter, slope in zip(tensors, torch.autograd.grad(loss, tensors), strict=True):
                        parameter.grad = slope
                    optimiser.step()
                    steps += 1
                if settings.norm_constraint is not None:
                    _clamp(trained, before, settings.norm_constraint)
            mean = total / len(requests)
            if not mean >= settings.stop_loss:
                break
        return steps, mean


class _TargetLoss:
    """The rows of some requests and where their loss is read."""

    def __init__(self, handle: ModelHandle, requests: Sequence[EditRequest], loss: str) -> None:
        self.handle = handle
        self.count = len(requests)
        rows: list[list[int]] = []
        read: list[tuple[int, int, int, float]] = []
        for j, request in enumerate(requests):
            prompt, target = handle.ids(request.filled), handle.target_ids(request.target_new, request.filled)
            rows.append([*prompt, *target[:-1]] if loss == "target_new" else prompt)
            for a, token in enumerate(target):
                place = len(prompt) - 1 + (a if loss == "target_new" else 0)
                read.append((j, place, token, 1 / (len(target) * len(requests))))
        self.batch = handle.batch(rows)
        self.rows, self.positions = (torch.tensor([entry[i] for entry in read]) for i in (0, 1))
        self.labels = torch.tensor([entry[2] for entry in read], device=handle.device)
        self.weights = torch.tensor([entry[3] for entry in read], device=handle.device)

    def loss(self) -> Tensor:
        """-mean over requests of the mean over target tokens of log P; nats."""
        with logits.only_at(self.handle, self.rows, self.positions):
            scores = logits.log_probabilities(self.handle.logits(self.batch)[0]).to(self.labels.device)
        return -(scores.gather(1, self.labels[:, None])[:, 0] * self.weights).sum()


@torch.no_grad()
def _clamp(trained: Mapping[str, nn.Parameter], before: Mapping[str, Tensor], bound: float) -> None:
    """Every entry back into the box of half-width `bound` around its first value."""
    for name, parameter in trained.items():
        parameter.clamp_(before[name] - bound, before[name] + bound)


EDITOR = FineTuning
