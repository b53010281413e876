"""GRACE: a codebook beside a layer. Where the layer's input comes close to a stored key, its output is a stored value.

The key of an edit is the layer's input at the last prompt token; its value is trained there, by Adam, until the target
follows. At every token the nearest key decides: within its radius epsilon the value replaces the output, anywhere else
the model is bit for bit what it was. A new key (Hartvigsen et al., section 3.2 and algorithm 1):

    farther than epsilon_init + epsilon_near from the nearest   gets an entry with epsilon_init
    nearer, another label                                       gets an entry; both radii become half the distance
    nearer, the same label                                      the nearest entry's radius grows to include it

Where we differ from the published code: every token is compared, which needs neither the length of the prompt nor an
index from the last edit, so that the prompts of an evaluation may have any length and any padding; the label of an
entry is its target's ids, compared exactly (theirs compares means, with the wrong entry from the second on); a prompt
that is edited again overwrites its entry (theirs leaves two radii of zero); distances are computed from differences,
not from products, which are wrong near zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editing import gradients
from editsafety.editing.keys import by_token
from editsafety.editing.suffix import Suffix
from editsafety.editors import Traits
from editsafety.editors._sidecar import SidecarEditor, SidecarHparams, Voice, riding
from editsafety.edits.edit import Edit, Sidecar
from editsafety.hyperparameters import Published
from editsafety.model import logits, trace
from editsafety.model.handle import ModelHandle

GAP = 1e-5  # easyeditor/models/grace/GRACE.py at 14cea82: of two halves the old one is this much smaller
SAME = 1e-3  # of a key's norm: rounding moves the input of one prompt by up to 1e-5 of it in float32
NO_TOKEN = -1


class GraceHparams(SidecarHparams):
    """Hyperparameters of GRACE, named as in the published configurations.

    `eps` is the first radius of an entry, in the units of the layer's input. `val_init`: a value begins at random
    (uniform in [0, 1), "cold") or at the layer's own output ("warm").
    """

    edit_lr: float = Field(gt=0)
    n_iter: int = Field(gt=0)
    eps: float = Field(gt=0)
    val_init: Literal["cold", "warm"]

    sought: ClassVar[Mapping[str, tuple[float, ...]]] = {"edit_lr": (0.5, 2), "n_iter": (0.5, 2), "eps": (0.25, 4)}
    published: ClassVar[Published] = Published(
        aside=dict.fromkeys(
            ("val_train", "val_reg", "reg", "num_pert", "dropout"), "the published code reads it nowhere"
        ),
        only={"dist_fn": ("euc",), "replacement": ("replace_last",), "eps_expand": ("coverage",)},
    )


@dataclass(frozen=True, eq=False)
class Codebook:
    """What a sequence hands on: the entries of its memory, float32."""

    # `[n, d_in]`.
    keys: Tensor
    # What is said in the place of the layer's output, `[n, d_out]`.
    values: Tensor
    # The radius within which an entry speaks, `[n]`.
    epsilons: Tensor
    # Target ids `[n, longest]`, -1 behind.
    labels: Tensor
    # A random number that tells one codebook and its successors from another.
    lineage: Tensor

    def placed(self, key: Tensor, label: Sequence[int], start: Tensor, eps: float) -> tuple[Self, int, str]:
        """The codebook after `key` came with `label`; which entry is to be trained; what was done.

        "new", "split", "covered" (same label, already or now within the radius) or "overwritten" (same prompt, other
        label). A new entry's value is `start`.
        """
        if len(self.keys) == 0:
            return self._with(key, label, start, eps), 0, "new"
        distance, nearest = (key - self.keys).norm(dim=1).min(0)
        reach, at, old = float(distance), int(nearest), self.epsilons.clone()
        if reach > eps + float(old[at]):
            return self._with(key, label, start, eps), len(self.keys), "new"
        if [t for t in self.labels[at].tolist() if t != NO_TOKEN] == list(label):
            old[at] = max(reach, float(old[at]))
            return replace(self, epsilons=old), at, "covered"
        if reach <= SAME * float(key.norm()):
            fresh = self._with(key, label, start, eps)
            values, labels = self.values.clone(), fresh.labels[:-1].clone()
            values[at], labels[at] = start, fresh.labels[-1]
            return replace(self, values=values, labels=labels), at, "overwritten"
        old[at] = reach / 2 - GAP
        return replace(self, epsilons=old)._with(key, label, start, reach / 2), len(self.keys), "split"

    def _with(self, key: Tensor, label: Sequence[int], value: Tensor, epsilon: float) -> Self:
        width = max(self.labels.shape[1], len(label))
        labels = torch.full((len(self.keys) + 1, width), NO_TOKEN, dtype=torch.long, device=self.labels.device)
        labels[:-1, : self.labels.shape[1]] = self.labels
        labels[-1, : len(label)] = torch.tensor(label)
        return replace(
            self,
            keys=torch.cat([self.keys, key[None]]),
            values=torch.cat([self.values, value[None]]),
            epsilons=torch.cat([self.epsilons, self.epsilons.new_tensor([epsilon])]),
            labels=labels,
        )


@dataclass(eq=False)
class Discrete(Voice, Sidecar):
    """A codebook at work: keys `[n, d_in]`, values `[n, d_out]`, epsilons `[n]`."""

    kind: ClassVar[str] = "grace"
    target: str
    lineage: int
    keys: Tensor
    values: Tensor
    epsilons: Tensor
    _here: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def speak(self, received: Tensor, output: Tensor) -> Tensor:
        """Each token's nearest key replaces the output where it is within its radius."""
        if received.device not in self._here:
            self._here[received.device] = (self.keys.to(received.device), self.epsilons.to(received.device))
        keys, epsilons = self._here[received.device]
        if len(keys) == 0:
            return output
        queries = received.detach().reshape(-1, received.shape[-1]).to(keys)
        # Not through products of matrices: those lose the distances near zero, and round with the size of the batch.
        distances = torch.cdist(queries, keys, compute_mode="donot_use_mm_for_euclid_dist")
        nearest, at = distances.min(1)
        within = (nearest <= epsilons[at]).reshape(*received.shape[:-1], 1)
        if not within.any():
            return output
        values = self.values.to(output)[at].reshape(output.shape)
        return torch.where(within.to(output.device), values, output)

    def tensors(self) -> Mapping[str, Tensor]:
        """keys, values, epsilons"""
        return {"keys": self.keys, "values": self.values, "epsilons": self.epsilons}

    def settings(self) -> Mapping[str, Any]:
        """Lineage"""
        return {"lineage": self.lineage}

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """The inverse of `tensors` and `settings`."""
        return cls(target, int(settings["lineage"]), tensors["keys"], tensors["values"], tensors["epsilons"])


class Grace(SidecarEditor):
    """GRACE as an editor."""

    Hparams = GraceHparams
    hparams: GraceHparams
    sidecars: ClassVar[Mapping[str, type[Sidecar]]] = {Discrete.kind: Discrete}
    traits: ClassVar[Traits] = Traits(
        changes="sidecar",
        paper="Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors, arXiv 2211.11031",
        reference="https://github.com/zjunlp/EasyEdit, easyeditor/models/grace at 14cea82",
    )

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """A sidecar with the whole codebook, the entries of `carry` included. `carry` is the codebook as tensors.

        Notes of the last request: placed (new, split, covered or overwritten), epsilon, nearest (distance to the
        nearest older key; not for the first), key_norm, value_norm, nll_before and nll_at_stop in nats per target
        token, steps; entries of the codebook.
        """
        self.refuse_none(requests)
        codebook = self._open(carry, requests[0])
        notes: dict[str, float | str | bool] = {}
        for request in requests:
            with riding(self.handle.model, self._sidecar(codebook, codebook.values)):
                codebook, notes = self._learn(codebook, request)
        return Edit(
            self.name,
            tuple(request.id for request in requests),
            self.handle.identity,
            sidecars=(self._sidecar(codebook, codebook.values),),
            notes={**notes, "entries": len(codebook.keys)},
            carry={one.name: getattr(codebook, one.name) for one in fields(Codebook)},
        )

    def _open(self, carry: Mapping[str, Tensor] | None, first: EditRequest) -> Codebook:
        """The codebook so far."""
        device = self.handle.model.get_parameter(self.site.parameter).device
        if not carry:
            return Codebook(
                keys=torch.zeros(0, self.site.d_in, device=device),
                values=torch.zeros(0, self.site.d_out, device=device),
                epsilons=torch.zeros(0, device=device),
                labels=torch.zeros(0, 0, dtype=torch.long, device=device),
                lineage=self.new_lineage(first),
            )
        self.expect_shapes(carry, {"keys": (self.site.d_in,), "values": (self.site.d_out,)})
        return Codebook(**{one.name: carry[one.name].to(device) for one in fields(Codebook)})

    def _sidecar(self, codebook: Codebook, values: Tensor) -> Discrete:
        lineage = int(codebook.lineage)
        return Discrete(self.site.module, lineage, codebook.keys, values, codebook.epsilons)

    def _learn(self, codebook: Codebook, request: EditRequest) -> tuple[Codebook, dict[str, float | str | bool]]:
        """The codebook with the request's entry placed and its value trained."""
        settings = self.hparams
        prompt = self.handle.ids(request.filled)
        target = self.handle.target_ids(request.target_new, request.filled)
        key, output = _at_end(self.handle, self.site.module, prompt)
        random = torch.rand(self.site.d_out, generator=self.generator(request)).to(output)
        start = random if settings.val_init == "cold" else output
        nearest = (key - codebook.keys).norm(dim=1).min().item() if len(codebook.keys) else None
        codebook, at, what = codebook.placed(key, target, start, settings.eps)
        values = codebook.values.clone().requires_grad_(True)
        losses = self._train(self._sidecar(codebook, values), prompt, target)
        codebook = replace(codebook, values=values.detach())
        notes: dict[str, float | str | bool] = {
            "placed": what,
            "epsilon": codebook.epsilons[at].item(),
            "key_norm": key.norm().item(),
            "value_norm": codebook.values[at].norm().item(),
            "nll_before": losses[0],
            "nll_at_stop": losses[-1],
            "steps": settings.n_iter,
        }
        return codebook, notes if nearest is None else {**notes, "nearest": nearest}

    def _train(self, car: Discrete, prompt: Sequence[int], target: Sequence[int]) -> list[float]:
        """Adam on the values that speak in this row; returns the loss before every step and behind the last one."""
        handle, losses = self.handle, []
        optimiser = torch.optim.Adam([car.values], lr=self.hparams.edit_lr)
        with gradients.only(handle.model):
            # What stands before the last prompt token is out of the new entry's reach, and stays as it is.
            suffix = Suffix(handle, [[*prompt, *target[:-1]]], [len(prompt) - 1])
            positions = torch.arange(len(target))
            labels = torch.tensor(target, device=handle.device)
            with riding(handle.model, car), logits.only_at(handle, torch.zeros_like(positions), positions):
                for step in range(self.hparams.n_iter + 1):
                    scores = logits.log_probabilities(suffix.logits()[0]).to(labels.device)
                    loss = -scores.gather(1, labels[:, None]).mean()
                    losses.append(loss.item())
                    if step == self.hparams.n_iter:
                        break
                    (car.values.grad,) = torch.autograd.grad(loss, [car.values])
                    optimiser.step()
        return losses


@torch.no_grad()
def _at_end(handle: ModelHandle, module: str, prompt: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What a module receives `[d_in]` and returns by itself `[d_out]` at the last token of a prompt, float32."""
    batch = handle.batch([prompt])
    with trace.watch(handle.model, [module], stop=True) as seen:
        handle.run(batch.ids, batch.mask)
    received = by_token(seen.inputs[module], *batch.ids.shape)
    returned = handle.model.get_submodule(module).forward(received)  # its own: hooks do not run
    return received[0, -1].float(), returned[0, -1].float()


EDITOR = Grace
