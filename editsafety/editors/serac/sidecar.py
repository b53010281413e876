"""The sidecar of SERAC: memory, scope network and answer network around a model (see `editors.serac`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from editsafety.editors._root_sidecar import Asked, RootSidecar, leading
from editsafety.editors.serac import networks
from editsafety.editors.serac.networks import Net, NetShape
from editsafety.errors import EditError

NO_TOKEN = -1
FAINT = 1e-6  # what the soft mixture would not show
EXACT = "donot_use_mm_for_euclid_dist"  # products of matrices lose the distances near zero


class Read(NamedTuple):
    """Everything that the model has been given so far: ids `[batch, seq]`, and the left padding of each row."""

    rows: Tensor
    padding: Tensor


@dataclass(eq=False)
class Counterfactual(RootSidecar[Read]):
    """Both networks and the memory at work: prompts `[n, longest]` and targets likewise, -1 behind their ends."""

    kind: ClassVar[str] = "serac"
    scope: Net
    answer: Net
    prompts: Tensor
    targets: Tensor
    mixing: str
    threshold: float
    _vectors: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    def asks(self, asked: Asked, memory: Read | None) -> tuple[dict[str, Any], Read]:
        """The call as it is. Raises EditError for one with labels: the model's loss would be that before the edit."""
        if asked.by_name.get("labels") is not None:
            raise EditError("serac changes logits, not the model's own loss; take the loss from the logits.")
        if memory is None:
            return dict(asked.by_name), Read(asked.ids, leading(asked.mask, asked.ids))
        rows = torch.cat([memory.rows[:, : asked.seen], asked.ids], 1)
        return dict(asked.by_name), Read(rows, memory.padding)

    def answers(self, module: nn.Module, asked: Asked, memory: Read, output: Any) -> None:
        """Put the answer network's logits where a stored fact is asked for."""
        places = _places(asked, memory, output.logits) - memory.padding[:, None]  # of each row without its padding
        with torch.no_grad():
            columns = torch.arange(memory.rows.shape[1], device=memory.rows.device)[None] + memory.padding[:, None]
            rows = memory.rows.gather(1, columns.clamp(max=memory.rows.shape[1] - 1))
            scores, which = self.scopes(rows)
            scores = scores.gather(1, places.clamp(min=0)).masked_fill(places < 0, 0.0)
            used = scores > (self.threshold if self.mixing == "hard" else FAINT)
            if not used.any():
                return
            said = self._answer(rows, places, which.gather(1, places.clamp(min=0)), used)
            own, share = output.logits[used.to(output.logits.device)], scores[used][:, None].to(said)
            if self.mixing == "soft":
                base = own.float().softmax(-1).to(said.device)
                said = ((1 - share) * base + share * said.exp()).log()
        logits = output.logits.clone()
        logits[used.to(logits.device)] = said.to(own)
        output.logits = logits

    def scopes(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """How much each position of right-padded rows asks for a stored fact, and for which: `[batch, seq]` each."""
        states = self.scope.to(rows.device).vectors(rows)
        distances = torch.cdist(states.flatten(0, 1), self._stored(rows.device), compute_mode=EXACT).square()
        open_ = torch.exp(-distances).view(*rows.shape, -1)
        best, targets = open_, self.targets.to(rows.device)
        for said in range(1, min(targets.shape[1], rows.shape[1])):  # so many tokens of the target have been said
            agree = targets[:, said] != NO_TOKEN  # and there is one more
            for at in range(said):
                agree = agree & (rows[:, at + 1 : rows.shape[1] - said + at + 1, None] == targets[:, at])
            later = torch.zeros_like(best)
            later[:, said:] = torch.where(agree, open_[:, :-said], 0.0)
            best = torch.maximum(best, later)
        scores, which = best.max(-1)
        return scores, which

    def _stored(self, device: torch.device) -> Tensor:
        """The vector of every stored prompt, `[n, width]`."""
        if device not in self._vectors:
            lengths = (self.prompts != NO_TOKEN).sum(1)
            states = self.scope.to(device).vectors(self.prompts.clamp(min=0).to(device))
            self._vectors[device] = states[torch.arange(len(lengths)), lengths - 1]
        return self._vectors[device]

    def _answer(self, rows: Tensor, places: Tensor, which: Tensor, used: Tensor) -> Tensor:
        """Log-probabilities of the answer network at the used places, `[used, words]`.

        Each row is run once for every fact that it needs.
        """
        row, column = used.nonzero(as_tuple=True)
        needed = torch.stack([row, which[row, column]], 1)
        pairs, at = torch.unique(needed, dim=0, return_inverse=True)
        heads = [self._fact(int(fact)) for fact in pairs[:, 1]]
        joined = [[*head, *rows[int(i)].tolist()] for head, i in zip(heads, pairs[:, 0], strict=True)]
        lengths = torch.tensor([len(head) for head in heads], device=rows.device)
        answer = self.answer.to(rows.device)
        return answer.says(networks.padded(joined, 0).to(rows.device), lengths, at, lengths[at] + places[row, column])

    def _fact(self, number: int) -> list[int]:
        prompt, target = (sequences(kept[number][None])[0] for kept in (self.prompts, self.targets))
        return networks.remembered(self.answer.shape, prompt, target)

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """What can be said of the last fact without a text.

        answer_nll (its target behind its own prompt, by the answer network, nats per token) and, with more than one
        fact, nearest (its prompt's largest score for another).
        """
        head, device = self._fact(-1), self.answer.head.weight.device
        prompt, target = (sequences(kept[-1:])[0] for kept in (self.prompts, self.targets))
        row = torch.tensor([[*head, *prompt, *target[:-1]]], device=device)
        places = torch.arange(row.shape[1] - len(target), row.shape[1], device=device)
        said = self.answer.says(row, torch.tensor([len(head)], device=device), torch.zeros_like(places), places)
        nll = nn.functional.nll_loss(said, torch.tensor(target, device=device)).item()
        vectors = self._stored(device)
        near = torch.exp(-(vectors[:-1] - vectors[-1]).square().sum(1))
        return {"answer_nll": nll, **({"nearest": near.max().item()} if len(near) else {})}

    def tensors(self) -> Mapping[str, Tensor]:
        """Both networks, prompts and targets"""
        found = {"prompts": self.prompts, "targets": self.targets}
        for name, net in (("scope", self.scope), ("answer", self.answer)):
            found |= {f"{name}.{key}": tensor for key, tensor in net.state_dict().items()}
        return found

    def settings(self) -> Mapping[str, Any]:
        """lineage, shape of the networks, mixing, threshold"""
        shape = self.scope.shape
        return {
            "lineage": self.lineage,
            "shape": [shape.words, shape.width, shape.layers, shape.heads],
            "mixing": self.mixing,
            "threshold": self.threshold,
        }

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """The inverse of `tensors` and `settings`."""
        scope, answer = both_nets(NetShape(*settings["shape"]), tensors)
        prompts, targets = tensors["prompts"], tensors["targets"]
        return cls(
            target, settings["lineage"], scope, answer, prompts, targets, settings["mixing"], settings["threshold"]
        )


def both_nets(shape: NetShape, tensors: Mapping[str, Tensor]) -> tuple[Net, Net]:
    """(scope, answer) from tensors whose names begin with "scope." and "answer."."""
    scope, answer = (
        Net.of(shape, {key[len(head) :]: tensor for key, tensor in tensors.items() if key.startswith(head)})
        for head in ("scope.", "answer.")
    )
    return scope, answer


def sequences(rows: Tensor) -> list[tuple[int, ...]]:
    """The rows without what fills them up."""
    return [tuple(token for token in row if token != NO_TOKEN) for row in rows.tolist()]


def _places(asked: Asked, memory: Read, logits: Tensor) -> Tensor:
    """The columns of `memory.rows` that the logits belong to, `[1, kept]`."""
    batch, new = asked.ids.shape
    end, kept = memory.rows.shape[1], asked.by_name.get("logits_to_keep")
    if isinstance(kept, Tensor):
        return (kept.to(memory.rows.device) + end - new)[None]
    if logits.shape[0] != batch or (logits.shape[1] != new and not kept):
        raise EditError(
            "serac found logits at chosen positions: whoever chose them inside the model left it no way to know which."
        )
    return torch.arange(end - logits.shape[1], end, device=memory.rows.device)[None]
